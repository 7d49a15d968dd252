//! An answer on its way: its job, and what comes of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::fault::Fault;
use crate::publish::replies::Asked;
use crate::report::{JobState, JobUpdate, Origin, Payload, Reply, ReportTiming};

/// How long the head of a streamed answer waits for the first word of whether there will be one: what shows before is told with the
/// right status, and who waits longer is kept from giving up.
const HEAD_WITHIN: Duration = Duration::from_secs(8);

/// Between two signs of life while nothing comes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What comes of an answer.
#[derive(Debug)]
pub(super) enum Told {
    /// The next piece of its text.
    Piece(String),
    /// What the model has thought meanwhile, before it answers.
    Thoughts(String),
    /// Its end.
    End(Box<Reply>),
    /// There is none, or no more.
    Failed(Fault),
}

/// An answer that is waited for. Dropped before its end, its job is cancelled.
pub(super) struct Awaited {
    asked: Asked,
    /// What came and is not told yet.
    ahead: VecDeque<Told>,
    /// Its text so far.
    told: String,
    /// Bytes of its thoughts so far.
    thoughts: usize,
}

fn stopping() -> Fault {
    Fault::busy("the daemon is stopping")
}

/// Asks the daemon for something.
pub(super) fn ask(shared: &Shared, payload: Payload) -> Result<Awaited, Fault> {
    let asked = Asked::new(&shared.requests, Origin::Http, payload);
    let asked =
        asked.ok_or_else(|| Fault::busy("the daemon has too much to do: ask again later"))?;
    Ok(Awaited {
        asked,
        ahead: VecDeque::new(),
        told: String::new(),
        thoughts: 0,
    })
}

impl Awaited {
    /// The job's name.
    pub(super) fn job(&self) -> &str {
        self.asked.job()
    }

    /// The whole answer.
    pub(super) async fn whole(mut self) -> Result<Reply, Fault> {
        ended(self.asked.end().await)
    }

    /// Waits until it is worked on, has failed, or enough time has passed.
    ///
    /// # Errors
    /// It has failed.
    pub(super) async fn begun(mut self) -> Result<Awaited, Fault> {
        let until = Instant::now() + HEAD_WITHIN;
        while let Ok(update) = timeout_at(until, self.asked.next()).await {
            let begun = update
                .as_ref()
                .is_some_and(|update| update.state == JobState::Running);
            self.take_in(update);
            if let Some(Told::Failed(_)) = self.ahead.front()
                && let Some(Told::Failed(fault)) = self.ahead.pop_front()
            {
                return Err(fault);
            }
            if begun || !self.ahead.is_empty() {
                break;
            }
        }
        Ok(self)
    }

    /// What comes next; nothing for a while is `None`.
    pub(super) async fn next(&mut self) -> Option<Told> {
        let until = Instant::now() + KEEP_ALIVE;
        while self.ahead.is_empty() {
            let update = timeout_at(until, self.asked.next()).await.ok()?;
            self.take_in(update);
        }
        self.ahead.pop_front()
    }

    fn take_in(&mut self, update: Option<JobUpdate>) {
        let Some(mut update) = update else {
            return self.ahead.push_back(Told::Failed(stopping()));
        };
        // Pieces for which there was no room come with others, or with the end.
        let some = |piece: Option<String>| piece.filter(|piece| !piece.is_empty());
        if let Some(thoughts) = some(update.thoughts.take()) {
            self.thoughts += thoughts.len();
            self.ahead.push_back(Told::Thoughts(thoughts));
        }
        if let Some(piece) = some(update.partial.take()) {
            self.told.push_str(&piece);
            self.ahead.push_back(Told::Piece(piece));
        }
        if update.state.has_ended() {
            let end = self.end(update);
            self.ahead.push_back(end);
        }
    }

    /// The end; of thoughts it has what has not been told.
    fn end(&self, update: JobUpdate) -> Told {
        match ended(Some(update)) {
            Ok(mut reply) => {
                let thoughts = reply.thoughts.take();
                let left = thoughts.and_then(|all| all.get(self.thoughts..).map(str::to_owned));
                reply.thoughts = left.filter(|left| !left.is_empty());
                Told::End(Box::new(reply))
            }
            Err(fault) => Told::Failed(fault),
        }
    }
}

fn ended(update: Option<JobUpdate>) -> Result<Reply, Fault> {
    let update = update.ok_or_else(stopping)?;
    match (update.reply, update.error) {
        (Some(reply), None) => Ok(reply),
        (_, Some(error)) => Err(Fault::from(&error)),
        (None, None) => Err(stopping()),
    }
}

/// How long each step of an answer took.
pub(super) fn timing(reply: &Reply) -> ReportTiming {
    reply.timing.clone().unwrap_or_default()
}

/// Whether an answer was cut for want of room.
pub(super) fn is_cut(reply: &Reply) -> bool {
    matches!(reply.finish.as_deref(), Some("max_tokens" | "context_full"))
}

/// A value of the reply's details.
pub(super) fn detail<'r>(details: &'r Map<String, Value>, key: &str) -> &'r Value {
    details.get(key).unwrap_or(&Value::Null)
}

/// How an answer is written while it comes, in a protocol's own way.
pub(super) trait Script: Send + 'static {
    /// The type of what is written.
    const CONTENT_TYPE: &'static str;

    /// Before anything is known.
    fn begin(&mut self) -> String;
    /// A piece of the text.
    fn piece(&mut self, text: &str) -> String;
    /// A piece of what the model thinks before it answers; nothing where the protocol has no place for it.
    fn thoughts(&mut self, _thoughts: &str) -> String {
        self.idle()
    }
    /// A sign of life.
    fn idle(&mut self) -> String;
    /// The end; `text` is all that there was.
    fn end(&mut self, reply: &Reply, text: &str) -> String;
    /// The end of an answer that failed; the status has been sent already.
    fn failed(&mut self, fault: &Fault) -> String;
}

enum Stage {
    Begin,
    Middle,
    Over,
}

/// The response to an answer that is told while it comes.
pub(super) fn streamed<S: Script>(awaited: Awaited, script: S) -> Response {
    let start = (awaited, script, Stage::Begin);
    let pieces = stream::unfold(start, |(mut awaited, mut script, stage)| async move {
        let (text, stage) = match stage {
            Stage::Over => return None,
            Stage::Begin => (script.begin(), Stage::Middle),
            Stage::Middle => match awaited.next().await {
                None => (script.idle(), Stage::Middle),
                Some(Told::Piece(piece)) => (script.piece(&piece), Stage::Middle),
                Some(Told::Thoughts(thoughts)) => (script.thoughts(&thoughts), Stage::Middle),
                Some(Told::End(reply)) => (script.end(&reply, &awaited.told), Stage::Over),
                Some(Told::Failed(fault)) => (script.failed(&fault), Stage::Over),
            },
        };
        Some((
            Ok::<_, Infallible>(Bytes::from(text)),
            (awaited, script, stage),
        ))
    });
    let headers = [
        (CONTENT_TYPE, S::CONTENT_TYPE),
        (CACHE_CONTROL, "no-cache"),
        // A proxy in front shall not collect the pieces.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// An event of a stream of them.
pub(super) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// A JSON response.
pub(super) fn json(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
