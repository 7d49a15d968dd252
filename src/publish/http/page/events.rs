//! What happens, as it happens: server-sent events with the payloads that MQTT has.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::publish::http::Shared;
use crate::publish::http::answer::KEEP_ALIVE;
use crate::report::Report;

/// Digital silence has no level in decibels; it is told as this one, which no microphone is below.
const LEAST_DBFS: f32 = -120.0;

/// Something that happened: its name, and JSON.
#[derive(Clone, Debug)]
pub(super) struct Event {
    name: &'static str,
    /// The microphone, of what was heard.
    microphone: Option<String>,
    data: Arc<str>,
}

impl Event {
    fn new(name: &'static str, data: &impl Serialize) -> Option<Event> {
        let data = serde_json::to_string(data).ok()?;
        let data = data.into();
        let microphone = None;
        Some(Event {
            name,
            microphone,
            data,
        })
    }

    /// Whether it is what that microphone heard.
    pub(super) fn is_heard_by(&self, microphone: &str) -> bool {
        self.microphone.as_deref() == Some(microphone)
    }

    /// Whether a page that is opened later is still shown it.
    pub(super) fn stays(&self) -> bool {
        matches!(self.name, "heard" | "replied" | "seen" | "error")
    }

    /// As JSON of its own.
    pub(super) fn value(&self) -> Value {
        let data: Value = serde_json::from_str(&self.data).unwrap_or_default();
        json!({ "event": self.name, "data": data })
    }

    fn text(&self) -> String {
        // JSON is one line.
        format!("event: {}\ndata: {}\n\n", self.name, self.data)
    }
}

/// What pages are told of a report.
pub(super) fn of(report: &Report) -> Option<Event> {
    let device = |kind: &str, id: &str, key: &str, value: Value| {
        let mut data = json!({ "kind": kind, "id": id });
        data[key] = value;
        Event::new("state", &data)
    };
    match report {
        Report::Voice(event) => Event::new("heard", event).map(|heard| Event {
            microphone: Some(event.source.clone()),
            ..heard
        }),
        Report::Replied(event) => Event::new("replied", event).map(|replied| Event {
            microphone: Some(event.source.clone()),
            ..replied
        }),
        Report::Caption { event, .. } => Event::new("seen", event),
        Report::Health(health) => Event::new("health", health),
        Report::Log(line) => Event::new("error", line),
        Report::Level { id, dbfs } => {
            Event::new("level", &json!({ "id": id, "dbfs": dbfs.max(LEAST_DBFS) }))
        }
        Report::JobEnded(update) => Event::new(
            "answer",
            &json!({
                "id": update.header.id,
                "kind": update.header.kind,
                "state": update.state,
                "timing": update.reply.as_ref().and_then(|reply| reply.timing.as_ref()),
                "error": update.error,
            }),
        ),
        Report::MicrophoneState { id, state } => {
            device("microphone", id, "state", state.name("muted").into())
        }
        Report::Speech { id, speaking } => device("microphone", id, "speech", (*speaking).into()),
        Report::CameraState { id, state } => {
            device("camera", id, "state", state.name("disabled").into())
        }
        Report::Motion { id, moving } => device("camera", id, "motion", (*moving).into()),
        Report::Captions { id, enabled } => device("camera", id, "captions", (*enabled).into()),
        Report::SpeakerState(state) => {
            device("speaker", "speaker", "state", state.name("off").into())
        }
        Report::Speaking(speaking) => device("speaker", "speaker", "speaking", (*speaking).into()),
        Report::Volume(percent) => device("speaker", "speaker", "volume", (*percent).into()),
        Report::Wake { id, on } => device("microphone", id, "wake", (*on).into()),
        Report::LiveScore { id, score } => {
            Event::new("score", &json!({ "id": id, "score": score }))
        }
        Report::WakeScore { id, score } => device("microphone", id, "wake_score", (*score).into()),
        Report::Woken(_)
        | Report::Info(_)
        | Report::Matformer(_)
        | Report::MaxTokens(_)
        | Report::Stopping => None,
    }
}

/// The next words for a page; nothing where there will be no more.
async fn next(events: &mut Receiver<Event>) -> Option<String> {
    match timeout(KEEP_ALIVE, events.recv()).await {
        Ok(Ok(event)) => Some(event.text()),
        // It was too slow, and asks anew how everything is.
        Ok(Err(RecvError::Lagged(_))) => Some("event: missed\ndata: {}\n\n".to_owned()),
        Ok(Err(RecvError::Closed)) => None,
        Err(_) => Some(": keep-alive\n\n".to_owned()),
    }
}

pub(super) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    let start = (shared.page.listen(), true);
    let words = stream::unfold(start, |(mut events, first)| async move {
        let words = match first {
            true => "retry: 2000\n\n".to_owned(),
            false => next(&mut events).await?,
        };
        Some((Ok::<_, Infallible>(Bytes::from(words)), (events, false)))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(words)).into_response()
}
