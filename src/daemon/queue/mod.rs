//! What waits for the model, and in which order it is taken: bounded, and one that speaks holds up nobody.
//!
//! ARCHITECTURE.md has the order ("Whose turn it is"); [`super::job::Turn`] is it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant};

use super::job::{Job, PIECE_SAMPLES, Rank, STOPPING, Ticket, Turn, Work};

#[cfg(test)]
mod tests;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Requests.
    pub(super) jobs: usize,
    /// Utterances that are being spoken or are not answered yet.
    pub(super) utterances: usize,
    /// Bytes of sound, keys and values that they may hold together, for one more to be heard.
    pub(super) utterance_bytes: u64,
}

/// What became of a job that was pushed.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// It waits in the place of an older picture of the same camera.
    Newer,
    /// Too much waits, as the words tell; the job comes back.
    Full(Box<Job>, String),
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order in which equals are taken.
    waiting: VecDeque<Job>,
    /// What the worker has.
    running: Vec<Running>,
    /// What other boards of the fleet have.
    away: Vec<Running>,
    closed: bool,
}

#[derive(Debug)]
struct Running {
    id: String,
    ticket: Arc<Ticket>,
    /// Of an utterance: bytes that it held when it was taken.
    utterance_bytes: Option<u64>,
    /// The conversation that it goes on with: the next turn waits until it has ended.
    conversation: Option<String>,
}

impl Inner {
    /// Why one more utterance cannot be heard.
    fn too_many_utterances(&self, limits: Limits) -> Option<String> {
        let waiting = self.waiting.iter().filter(|job| job.work.is_utterance());
        let held: Vec<u64> = waiting
            .map(Job::utterance_bytes)
            .chain(self.taken().filter_map(|job| job.utterance_bytes))
            .collect();
        let bytes: u64 = held.iter().sum();
        if held.len() >= limits.utterances {
            return Some(format!(
                "{} utterances are being heard already: speak again in a moment, or raise [queue] utterances",
                held.len()
            ));
        }
        (bytes >= limits.utterance_bytes).then(|| {
            format!(
                "the utterances being heard hold {} MiB already: speak again in a moment, or raise [queue] utterances_mib",
                bytes >> 20
            )
        })
    }

    fn taken(&self) -> impl Iterator<Item = &Running> {
        self.running.iter().chain(&self.away)
    }

    /// Whether it is the next turn of a conversation whose last one has not ended.
    fn goes_on(&self, job: &Job) -> bool {
        let name = job.conversation();
        let mut taken = self.taken();
        name.is_some() && taken.any(|taken| taken.conversation == name)
    }

    /// Where the most urgent of those jobs is that `fit`.
    fn most_urgent(&self, fit: impl Fn(&Job, Turn) -> bool) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate();
        let fitting = waiting
            .filter_map(|(at, job)| Some((job.turn()?, at, job)))
            .filter(|(turn, _, job)| fit(job, *turn))
            .map(|(turn, at, _)| (turn, at));
        fitting.min().map(|(_, at)| at)
    }

    fn take_out(&mut self, at: usize) -> Option<(Job, Running)> {
        let job = self.waiting.remove(at)?;
        let running = Running {
            id: job.id.clone(),
            ticket: Arc::clone(&job.ticket),
            utterance_bytes: job.work.is_utterance().then(|| job.utterance_bytes()),
            conversation: job.conversation(),
        };
        Some((job, running))
    }

    /// Takes the most urgent job out, of those that may begin.
    fn take(&mut self, may_begin: impl Fn(&Job, Rank) -> bool) -> Option<Job> {
        let at = self.most_urgent(|job, turn| may_begin(job, turn.rank) && !self.goes_on(job))?;
        let (job, running) = self.take_out(at)?;
        self.running.push(running);
        Some(job)
    }
}

