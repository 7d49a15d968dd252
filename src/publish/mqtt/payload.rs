//! Reports as messages: which topic, which payload, and what becomes of it while the broker is away.

use std::collections::BTreeSet;

use serde::Serialize;

use super::body::{JobEvent, JobEventType, Partial, PlainAnswer, Response, Status, Transcript};
use super::options::MqttOptions;
use super::outbox::{Delivery, Outgoing};
use super::topics::{KIND_SET, Source, Topics};
use crate::media::DeviceState;
use crate::report::{
    CaptionEvent, Cut, ErrorBody, ErrorCode, EventType, JobState, JobUpdate, Reply, Report, SCHEMA,
    VoiceEvent, short,
};

/// Digital silence has no level in decibels; it is published as this one, which no microphone is below.
const LEAST_DBFS: f32 = -120.0;

/// Turns reports into messages.
pub(super) struct Composer {
    topics: Topics,
    retain_results: bool,
    max_payload_bytes: usize,
    max_image_bytes: usize,
    /// Microphones that are muted: what they heard before is not kept on the broker.
    muted: BTreeSet<String>,
}

impl Composer {
    pub(super) fn new(config: &MqttOptions) -> Composer {
        Composer {
            topics: Topics::new(config),
            retain_results: config.retain_results,
            max_payload_bytes: config.max_payload_bytes,
            max_image_bytes: config.max_image_bytes,
            muted: BTreeSet::new(),
        }
    }

    /// The messages of a report, in order.
    pub(super) fn messages(&mut self, report: &Report) -> Vec<Outgoing> {
        let topics = &self.topics;
        let state = |source, id: &str, rest: &str, payload: &str| Outgoing {
            delivery: Delivery::State,
            topic: topics.of_source(source, id, rest),
            payload: payload.as_bytes().to_vec(),
        };
        let node = |rest: &str, payload: &str| Outgoing {
            delivery: Delivery::State,
            topic: topics.of(rest),
            payload: payload.as_bytes().to_vec(),
        };
        match report {
            Report::Info(info) => vec![json(Delivery::State, topics.of("info"), info)],
            Report::Health(health) => vec![json(Delivery::State, topics.of("health"), health)],
            Report::Log(line) => vec![json(Delivery::Fleeting, topics.of("log"), line)],
            Report::MicrophoneState { id, state: now } => {
                let off = *now == DeviceState::Off;
                let mut messages = vec![
                    state(Source::Microphone, id, "state", now.name("muted")),
                    state(Source::Microphone, id, "mute", on_off(off)),
                ];
                if off {
                    // Whoever mutes does not want what was said to stay where everybody can read it.
                    messages.push(state(Source::Microphone, id, "transcript", ""));
                    self.muted.insert(id.clone());
                } else {
                    self.muted.remove(id);
                }
                messages
            }
            Report::Wake { id, on } => vec![state(Source::Microphone, id, "wake", on_off(*on))],
            Report::WakeScore { id, score } => {
                let score = format!("{score:.2}");
                vec![state(Source::Microphone, id, "wake_score", &score)]
            }
            Report::Woken(claim) => vec![json(Delivery::AtOnce, topics.woken(), claim)],
            Report::Speech { id, speaking } => {
                vec![state(Source::Microphone, id, "speech", on_off(*speaking))]
            }
            // A number as it is, like the other states; JSON of five a second would tell no more.
            Report::Level { id, dbfs } => vec![Outgoing {
                delivery: Delivery::Newest { retain: false },
                topic: topics.of_source(Source::Microphone, id, "level"),
                payload: format!("{:.1}", dbfs.max(LEAST_DBFS)).into_bytes(),
            }],
            Report::CameraState { id, state: now } => {
                let off = *now == DeviceState::Off;
                vec![
                    state(Source::Camera, id, "state", now.name("disabled")),
                    state(Source::Camera, id, "enabled", on_off(!off)),
                ]
            }
            Report::Motion { id, moving } => {
                vec![state(Source::Camera, id, "motion", on_off(*moving))]
            }
            Report::Captions { id, enabled } => {
                vec![state(Source::Camera, id, "captions", on_off(*enabled))]
            }
            // Whoever asked for it to be told published it; and a meter of every word is for the page.
            Report::Replied(_) | Report::LiveScore { .. } => Vec::new(),
            Report::Voice(event) => self.voice(event),
            Report::Caption { event, image } => self.caption(event, image.as_deref()),
            Report::SpeakerState(now) => vec![node("speaker/state", now.name("off"))],
            Report::Speaking(speaking) => vec![node("speaker/speaking", on_off(*speaking))],
            Report::Volume(percent) => vec![node("speaker/volume", &percent.to_string())],
            Report::Matformer(slice) => vec![node("matformer", slice)],
            Report::MaxTokens(tokens) => vec![node("max_tokens", &tokens.to_string())],
            Report::JobEnded(update) => self.job(update),
            // The farewell follows when the daemon has nothing more to say.
            Report::Stopping => Vec::new(),
        }
    }

