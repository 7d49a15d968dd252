//! Whoever has work and sends it: a job goes out, and comes back as what it became.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::connect::Link;
use super::familiar::{Beginning, Familiar, First};
use super::job::{Job, Outcome};
use super::letter::{NO, ToSource, YES};
use super::names::{MAX_DEATHS, Needs};
use super::roster::{self, Crew, Member};
use super::sending::{PAUSE, Post};
use crate::report::{ErrorBody, ErrorCode};

/// What is new of a job.
pub(super) enum News {
    Taken(Taker),
    /// Its worker does not do it after all.
    Left,
    /// Its worker misses what was said from that sample on.
    Misses(usize),
    Piece(usize, String),
    Done(Box<Outcome>),
    Replaced,
}

/// A worker that has taken a job.
#[derive(Clone, Debug)]
pub(super) struct Taker {
    pub(super) node: String,
    pub(super) session: String,
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
    pub(super) post: Post,
    open: Mutex<BTreeMap<String, Open>>,
    crew: Arc<Crew>,
    familiar: Familiar,
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
            familiar: Familiar::default(),
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

    /// The other boards, as they told last.
    pub fn members(&self) -> Vec<Member> {
        self.crew.members()
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
            ToSource::Misses { id, at } => {
                let job = open.get(&id);
                job.map(|job| job.news.send(News::Misses(at)))
            }
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
                // Of nobody but those who have taken it.
                let has_it = |job: &Open| job.takers.iter().any(|taker| taker.node == worker);
                let is_known = open.get(&id).is_some_and(has_it);
                let job = is_known.then(|| open.remove(&id)).flatten();
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

    /// Takes a job in; an older picture of the same camera that nobody has taken is given up.
    pub(super) fn open(&self, job: &Job) -> mpsc::UnboundedReceiver<News> {
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
    pub(super) fn count_from(&self, id: &str, sending: u32) {
        if let Some(job) = self.lock().get_mut(id) {
            job.sending = sending;
        }
    }

    /// It has come to its end.
    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// A job has come back.
    pub(super) fn count(&self, poison: bool) {
        self.came_back.fetch_add(1, Ordering::Relaxed);
        self.poison.fetch_add(u64::from(poison), Ordering::Relaxed);
    }

    /// Whether a board's process has told of itself lately.
    pub(super) fn is_there(&self, session: &str) -> bool {
        self.crew.is_there(session)
    }

    /// The worker that knows what a job begins with, where it is there and has nothing else to do, or others do not know how to go on.
    pub(super) fn first(&self, beginning: &Beginning, needs: Needs) -> Option<First> {
        let session = self.familiar.with(beginning)?;
        let workers = self.workers();
        let knows = workers.iter().find(|worker| worker.session == session)?;
        let is_able =
            needs.are_met(knows.sees, knows.hears) && (needs != Needs::Live || knows.live);
        let may = is_able && (beginning.is_conversation || !knows.busy);
        may.then(|| First::new(session, beginning))
    }

    /// A worker has done a job that begins so.
    pub(super) fn knows(&self, beginning: Beginning, session: &str) {
        self.familiar.knows(beginning, session);
    }

    /// Whether any worker hears while somebody speaks.
    pub(super) fn hears_live(&self) -> bool {
        self.workers().iter().any(|worker| worker.live)
    }
}
