//! One job at a worker: its payload, the daemon that does it, and the way back to its source.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::object_store::GetErrorKind;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::connect::Link;
use super::job::Work;
use super::letter::{Letter, NO, Part, ToSource, YES, digest};
use super::names::{ACK_WAIT, Kind, MAX_AGE, PROTOCOL};
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
    /// Processes of sources that did not answer, and when: what they have left is not waited for again and again.
    pub(super) silent: Mutex<BTreeMap<String, Instant>>,
}

impl Hand {
    /// How long a source may take to say whether it still wants a job.
    fn patience(&self, session: &str) -> Duration {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.contains_key(session) {
            true => Duration::ZERO,
            false => ACK_WAIT,
        }
    }

    /// A source has answered, or has not.
    fn heard_of(&self, session: &str, answered: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, since| since.elapsed() < MAX_AGE);
        match answered {
            true => drop(silent.remove(session)),
            false => drop(silent.insert(session.to_owned(), Instant::now())),
        }
    }
}

/// A job that has been taken.
pub(super) struct Duty {
    pub(super) hand: Arc<Hand>,
    pub(super) kind: Kind,
    /// What the daemon calls it.
    pub(super) request: String,
    pub(super) letter: Letter,
    pub(super) message: Message,
    /// Its source does not want it any more.
    pub(super) is_cancelled: Arc<AtomicBool>,
}

/// Whose the requests of such jobs are.
pub(super) fn origin(kind: Kind) -> Origin {
    Origin::Fleet {
        unasked: kind == Kind::Image,
    }
}

impl Duty {
    /// Does something, and tells the server and the source meanwhile that the job is in good hands.
    async fn keeping<T>(&self, work: impl Future<Output = T>) -> T {
        let mut alive = tokio::time::interval(ACK_WAIT / 4);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = alive.tick() => {
                    self.message.ack_with(AckKind::Progress).await.ok();
                    let (id, session) = self.names();
                    self.tell(&ToSource::Works { id, session }).await;
                }
            }
        }
    }

    /// Does the job; nothing, where it is not this board's any more.
    pub(super) async fn result(&self) -> Option<Result<Reply, ErrorBody>> {
        self.keeping(self.work()).await
    }

    /// The job's name, and that of this process.
    fn names(&self) -> (String, String) {
        (self.letter.id.clone(), self.hand.session.clone())
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
        let wanted = self.ask(&claim, hand.patience(&letter.session)).await;
        hand.heard_of(&letter.session, wanted.is_some());
        if wanted != Some(true) {
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
        if self.is_cancelled.load(Ordering::SeqCst) {
            return None;
        }
        let (sender, updates) = mpsc::unbounded_channel::<JobUpdate>();
        let reply = ReplyTo::new(move |update| {
            sender.send(update.clone()).ok();
        });
        let origin = origin(self.kind);
        let mut request = Request::new(self.request.clone(), origin, None, payload, reply);
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
        let mut told = [(Part::Thoughts, 0), (Part::Text, 0)];
        loop {
            let update = updates.recv().await?;
            if update.state.has_ended() {
                return update.reply.map(Ok).or(update.error.map(Err));
            }
            let pieces = [update.thoughts, update.partial];
            for ((of, at), piece) in told.iter_mut().zip(pieces) {
                let Some(text) = piece else { continue };
                let next = *at + text.len();
                let (id, session) = self.names();
                // One that is lost comes with the whole answer.
                self.tell(&ToSource::Piece {
                    id,
                    session,
                    of: *of,
                    at: *at,
                    text,
                })
                .await;
                *at = next;
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
                    let (id, session) = self.names();
                    self.tell(&ToSource::Misses { id, session, at }).await;
                }
                Took::All => return std::future::pending().await,
            }
        }
    }

    async fn give_back(&self) {
        let (id, session) = self.names();
        let leaves = ToSource::Leaves { id, session };
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
        let (id, session) = self.names();
        let told = ToSource::Done {
            id,
            session,
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

    /// Tells the job's source something that it may as well not hear.
    async fn tell(&self, told: &ToSource) {
        if let Ok(told) = serde_json::to_vec(told) {
            let client = &self.hand.link.client;
            client.publish(self.source(), told.into()).await.ok();
        }
    }

    /// Asks or tells the job's source, at least once; whether the job is one of those that it waits for. One that cannot be reached within
    /// `patience` answers nothing: where it is there after all, it sends again what is not at the server.
    async fn ask(&self, told: &ToSource, patience: Duration) -> Option<bool> {
        let told = serde_json::to_vec(told).ok()?;
        let until = Instant::now() + patience;
        loop {
            let client = &self.hand.link.client;
            let asked = client.request(self.source(), told.clone().into());
            match tokio::time::timeout(ANSWERS_WITHIN, asked).await {
                Ok(Ok(answer)) if *answer.payload == *YES => return Some(true),
                Ok(Ok(answer)) if *answer.payload == *NO => return Some(false),
                _ if Instant::now() >= until => return None,
                _ => tokio::time::sleep(ANSWERS_WITHIN / 4).await,
            }
        }
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
        let mut object = object.take(MAX_BYTES as u64);
        loop {
            // Of one that is put there anew meanwhile the rest may never come.
            let read = tokio::time::timeout(ANSWERS_WITHIN, object.read_buf(&mut body)).await;
            let read = read.map_err(|_| later(&"the rest of it does not come"))?;
            if read.map_err(|error| later(&error))? == 0 {
                return Ok(body);
            }
        }
    }
}

/// Why there is no payload.
enum Fetch {
    /// The server cannot give it now.
    Later(String),
    /// It has none, or too much.
    Never(String),
}
