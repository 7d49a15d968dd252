//! A job's way to the server, and what is cleared up there behind it.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, ErrorCode as StreamErrorCode};
use bytes::Bytes;

use super::connect::Link;
use super::job::Job;
use super::letter::{Letter, digest};
use super::names::PROTOCOL;

/// Larger payloads go into the store: every message passes the server's memory.
const MAX_INLINE_BYTES: usize = 256 << 10;

/// Between two tries to send a job.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Where a job is at the server.
pub(super) struct Sent {
    stream: jetstream::stream::Stream<()>,
    sequence: u64,
    /// When it was sent, or was looked for last.
    pub(super) at: Instant,
}

impl Sent {
    /// Takes it off its stream.
    pub(super) async fn withdraw(self) {
        self.stream.delete_message(self.sequence).await.ok();
    }

    /// Whether the server has it no more: whoever did it has taken it off, or the server has lost it.
    pub(super) async fn is_gone(&mut self) -> bool {
        self.at = Instant::now();
        let found = self.stream.get_raw_message(self.sequence).await;
        found.is_err_and(|error| is_gone(&error))
    }
}

/// Why a job is not at the server.
pub(super) enum Trouble {
    Full(String),
    Other(String),
}

/// What a board's process sends by.
pub(super) struct Post {
    pub(super) link: Link,
    /// Of the process.
    pub(super) session: String,
}

impl Post {
    /// Where workers tell it what becomes of its jobs.
    pub(super) fn subject(&self) -> String {
        self.link.names.source(&self.link.node, &self.session)
    }

    /// Sends a message of what is being said.
    pub(super) async fn say(&self, id: &str, message: Bytes) {
        let subject = self.link.names.sound(id);
        self.link.client.publish(subject, message).await.ok();
    }

    /// Clears up behind a job.
    pub(super) async fn close(&self, job: &Job, sent: Option<Sent>, done: bool, body: &Bytes) {
        if let Some(sent) = sent.filter(|_| !done) {
            let id = Bytes::from(job.id.clone());
            let cancel = self.link.names.subject("cancel");
            self.link.client.publish(cancel, id).await.ok();
            // A worker that has it is told; one that takes it just now asks before it begins.
            sent.withdraw().await;
        }
        if body.len() > MAX_INLINE_BYTES
            && let Ok(store) = self.link.store().await
        {
            store.delete(&job.id).await.ok();
        }
    }

    pub(super) async fn send(
        &self,
        job: &Job,
        (queue, live): (&str, bool),
        body: &Bytes,
        sending: u32,
    ) -> Result<Sent, Trouble> {
        let other = |error: &dyn std::fmt::Display| Trouble::Other(error.to_string());
        let Link { names, node, .. } = &self.link;
        let stored = body.len() > MAX_INLINE_BYTES;
        if stored {
            let store = self.link.store().await.map_err(|error| other(&error))?;
            let put = store.put(job.id.as_str(), &mut &body[..]).await;
            put.map_err(|error| match is_full(&error.to_string()) {
                true => Trouble::Full(format!(
                    "the fleet has no room for a payload of {} KiB: {error}; raise fleet.store_mib, or ask again later",
                    body.len() >> 10
                )),
                false => other(&error),
            })?;
        }
        let letter = Letter {
            id: job.id.clone(),
            node: node.clone(),
            session: self.session.clone(),
            protocol: PROTOCOL,
            patience: job.patience,
            digest: digest(body),
            stored,
            sending,
            live,
        };
        let place = match &job.camera {
            Some(camera) => format!("{node}.{}", part(camera)),
            None => node.clone(),
        };
        let subject = names.job(job.kind, queue, &place);
        let payload = if stored { Bytes::new() } else { body.clone() };
        let headers = letter.write();
        let context = &self.link.stream;
        let published = context.publish_with_headers(subject, headers, payload);
        let acknowledged = match published.await {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        let acknowledged = match acknowledged {
            Ok(acknowledged) => acknowledged,
            Err(error) => {
                if let Some(words) = no_room(&error) {
                    return Err(Trouble::Full(format!(
                        "the fleet has no room for more {} work ({words}): ask again later, or add a worker",
                        job.kind.name()
                    )));
                }
                // It may be a new server, or one that has lost its disk.
                self.link
                    .make_streams()
                    .await
                    .map_err(|error| other(&error))?;
                return Err(other(&error));
            }
        };
        let stream = context.get_stream_no_info(names.stream(job.kind)).await;
        let stream = stream.map_err(|error| other(&error))?;
        let bell = names.subject("bell");
        self.link.client.publish(bell, Bytes::new()).await.ok();
        Ok(Sent {
            stream,
            sequence: acknowledged.sequence,
            at: Instant::now(),
        })
    }
}

/// A camera's name as a part of a subject.
fn part(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let part = |c: char| if fits(c) { c } else { '_' };
    name.chars().map(part).collect()
}

/// The server knows the stream, or a new one of its name, and the message is not there.
fn is_gone(error: &jetstream::stream::RawMessageError) -> bool {
    use jetstream::stream::LastRawMessageErrorKind as Kind;
    match error.kind() {
        Kind::NoMessageFound => true,
        Kind::JetStream(error) => error.error_code() == StreamErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

/// In the server's words why a stream takes no more; nothing where it is something else.
fn no_room(error: &jetstream::context::PublishError) -> Option<String> {
    let source = std::error::Error::source(error)?;
    let told = source.downcast_ref::<jetstream::Error>()?;
    let full = [
        StreamErrorCode::STREAM_STORE_FAILED,
        StreamErrorCode::STORAGE_RESOURCES_EXCEEDED,
        StreamErrorCode::INSUFFICIENT_RESOURCES,
        StreamErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ];
    full.contains(&told.error_code()).then(|| told.to_string())
}

/// The same of the store, which tells it in words only.
fn is_full(words: &str) -> bool {
    let full = [
        "maximum bytes",
        "insufficient",
        "resource limits",
        "no space",
    ];
    full.iter().any(|part| words.contains(part))
}
