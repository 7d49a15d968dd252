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
use super::job::{Job, Outcome, Work};
use super::letter::{NO, Part, ToSource, YES, is_name};
use super::names::{MAX_DEATHS, Needs};
use super::roster::{self, Crew, Member};
use super::sending::{PAUSE, Post};
use crate::report::{ErrorBody, ErrorCode};

/// What is new of a job.
pub(super) enum News {
    Taken(Taker),
    /// Its worker has it still.
    Works,
    /// Its worker does not do it after all.
    Left,
    /// Its worker misses what was said from that sample on.
    Misses(usize),
    /// A piece that begins at that byte.
    Piece(Part, usize, String),
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
    /// The session of whoever took it last, where that has not left it. Others may be about it still, and are not listened to until they
    /// have come to its end.
    taker: Option<String>,
    news: mpsc::UnboundedSender<News>,
}

impl Open {
    /// Takes in that a worker has it; who died of it, where nobody may have it any more.
    fn take(&mut self, taker: Taker, delivery: i64) -> Option<&[Taker]> {
        self.taker = Some(taker.session.clone());
        // It may ask again, where it did not hear the answer; and one that was cut off for a while has not died.
        let known = |other: &Taker| other.session == taker.session;
        if (self.sending, delivery) != self.taken && !self.takers.iter().any(known) {
            self.takers.push(taker);
        }
        self.taken = (self.sending, delivery);
        let died = self.takers.get(..MAX_DEATHS)?;
        (self.takers.len() > MAX_DEATHS).then_some(died)
    }

    /// A worker does not do it after all, and has not died of it.
    fn leave(&mut self, session: &str) -> Option<News> {
        self.takers.retain(|taker| taker.session != session);
        let taker = self.taker.take_if(|taker| taker == session);
        taker.map(|_| News::Left)
    }

    /// A worker is about it. One that was cut off, so that another has it now, has not died of it.
    fn works(&mut self, session: &str) -> Option<News> {
        let news = self.news_of(session, News::Works);
        if news.is_none() {
            self.takers.retain(|taker| taker.session != session);
        }
        news
    }

    /// News of a worker, where that is the one that has it.
    fn news_of(&self, session: &str, news: News) -> Option<News> {
        let is_its = self.taker.as_deref() == Some(session);
        is_its.then_some(news)
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
        self.others(self.crew.members())
    }

    /// The other boards that work for others, as they told last.
    pub fn workers(&self) -> Vec<Member> {
        self.others(self.crew.workers())
    }

    /// Without this board's own worker, which has a session of its own.
    fn others(&self, mut members: Vec<Member>) -> Vec<Member> {
        members.retain(|member| member.node != self.post.link.node);
        members
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
        let (id, news) = match told {
            ToSource::Has {
                id,
                worker,
                session,
                sending,
                delivery,
            } => {
                let job = open.get_mut(&id).filter(|job| job.sending == sending);
                let Some(job) = job.filter(|_| is_name(&worker) && is_name(&session)) else {
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
                (id, Some(News::Taken(taker)))
            }
            ToSource::Leaves { id, session } => {
                let job = open.get_mut(&id);
                let left = job.and_then(|job| job.leave(&session));
                (id, left)
            }
            ToSource::Works { id, session } => {
                let job = open.get_mut(&id);
                let news = job.and_then(|job| job.works(&session));
                (id, news)
            }
            ToSource::Misses { id, session, at } => {
                let job = open.get(&id);
                let news = job.and_then(|job| job.news_of(&session, News::Misses(at)));
                (id, news)
            }
            ToSource::Piece {
                id,
                session,
                of,
                at,
                text,
            } => {
                let job = open.get(&id);
                let news = job.and_then(|job| job.news_of(&session, News::Piece(of, at, text)));
                (id, news)
            }
            ToSource::Done {
                id,
                session,
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
                let of = |job: &Open| job.takers.iter().find(|of| of.session == session).cloned();
                let Some(taker) = open.get(&id).and_then(of) else {
                    self.unwanted.fetch_add(1, Ordering::Relaxed);
                    return NO;
                };
                let outcome = Outcome {
                    worker: taker.node,
                    model,
                    result,
                };
                (id, Some(News::Done(Box::new(outcome))))
            }
        };
        let Some(news) = news else {
            return NO;
        };
        let has_ended = matches!(news, News::Done(_));
        let heard = open.get(&id).map(|job| job.news.send(news));
        if has_ended {
            open.remove(&id);
        }
        match heard {
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
            taker: None,
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
        let is_able = needs.are_met_by(knows.can());
        let may = is_able && (beginning.is_conversation || !knows.busy);
        may.then(|| First::new(session, beginning))
    }

    /// A worker has done a job that begins so.
    pub(super) fn knows(&self, beginning: Beginning, session: &str) {
        self.familiar.knows(beginning, session);
    }

    /// Whether any worker's model can think before it answers.
    pub fn thinks(&self) -> bool {
        self.workers().iter().any(|worker| worker.thinks)
    }

    /// Why nobody will do a job, where boards work for this one and what none of them can do may be left out.
    pub fn refuses(&self, work: &Work) -> Option<&'static str> {
        let in_vain = work.needs().thinks && !self.workers().is_empty() && !self.thinks();
        in_vain.then_some(
            "no board that works for this one thinks before it answers: leave out `thinking`, or add one with a model that does, such as Gemma 4",
        )
    }

    /// Whether any worker hears while somebody speaks.
    pub(super) fn hears_live(&self) -> bool {
        self.workers().iter().any(|worker| worker.live)
    }
}
