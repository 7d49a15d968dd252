//! One job at a worker: its payload, the daemon that does it, and the way back to its source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::object_store::GetErrorKind;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::connect::Link;
use super::job::Work;
use super::letter::{Letter, NO, ToSource, YES, digest};
use super::names::{ACK_WAIT, Kind, PROTOCOL};
use super::voice::{Ear, Took};
use crate::report::{ErrorBody, ErrorCode, JobUpdate, Origin, Payload, Reply, ReplyTo, Request};
use crate::utterance;

/// How long a source, or the store, may take to answer.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long it is tried to bring a result to a source that may have gone.
const SOURCE_GONE: Duration = Duration::from_secs(30);

/// Before a job is given to another worker that this one cannot do now.
const GIVEN_BACK: Duration = Duration::from_millis(500);

/// After so long without a word somebody who speaks is asked for what comes.
const MISSES: Duration = Duration::from_secs(1);

/// After so long without a word whoever speaks is gone, or cut off.
const SILENT: Duration = Duration::from_secs(5);

/// Largest payload, bytes.
const MAX_BYTES: usize = 64 << 20;

/// Whoever does jobs at a board.
pub(super) struct Hand {
    pub(super) link: Link,
    /// Of the process.
    pub(super) session: String,
    pub(super) model: String,
    pub(super) requests: mpsc::Sender<Request>,
}

/// A job that has been taken.
#[derive(Clone)]
pub(super) struct Duty {
    pub(super) hand: Arc<Hand>,
    pub(super) kind: Kind,
    pub(super) letter: Letter,
    pub(super) message: Message,
}

/// Whose the requests of such jobs are.
pub(super) fn origin(kind: Kind) -> Origin {
    Origin::Fleet {
        unasked: kind == Kind::Image,
    }
}