/// Jobs between the daemon's loop and the worker.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// Sound has come, or an utterance is over.
impl Wake for Queue {
    fn wake(self: Arc<Self>) {
        // Whoever looks whether there is work holds the lock: it has not looked yet, or waits already.
        drop(self.lock());
        self.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete before anything in it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in. Of a camera's captions that nobody asked for the newest waits; what is beyond `limits` is refused.
    pub(super) fn push(self: &Arc<Self>, job: Job, limits: Limits) -> Pushed {
        let mut inner = self.lock();
        let mut replaced = None;
        if let Some(camera) = job.unasked_caption() {
            let older = |other: &Job| other.unasked_caption() == Some(camera);
            replaced = inner.waiting.iter().position(older);
        } else if let Work::Utterance(utterance) = &job.work {
            if let Some(words) = inner.too_many_utterances(limits) {
                return Pushed::Full(Box::new(job), words);
            }
            let waker = Arc::clone(self).into();
            utterance.sound.wake(waker, PIECE_SAMPLES);
        } else {
            let others = inner.waiting.iter();
            let requests = others
                .filter(|other| !other.work.is_utterance() && other.unasked_caption().is_none());
            if requests.count() >= limits.jobs {
                let words = format!(
                    "{} requests wait already: ask again later, or raise [queue] jobs",
                    limits.jobs
                );
                return Pushed::Full(Box::new(job), words);
            }
        }
        let replaced = replaced.and_then(|at| inner.waiting.remove(at));
        inner.waiting.push_back(job);
        self.changed.notify_all();
        match replaced {
            Some(_) => Pushed::Newer,
            None => Pushed::Waits,
        }
    }

    /// Puts back an utterance of which there is more to come. It is returned where the queue is closed.
    pub(super) fn put_back(&self, job: Job) -> Option<Job> {
        let mut inner = self.lock();
        inner.running.retain(|running| running.id != job.id);
        if inner.closed {
            return Some(job);
        }
        inner.waiting.push_back(job);
        None
    }

    /// The next job, or `None` after `wait` or once the queue is closed and empty.
    pub(super) fn pop(&self, wait: Duration) -> Option<Job> {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            if let Some(job) = inner.take(|_, _| true) {
                return Some(job);
            }
            let left = until.saturating_duration_since(Instant::now());
            if inner.closed || left.is_zero() {
                return None;
            }
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The next job that may begin now, if any, as it and its rank are: others have been begun and go on.
    pub(super) fn pop_now(&self, may_begin: impl Fn(&Job, Rank) -> bool) -> Option<Job> {
        self.lock().take(may_begin)
    }

    /// The next job that may go to another board: one of which nothing is still to be said. Of a board with a model, only what waits
    /// while the worker has something to do. `None` after `wait`, while `most` are away, and once the queue is closed. What somebody says
    /// goes whatever is away, and is bounded by itself; of the rest, what nobody waits for leaves room.
    pub(super) fn pop_away(
        &self,
        wait: Duration,
        most: usize,
        has_model: bool,
        fits: impl Fn(&Job) -> bool,
    ) -> Option<Job> {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            let worker_is_idle = has_model && inner.running.is_empty();
            if !worker_is_idle && !inner.closed {
                let at = inner.most_urgent(|job, turn| {
                    let most = match turn.rank {
                        Rank::Spoken | Rank::Speaking | Rank::Paused => usize::MAX,
                        Rank::Request => most,
                        Rank::Guest | Rank::Caption => most - most / 4,
                    };
                    let may_go = job.may_go(has_model) && !inner.goes_on(job);
                    inner.away.len() < most && may_go && fits(job)
                });
                if let Some((job, running)) = at.and_then(|at| inner.take_out(at)) {
                    inner.away.push(running);
                    return Some(job);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if inner.closed || left.is_zero() {
                return None;
            }
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A job that was away has come to its end.
    pub(super) fn back(&self, id: &str) {
        self.lock().away.retain(|away| away.id != id);
        self.changed.notify_all();
    }

    /// Whether nothing waits or runs here.
    pub(super) fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.running.is_empty() && inner.waiting.is_empty()
    }

    /// Jobs that other boards have.
    pub(super) fn away(&self) -> usize {
        self.lock().away.len()
    }

    /// The worker is done with a job.
    pub(super) fn done(&self, id: &str) {
        self.lock().running.retain(|running| running.id != id);
    }

    /// Cancels a job wherever it is; one that waits comes back, one that runs ends by itself.
    pub(super) fn cancel(&self, id: &str, why: &'static str) -> Cancelled {
        let mut inner = self.lock();
        if let Some(running) = inner.taken().find(|running| running.id == id) {
            running.ticket.cancel(why);
            return Cancelled::Running;
        }
        let at = inner.waiting.iter().position(|job| job.id == id);
        match at.and_then(|at| inner.waiting.remove(at)) {
            Some(job) => Cancelled::Waiting(Box::new(job)),
            None => Cancelled::Unknown,
        }
    }

    /// Removes jobs whose time is over before they began; those that run are told by their tickets.
    pub(super) fn expired(&self) -> Vec<Job> {
        self.remove(Job::is_late)
    }

    /// Removes captions that nobody asked for.
    pub(super) fn unasked_captions(&self) -> Vec<Job> {
        self.remove(|job| job.unasked_caption().is_some())
    }

    /// Ends the queue: what waits comes back, what runs is cancelled.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut inner = self.lock();
        inner.closed = true;
        for running in inner.taken() {
            running.ticket.cancel(STOPPING);
        }
        let waiting = inner.waiting.drain(..).collect();
        drop(inner);
        self.changed.notify_all();
        waiting
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Jobs that wait or run.
    pub(super) fn len(&self) -> usize {
        let inner = self.lock();
        inner.waiting.len() + inner.taken().count()
    }

    fn remove(&self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut inner = self.lock();
        let (gone, stay) = inner.waiting.drain(..).partition(|job| which(job));
        inner.waiting = stay;
        Vec::from_iter::<VecDeque<Job>>(gone)
    }
}

/// What became of a job that was to be cancelled.
#[derive(Debug)]
pub(super) enum Cancelled {
    /// It ends at the next token.
    Running,
    /// It will not begin.
    Waiting(Box<Job>),
    /// There is no such job (any more).
    Unknown,
}
