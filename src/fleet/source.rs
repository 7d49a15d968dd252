//! Whoever has work and sends it: a job goes out, and comes back as what it became.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::connect::Link;
use super::job::{Job, Outcome};
use super::letter::{NO, ToSource, YES};
use super::names::{ACK_WAIT, MAX_DEATHS};
use super::pieces::Pieces;
use super::roster::{self, Crew, Member};
use super::sending::{PAUSE, Post, Sent, Trouble};
use crate::report::{ErrorBody, ErrorCode};

/// Between two looks whether a job is still wanted.
const LOOK: Duration = Duration::from_millis(50);

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

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage<'a> {
    /// A worker of that name has it.
    Taken(&'a str),
    /// What has come of its answer since the last piece, where that is told while it comes.
    Piece(&'a str),
}

enum News {
    Taken(Taker),
    Left,
    Piece(usize, String),
    Done(Box<Outcome>),
    Replaced,
}

/// A worker that has taken a job.
#[derive(Clone, Debug)]
struct Taker {
    node: String,
    session: String,
}

/// A job that is away.
struct Open {
    camera: Option<String>,
    /// Which sending of it counts.
    sending: u32,
    /// Who has taken it, one after the other, and has not left it: all but the last died of it.
    takers: Vec<Taker>,
    /// Which delivery of which sending was taken last.
    taken: (u32, i64),
    news: mpsc::UnboundedSender<News>,
}

impl Open {
    /// Takes in that a worker has it; who died of it, where nobody may have it any more.
    fn take(&mut self, taker: Taker, delivery: i64) -> Option<&[Taker]> {
        // It may ask again, where it did not hear the answer; and one that was cut off for a while has not died.
        let known = |other: &Taker| other.session == taker.session;
        if (self.sending, delivery) != self.taken && !self.takers.iter().any(known) {
            self.takers.push(taker);
        }
        self.taken = (self.sending, delivery);
        let died = self.takers.get(..MAX_DEATHS)?;
        (self.takers.len() > MAX_DEATHS).then_some(died)
    }
}

/// A board that sends work.
pub struct Source {
    post: Post,
    open: Mutex<BTreeMap<String, Open>>,
    crew: Arc<Crew>,
    came_back: AtomicU64,
    poison: AtomicU64,
    /// Results of jobs that nobody waits for: a second one, or one that came too late.
    unwanted: AtomicU64,
}

impl Source {
    /// Begins to listen for what becomes of jobs.
    pub fn start(link: &Link) -> Arc<Source> {
        let session = Ulid::generate().to_string();
        let source = Arc::new(Source {
            crew: Crew::listen(link, &session),
            post: Post {
                link: link.clone(),
                session,
            },
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
        roster::tell(&self.post.link, move || {
            source.member(Member::new(&source.post.link, &source.post.session))
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
        &self.post.link
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
        let subject = self.post.subject();
        let client = &self.post.link.client;
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
                session,
                sending,
                delivery,
            } => {
                let job = open.get_mut(&id).filter(|job| job.sending == sending);
                let Some(job) = job else {
                    return NO;
                };
                let taker = Taker {
                    node: worker,
                    session,
                };
                if let Some(died) = job.take(taker.clone(), delivery) {
                    let died: Vec<&str> = died.iter().map(|taker| &*taker.node).collect();
                    let words = format!(
                        "workers of the fleet died of it ({}): it is not tried again",
                        died.join(", ")
                    );
                    let poison = Outcome {
                        worker: died.last().copied().unwrap_or_default().to_owned(),
                        model: String::new(),
                        result: Err(ErrorBody::new(ErrorCode::Poison, words)),
                    };
                    job.news.send(News::Done(Box::new(poison))).ok();
                    open.remove(&id);
                    return NO;
                }
                Some(job.news.send(News::Taken(taker)))
            }
            ToSource::Leaves { id, session } => open.get_mut(&id).map(|job| {
                job.takers.retain(|taker| taker.session != session);
                job.news.send(News::Left)
            }),
            ToSource::Piece { id, at, text } => {
                let job = open.get(&id);
                job.map(|job| job.news.send(News::Piece(at, text)))
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

    /// Sends a job, and waits for what it becomes. `is_over` tells that it is not wanted any more, `tell` is told how far it is.
    ///
    /// # Errors
    /// It was not wanted any more before it came back, found no room, or was replaced by a newer picture.
    pub async fn carry(
        &self,
        job: &Job,
        is_over: &(dyn Fn() -> bool + Sync),
        tell: &(dyn Fn(Stage<'_>) + Sync),
    ) -> Result<Outcome, Lost> {
        let body: Bytes = match serde_json::to_vec(&job.work) {
            Ok(body) => body.into(),
            Err(error) => return Err(Lost::Full(format!("it cannot be written: {error}"))),
        };
        let mut news = self.open(job);
        let (mut sent, mut sending): (Option<Sent>, u32) = (None, 0);
        let mut taker: Option<Taker> = None;
        let mut pieces = Pieces::default();
        let mut trouble = None;
        let mut end = loop {
            if let Some(there) = sent.as_mut().filter(|sent| sent.at.elapsed() > STILL_THERE) {
                // A worker that has it brings it back, whatever the server lost.
                let is_worked_on = || {
                    let taker = taker.as_ref();
                    taker.is_some_and(|taker| self.crew.is_there(&taker.session))
                };
                // What came meanwhile was taken off by whoever did it.
                if there.is_gone().await && news.is_empty() && !is_worked_on() {
                    log::info!(target: "fleet", "the server has lost job {}: it is sent again", job.id);
                    (sent, sending) = (None, sending + 1);
                    self.count_from(&job.id, sending);
                }
            }
            if sent.is_none() {
                match self.post.send(job, &body, sending).await {
                    Ok(there) => sent = Some(there),
                    Err(Trouble::Full(words)) => break Err(Lost::Full(words)),
                    Err(Trouble::Other(words)) => {
                        trouble = Some(words);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            match tokio::time::timeout(LOOK, news.recv()).await {
                Ok(Some(News::Done(outcome))) => break Ok(*outcome),
                Ok(Some(News::Replaced) | None) => break Err(Lost::Replaced),
                Ok(Some(News::Taken(by))) => {
                    tell(Stage::Taken(&by.node));
                    pieces.of(&by.session);
                    taker = Some(by);
                }
                Ok(Some(News::Left)) => taker = None,
                Ok(Some(News::Piece(at, text))) => {
                    if let Some(piece) = pieces.take(at, &text) {
                        tell(Stage::Piece(&piece));
                    }
                }
                Err(_) => {}
            }
            if news.is_empty() && is_over() {
                let waits =
                    || trouble.unwrap_or_else(|| "it waits for a worker of the fleet".into());
                break Err(Lost::Over(
                    taker.map_or_else(waits, |taker| format!("{} has it", taker.node)),
                ));
            }
        };
        self.lock().remove(&job.id);
        self.post.close(job, sent, end.is_ok(), &body).await;
        if let Ok(outcome) = &mut end {
            if job.work.streams() {
                pieces.finish(&mut outcome.result, |rest| tell(Stage::Piece(rest)));
            }
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
            sending: 0,
            takers: Vec::new(),
            taken: (0, 0),
            news: sender,
        };
        open.insert(job.id.clone(), place);
        news
    }

    /// Only whoever has that sending of a job has it.
    fn count_from(&self, id: &str, sending: u32) {
        if let Some(job) = self.lock().get_mut(id) {
            job.sending = sending;
        }
    }
}