    /// How the last result is published: it is kept on the broker only where that is allowed.
    fn last_result(&self, muted: bool) -> Delivery {
        if self.retain_results && !muted {
            Delivery::Result
        } else {
            Delivery::Fleeting
        }
    }

    fn voice(&self, event: &VoiceEvent) -> Vec<Outgoing> {
        let of = |rest| {
            self.topics
                .of_source(Source::Microphone, &event.source, rest)
        };
        let mut messages = vec![json(Delivery::Event, of("event"), event)];
        let command = event.command.as_ref().map(|command| &command.name);
        let said = event.text.as_ref().or(command);
        // Speech that was not worked on says nothing, and leaves the last result alone.
        if let (Some(said), true) = (said, event.event_type != EventType::Rejected) {
            let short = short(said, Cut::Anywhere);
            let transcript = Transcript { event, short };
            let muted = self.muted.contains(&event.source);
            messages.push(json(self.last_result(muted), of("transcript"), &transcript));
        }
        messages
    }

    fn caption(&self, event: &CaptionEvent, image: Option<&[u8]>) -> Vec<Outgoing> {
        let of = |rest| self.topics.of_source(Source::Camera, &event.source, rest);
        let mut messages = Vec::new();
        // The picture first: who acts on the event finds it there.
        match image {
            Some(image) if image.len() <= self.max_image_bytes => messages.push(Outgoing {
                delivery: Delivery::Newest {
                    retain: self.retain_results,
                },
                topic: of("image"),
                payload: image.to_vec(),
            }),
            Some(image) => log::debug!(
                target: "mqtt", source = event.source.as_str();
                "a picture of {} bytes is not published: mqtt.max_image_bytes is {}", image.len(), self.max_image_bytes
            ),
            None => {}
        }
        messages.push(json(Delivery::Event, of("event"), event));
        if event.event_type == EventType::Caption {
            messages.push(json(self.last_result(false), of("caption"), event));
        }
        messages
    }

    /// That a job ended, for everybody: without a word of what it was about.
    fn job(&self, update: &JobUpdate) -> Vec<Outgoing> {
        let header = &update.header;
        if !matches!(header.kind, "ask" | "describe" | "transcribe") {
            return Vec::new();
        }
        let event = JobEvent {
            schema: SCHEMA,
            event_type: if update.state == JobState::Done {
                JobEventType::Finished
            } else {
                JobEventType::Failed
            },
            id: header.id.clone(),
            kind: header.kind,
            code: update.error.as_ref().map(|error| error.code),
        };
        vec![json(Delivery::Reply, self.topics.of("job"), &event)]
    }

