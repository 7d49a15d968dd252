//! Whoever has work and sends it: a job goes out, and comes back as what it became.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, ErrorCode as StreamErrorCode};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::connect::Link;
use super::job::{Job, Outcome};
use super::letter::{Letter, NO, ToSource, YES, digest};
use super::names::{ACK_WAIT, MAX_DEATHS, PROTOCOL};
use super::roster::{self, Crew, Member};
use crate::report::{ErrorBody, ErrorCode};

/// Larger payloads go into the store: every message passes the server's memory.
const MAX_INLINE_BYTES: usize = 256 << 10;

/// Between two looks whether a job is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Between two tries to send a job.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks whether the server still has a job.
const STILL_THERE: Duration = ACK_WAIT;

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was not wanted any more; where it was then.
    Over(String),
    /// There is no room for it.
    Full(String),
    /// A newer picture of its camera has taken its place.
    Replaced,
}

enum News {
    Taken(String),
    Done(Box<Outcome>),
    Replaced,
}

/// A job that is away.
struct Open {
    camera: Option<String>,
    /// Who has taken it, one after the other.
    takers: Vec<String>,
    delivery: i64,
    news: mpsc::UnboundedSender<News>,
}

/// A board that sends work.
pub struct Source {
    link: Link,
    session: String,
    open: Mutex<BTreeMap<String, Open>>,
    crew: Arc<Crew>,
    came_back: AtomicU64,
    poison: AtomicU64,
    /// Results of jobs that nobody waits for: a second one, or one that came too late.
    unwanted: AtomicU64,
}

/// Where a job is at the server.
struct Sent {
    stream: jetstream::stream::Stream<()>,
    sequence: u64,
    at: Instant,
}

enum Trouble {
    Full(String),
    Other(String),
}

impl Source {
    /// Begins to listen for what becomes of jobs.
    pub fn start(link: &Link) -> Arc<Source> {
        let session = Ulid::generate().to_string();
        let source = Arc::new(Source {
            crew: Crew::listen(link, &session),
            link: link.clone(),
            session,
            open: Mutex::default(),
            came_back: AtomicU64::new(0),
            poison: AtomicU64::new(0),
            unwanted: AtomicU64::new(0),
        });
        tokio::spawn(Arc::clone(&source).listen());
        source
    }

    /// Tells the fleet of this board, where no worker of it does.
    pub fn tell(self: &Arc<Source>) {
        let source = Arc::clone(self);
        roster::tell(&self.link, move || {
            source.member(Member::new(&source.link, &source.session))
        });
    }

    /// A board, with what it sends.
    pub(super) fn member(&self, member: Member) -> Member {
        Member {
            away: self.lock().len(),
            came_back: self.came_back.load(Ordering::Relaxed),
            poison: self.poison.load(Ordering::Relaxed),
            ..member
        }
    }