impl Duty {
    /// Does something, and tells the server meanwhile that the job is in good hands.
    async fn keeping<T>(&self, work: impl Future<Output = T>) -> T {
        let mut alive = tokio::time::interval(ACK_WAIT / 4);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = alive.tick() => drop(self.message.ack_with(AckKind::Progress).await),
            }
        }
    }

    /// Does the job; nothing, where it is not this board's any more.
    pub(super) async fn result(&self) -> Option<Result<Reply, ErrorBody>> {
        self.keeping(self.work()).await
    }

    async fn work(&self) -> Option<Result<Reply, ErrorBody>> {
        let (letter, hand) = (&self.letter, &self.hand);
        let claim = ToSource::Has {
            id: letter.id.clone(),
            worker: hand.link.node.clone(),
            session: hand.session.clone(),
            sending: letter.sending,
            delivery: self.message.info().map_or(1, |info| info.delivered),
        };
        // What is said begins to come when the source knows who hears it.
        let sound = match letter.live {
            true => {
                let subject = hand.link.names.sound(&letter.id);
                hand.link.client.subscribe(subject).await.ok()
            }
            false => None,
        };
        if !self.ask(&claim, ACK_WAIT).await {
            self.message.ack_with(AckKind::Term).await.ok();
            return None;
        }
        if letter.protocol != PROTOCOL {
            let words = format!(
                "{} speaks protocol {PROTOCOL} of the fleet, and the job's board {}: update the older one",
                hand.link.node, letter.protocol
            );
            return Some(Err(ErrorBody::new(ErrorCode::Failed, words)));
        }
        let (payload, speaks) = match self.payload().await {
            Ok(asked) => asked,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (sender, updates) = mpsc::unbounded_channel::<JobUpdate>();
        let reply = ReplyTo::new(move |update| {
            sender.send(update.clone()).ok();
        });
        let origin = origin(self.kind);
        let mut request = Request::new(letter.id.clone(), origin, None, payload, reply);
        request.header.timeout = Some(letter.patience);
        let began = hand.requests.send(request).await;
        let end = match began {
            Ok(()) => tokio::select! {
                end = self.end(updates) => end,
                // Its source is gone, or cut off.
                () = self.hear(sound, speaks) => None,
            },
            Err(_) => None,
        };
        match end {
            // It is ending, or has taken in more than it can do: another board may do it.
            None
            | Some(Err(ErrorBody {
                code: ErrorCode::Busy | ErrorCode::QueueFull,
                ..
            })) => {
                self.give_back().await;
                None
            }
            result => result,
        }
    }

    /// How the daemon's work on it ends; pieces of the answer are passed on as they come.
    async fn end(
        &self,
        mut updates: mpsc::UnboundedReceiver<JobUpdate>,
    ) -> Option<Result<Reply, ErrorBody>> {
        let mut at = 0;
        loop {
            let update = updates.recv().await?;
            if update.state.has_ended() {
                return update.reply.map(Ok).or(update.error.map(Err));
            }
            if let Some(text) = update.partial {
                let next = at + text.len();
                let id = self.letter.id.clone();
                let piece = ToSource::Piece { id, at, text };
                if let Ok(piece) = serde_json::to_vec(&piece) {
                    // One that is lost comes with the whole answer.
                    let sent = self.hand.link.client.publish(self.source(), piece.into());
                    sent.await.ok();
                }
                at = next;
            }
        }
    }

    /// Hears what is said, where it comes while it is spoken. Ends where no more comes, and what came was not all.
    async fn hear(&self, sound: Option<Subscriber>, speaks: Option<utterance::Sender>) {
        let (Some(mut sound), Some(speaker)) = (sound, speaks) else {
            return std::future::pending().await;
        };
        let mut ear = Ear::new(speaker);
        let mut last = Instant::now();
        while last.elapsed() < SILENT {
            let took = match tokio::time::timeout(MISSES, sound.next()).await {
                Ok(Some(message)) => {
                    last = Instant::now();
                    ear.take(&message.payload)
                }
                Ok(None) => return,
                Err(_) => Took::Misses(ear.heard()),
            };
            match took {
                Took::Heard => {}
                Took::Misses(at) => {
                    let id = self.letter.id.clone();
                    if let Ok(misses) = serde_json::to_vec(&ToSource::Misses { id, at }) {
                        let client = &self.hand.link.client;
                        client.publish(self.source(), misses.into()).await.ok();
                    }
                }
                Took::All => return std::future::pending().await,
            }
        }
    }

    async fn give_back(&self) {
        let leaves = ToSource::Leaves {
            id: self.letter.id.clone(),
            session: self.hand.session.clone(),
        };
        self.ask(&leaves, ANSWERS_WITHIN).await;
        let soon = AckKind::Nak(Some(GIVEN_BACK));
        self.message.ack_with(soon).await.ok();
    }

    /// Brings the source what the job became, and takes it off its stream.
    pub(super) async fn bring(&self, result: Result<Reply, ErrorBody>) {
        let (reply, error) = match result {
            Ok(reply) => (Some(Box::new(reply)), None),
            Err(error) => (None, Some(error)),
        };
        let told = ToSource::Done {
            id: self.letter.id.clone(),
            worker: self.hand.link.node.clone(),
            model: self.hand.model.clone(),
            reply,
            error,
        };
        self.keeping(self.ask(&told, SOURCE_GONE)).await;
        self.message.ack_with(AckKind::Ack).await.ok();
    }

    /// Where its source listens.
    fn source(&self) -> String {
        let names = &self.hand.link.names;
        names.source(&self.letter.node, &self.letter.session)
    }

    /// Asks or tells the job's source; whether the job is one of those that it waits for. One that cannot be reached within `patience`
    /// waits for nothing: where it is there after all, it sends again what is not at the server.
    async fn ask(&self, told: &ToSource, patience: Duration) -> bool {
        let Ok(told) = serde_json::to_vec(told) else {
            return false;
        };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let client = &self.hand.link.client;
            let asked = client.request(self.source(), told.clone().into());
            match tokio::time::timeout(ANSWERS_WITHIN, asked).await {
                Ok(Ok(answer)) if *answer.payload == *YES => return true,
                Ok(Ok(answer)) if *answer.payload == *NO => return false,
                _ => tokio::time::sleep(ANSWERS_WITHIN / 4).await,
            }
        }
        false
    }

    /// What is asked, with its payload.
    async fn payload(&self) -> Result<(Payload, Option<utterance::Sender>), ErrorBody> {
        let invalid = |words: String| ErrorBody::new(ErrorCode::Invalid, words);
        let stored;
        let body: &[u8] = match self.letter.stored {
            true => {
                stored = self.stored().await?;
                &stored
            }
            false => &self.message.payload,
        };
        if digest(body) != self.letter.digest {
            return Err(invalid(
                "its payload is not what was sent: the SHA-256 is another".to_owned(),
            ));
        }
        let node = &self.hand.link.node;
        let work: Work = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("{node} cannot read it: {error}")))?;
        work.payload(&self.letter.node)
    }

    /// The payload from the store. A server that is being restarted has it a little later.
    async fn stored(&self) -> Result<Vec<u8>, ErrorBody> {
        let until = Instant::now() + self.letter.patience;
        loop {
            match self.fetch().await {
                Err(Fetch::Later(_)) if Instant::now() < until => {
                    tokio::time::sleep(ANSWERS_WITHIN / 4).await;
                }
                Ok(body) => return Ok(body),
                Err(Fetch::Later(words) | Fetch::Never(words)) => {
                    let words = format!("cannot read its payload: {words}");
                    return Err(ErrorBody::new(ErrorCode::Failed, words));
                }
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<u8>, Fetch> {
        let later = |error: &dyn std::fmt::Display| Fetch::Later(error.to_string());
        let store = self.hand.link.store().await;
        let store = store.map_err(|error| later(&error))?;
        let object = store.get(&self.letter.id).await;
        let object = object.map_err(|error| match error.kind() {
            GetErrorKind::NotFound | GetErrorKind::InvalidName => Fetch::Never(error.to_string()),
            _ => later(&error),
        })?;
        let size = object.info().size;
        if size > MAX_BYTES {
            return Err(Fetch::Never(format!("it has {size} bytes")));
        }
        let mut body = Vec::new();
        let mut object = tokio::io::AsyncReadExt::take(object, MAX_BYTES as u64);
        let read = tokio::io::AsyncReadExt::read_to_end(&mut object, &mut body).await;
        read.map_err(|error| later(&error))?;
        Ok(body)
    }
}

/// Why there is no payload.
enum Fetch {
    /// The server cannot give it now.
    Later(String),
    /// It has none, or too much.
    Never(String),
}