    /// What whoever asked is told: the next piece of the answer, the `sequence`th, or how the job ended.
    pub(super) fn answer(&self, update: &JobUpdate, sequence: u64, plain: bool) -> Vec<Outgoing> {
        let mut messages = Vec::new();
        let header = &update.header;
        if let Some(text) = &update.partial {
            let partial = Partial {
                schema: SCHEMA,
                id: header.id.clone(),
                sequence,
                text: text.clone(),
                transaction: header.transaction.clone(),
            };
            let topic = self.topics.of(&format!("response/{}/partial", header.kind));
            messages.push(json(Delivery::Fleeting, topic, &partial));
        }
        if update.state.has_ended() && !is_idle(update) {
            messages.extend(self.end(update, plain));
        }
        messages
    }

    fn end(&self, update: &JobUpdate, plain: bool) -> Vec<Outgoing> {
        let failed = ErrorBody {
            code: if update.state == JobState::Cancelled {
                ErrorCode::Cancelled
            } else {
                ErrorCode::Failed
            },
            message: "it ended without an answer".to_owned(),
        };
        let error = match update.state {
            JobState::Done => None,
            _ => Some(update.error.clone().unwrap_or(failed)),
        };
        let response = Response {
            schema: SCHEMA,
            id: Some(update.header.id.clone()),
            status: if error.is_none() {
                Status::Ok
            } else {
                Status::Error
            },
            data: match error {
                None => update.reply.clone().unwrap_or_default(),
                Some(_) => Reply::default(),
            },
            error,
            transaction: update.header.transaction.clone(),
        };
        let mut messages = vec![self.fitting(update.header.kind, response)];
        let text = update.reply.as_ref().and_then(|reply| reply.text.as_ref());
        if let (true, JobState::Done, Some(text)) = (plain, update.state, text) {
            let answer = PlainAnswer {
                schema: SCHEMA,
                id: update.header.id.clone(),
                text: text.clone(),
                short: short(text, Cut::Anywhere),
                transaction: update.header.transaction.clone(),
            };
            messages.push(json(Delivery::Reply, self.topics.of("answer"), &answer));
        }
        messages
    }

    /// The error that a request ends with before it was one.
    pub(super) fn refusal(
        &self,
        kind: &str,
        id: Option<String>,
        error: ErrorBody,
        transaction: Option<String>,
    ) -> Outgoing {
        let response = Response {
            schema: SCHEMA,
            id,
            status: Status::Error,
            data: Reply::default(),
            error: Some(error),
            transaction,
        };
        self.fitting(kind, response)
    }

    /// A response, or the news that it is too long for a message: whoever asked must not wait in vain.
    fn fitting(&self, kind: &str, response: Response) -> Outgoing {
        let topic = self.topics.of(&format!("response/{kind}"));
        let message = json(Delivery::Reply, topic.clone(), &response);
        if message.payload.len() <= self.max_payload_bytes {
            return message;
        }
        let error = ErrorBody {
            code: ErrorCode::TooLarge,
            message: format!(
                "the answer takes {} bytes; mqtt.max_payload_bytes is {}",
                message.payload.len(),
                self.max_payload_bytes
            ),
        };
        let response = Response {
            status: Status::Error,
            data: Reply::default(),
            error: Some(error),
            ..response
        };
        json(Delivery::Reply, topic, &response)
    }
}

/// Whether a switch was set to what it is: its state says so, and needs no saying again.
fn is_idle(update: &JobUpdate) -> bool {
    let details = update.reply.as_ref().map(|reply| &reply.details);
    update.header.kind == KIND_SET
        && details.is_some_and(|details| details.contains_key("unchanged"))
}

/// A payload in JSON.
pub(super) fn json(delivery: Delivery, topic: String, payload: &impl Serialize) -> Outgoing {
    let payload = serde_json::to_vec(payload).unwrap_or_else(|error| {
        // The payloads have string keys only, so this is a mistake in this program; nothing is published then.
        log::error!(target: "mqtt", "{topic}: cannot be written as JSON: {error}");
        Vec::new()
    });
    Outgoing {
        delivery,
        topic,
        payload,
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}