    /// The boards that work for others, as they told last.
    pub fn workers(&self) -> Vec<Member> {
        self.crew.workers()
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Jobs that came back; of those, such that workers died of; and results that nobody waited for.
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (
            count(&self.came_back),
            count(&self.poison),
            count(&self.unwanted),
        )
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        // Every change is complete before anything in it could panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Source>) {
        let subject = self.link.names.source(&self.link.node, &self.session);
        let client = &self.link.client;
        let mut told = loop {
            match client.subscribe(subject.clone()).await {
                Ok(told) => break told,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        while let Some(message) = told.next().await {
            let answer = self.told(&message.payload);
            if let Some(reply) = message.reply {
                client.publish(reply, Bytes::from_static(answer)).await.ok();
            }
        }
    }

    /// Takes in what a worker tells; whether it is of a job that is away.
    fn told(&self, payload: &[u8]) -> &'static [u8] {
        let Ok(told) = serde_json::from_slice::<ToSource>(payload) else {
            return NO;
        };
        let mut open = self.lock();
        let known = match told {
            ToSource::Has {
                id,
                worker,
                delivery,
            } => {
                let Some(job) = open.get_mut(&id) else {
                    return NO;
                };
                // It may ask again, where it did not hear the answer.
                if delivery != job.delivery {
                    job.delivery = delivery;
                    job.takers.push(worker.clone());
                }
                if job.takers.len() > MAX_DEATHS {
                    let died = job.takers[..MAX_DEATHS].join(", ");
                    let words =
                        format!("workers of the fleet died of it ({died}): it is not tried again");
                    let poison = Outcome {
                        worker,
                        model: String::new(),
                        result: Err(ErrorBody::new(ErrorCode::Poison, words)),
                    };
                    job.news.send(News::Done(Box::new(poison))).ok();
                    open.remove(&id);
                    return NO;
                }
                Some(job.news.send(News::Taken(worker)))
            }
            ToSource::Done {
                id,
                worker,
                model,
                reply,
                error,
            } => {
                let result = match (reply, error) {
                    (Some(reply), None) => Ok(*reply),
                    (_, Some(error)) => Err(error),
                    (None, None) => return NO,
                };
                let job = open.remove(&id);
                if job.is_none() {
                    self.unwanted.fetch_add(1, Ordering::Relaxed);
                }
                job.map(|job| {
                    job.news.send(News::Done(Box::new(Outcome {
                        worker,
                        model,
                        result,
                    })))
                })
            }
        };
        match known {
            Some(Ok(())) => YES,
            _ => NO,
        }
    }

    /// Sends a job, and waits for what it becomes. `is_over` tells that it is not wanted any more, `begun` is told who has taken it.
    ///
    /// # Errors
    /// It was not wanted any more before it came back, found no room, or was replaced by a newer picture.
    pub async fn carry(
        &self,
        job: &Job,
        is_over: &(dyn Fn() -> bool + Sync),
        begun: &(dyn Fn(&str) + Sync),
    ) -> Result<Outcome, Lost> {
        let body: Bytes = match serde_json::to_vec(&job.work) {
            Ok(body) => body.into(),
            Err(error) => return Err(Lost::Full(format!("it cannot be written: {error}"))),
        };
        let mut news = self.open(job);
        let mut sent: Option<Sent> = None;
        let mut sendings = 0;
        let mut where_it_is = "it waits for a worker of the fleet".to_owned();
        let end = loop {
            if let Some(there) = sent.as_mut().filter(|sent| sent.at.elapsed() > STILL_THERE) {
                there.at = Instant::now();
                let found = there.stream.get_raw_message(there.sequence).await;
                // What came meanwhile was taken off by whoever did it.
                if found.is_err_and(|error| is_gone(&error)) && news.is_empty() {
                    log::info!(target: "fleet", "the server has lost job {}: it is sent again", job.id);
                    sent = None;
                }
            }
            if sent.is_none() {
                match self.send(job, &body, sendings).await {
                    Ok(there) => sent = Some(there),
                    Err(Trouble::Full(words)) => break Err(Lost::Full(words)),
                    Err(Trouble::Other(words)) => {
                        where_it_is = words;
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                sendings += u32::from(sent.is_some());
            }
            let heard = tokio::time::timeout(LOOK, news.recv()).await;
            match heard {
                Ok(Some(News::Taken(worker))) => {
                    begun(&worker);
                    where_it_is = format!("{worker} has it");
                }
                Ok(Some(News::Done(outcome))) => break Ok(*outcome),
                Ok(Some(News::Replaced) | None) => break Err(Lost::Replaced),
                Err(_) if is_over() => break Err(Lost::Over(where_it_is)),
                Err(_) => {}
            }
        };
        self.close(job, sent, end.is_ok(), &body).await;
        if let Ok(outcome) = &end {
            self.came_back.fetch_add(1, Ordering::Relaxed);
            let poison = matches!(&outcome.result, Err(error) if error.code == ErrorCode::Poison);
            self.poison.fetch_add(u64::from(poison), Ordering::Relaxed);
        }
        end
    }

    /// Takes a job in; an older picture of the same camera that nobody has taken is given up.
    fn open(&self, job: &Job) -> mpsc::UnboundedReceiver<News> {
        let (sender, news) = mpsc::unbounded_channel();
        let mut open = self.lock();
        if let Some(camera) = &job.camera {
            open.retain(|_, other| {
                let older = other.camera.as_ref() == Some(camera) && other.takers.is_empty();
                if older {
                    other.news.send(News::Replaced).ok();
                }
                !older
            });
        }
        let place = Open {
            camera: job.camera.clone(),
            takers: Vec::new(),
            delivery: 0,
            news: sender,
        };
        open.insert(job.id.clone(), place);
        news
    }

    /// Clears up behind a job.
    async fn close(&self, job: &Job, sent: Option<Sent>, done: bool, body: &Bytes) {
        self.lock().remove(&job.id);
        if let Some(sent) = sent.filter(|_| !done) {
            let id = Bytes::from(job.id.clone());
            let cancel = self.link.names.subject("cancel");
            self.link.client.publish(cancel, id).await.ok();
            // A worker that has it is told; one that takes it just now asks before it begins.
            sent.stream.delete_message(sent.sequence).await.ok();
        }
        if body.len() > MAX_INLINE_BYTES
            && let Ok(store) = self.link.store().await
        {
            store.delete(&job.id).await.ok();
        }
    }

    async fn send(&self, job: &Job, body: &Bytes, sending: u32) -> Result<Sent, Trouble> {
        let other = |error: &dyn std::fmt::Display| Trouble::Other(error.to_string());
        let Link { names, node, .. } = &self.link;
        let stored = body.len() > MAX_INLINE_BYTES;
        if stored {
            let store = self.link.store().await.map_err(|error| other(&error))?;
            let put = store.put(job.id.as_str(), &mut &body[..]).await;
            put.map_err(|error| {
                Trouble::Full(format!(
                    "the fleet has no room for a payload of {} KiB: {error}; raise fleet.store_mib, or ask again later",
                    body.len() >> 10
                ))
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
        };
        let place = match &job.camera {
            Some(camera) => format!("{node}.{}", part(camera)),
            None => node.clone(),
        };
        let subject = names.job(job.kind, job.work.needs(), &place);
        let payload = if stored { Bytes::new() } else { body.clone() };
        let headers = letter.write(sending);
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
