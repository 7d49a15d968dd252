//! What waits for the model: bounded, voice before requests before captions, the newest picture of a camera only.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::settings::Settings;
use crate::media::{CaptionTrigger, MotionExtent, VideoFrame};
use crate::report::{Ask, Describe, Dictation, Request, SpeechFeed, Transcribe};

/// A piece of work for the model.
#[derive(Debug)]
pub(super) struct Job {
    /// ULID.
    pub(super) id: String,
    pub(super) work: Work,
    /// What was configured when the job came.
    pub(super) settings: Arc<Settings>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) queued_at: Instant,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// An utterance, worked on while it is spoken.
    Speech {
        microphone: String,
        feed: Arc<SpeechFeed>,
    },
    /// Speech of a client, worked on while it comes.
    Dictate {
        request: Request,
        dictation: Dictation,
    },
    /// A picture to describe, whoever wanted it.
    Caption(CaptionWork),
    /// A question.
    Ask { request: Request, ask: Ask },
    /// An attached picture.
    Describe {
        request: Request,
        describe: Describe,
    },
    /// Attached audio.
    Transcribe {
        request: Request,
        transcribe: Transcribe,
    },
    /// A sentence that may be one of the commands.
    Recognize { request: Request, text: String },
}

/// A picture of a camera.
#[derive(Debug)]
pub(super) struct CaptionWork {
    pub(super) camera: String,
    pub(super) frame: VideoFrame,
    pub(super) trigger: CaptionTrigger,
    pub(super) motion: Option<MotionExtent>,
    /// The request that wanted it, where one did.
    pub(super) request: Option<(Request, Describe)>,
}

impl Work {
    fn rank(&self) -> u8 {
        match self {
            Work::Speech { .. } | Work::Dictate { .. } => 0,
            Work::Ask { .. }
            | Work::Describe { .. }
            | Work::Transcribe { .. }
            | Work::Recognize { .. } => 1,
            Work::Caption(caption) if caption.request.is_some() => 1,
            Work::Caption(_) => 2,
        }
    }

    /// The camera whose caption nobody asked for.
    fn unasked_caption(&self) -> Option<&str> {
        match self {
            Work::Caption(caption) if caption.request.is_none() => Some(&caption.camera),
            _ => None,
        }
    }

    /// The request behind it.
    pub(super) fn request(&self) -> Option<&Request> {
        match self {
            Work::Ask { request, .. }
            | Work::Describe { request, .. }
            | Work::Transcribe { request, .. }
            | Work::Dictate { request, .. }
            | Work::Recognize { request, .. } => Some(request),
            Work::Caption(caption) => caption.request.as_ref().map(|(request, _)| request),
            Work::Speech { .. } => None,
        }
    }
}

/// How the loop reaches a job that the worker has already taken.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    cancelled: AtomicBool,
    preempted: AtomicBool,
    /// When the job is given up; of an utterance known only once it has been spoken.
    deadline: Mutex<Option<Instant>>,
}

impl Ticket {
    /// A ticket of a job that is given up at `deadline`.
    pub(super) fn until(deadline: Instant) -> Ticket {
        Ticket {
            deadline: Mutex::new(Some(deadline)),
            ..Ticket::default()
        }
    }

    /// When the job is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets when the job is given up.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Ends the job at the next token.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Ends the job at the next token, to be done again later.
    fn preempt(&self) {
        self.preempted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn is_preempted(&self) -> bool {
        self.preempted.load(Ordering::Relaxed)
    }

    /// Whether the worker is to end the job now.
    pub(super) fn is_over(&self) -> bool {
        self.is_cancelled() || self.is_preempted() || self.is_late()
    }
}

/// What became of a job that was pushed.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// It waits in the place of an older picture of the same camera, or of an older utterance.
    InPlaceOf(Box<Job>),
    /// Too much waits; the job comes back.
    Full(Box<Job>),
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Job>,
    /// The job that the worker has.
    running: Option<Running>,
    closed: bool,
}

#[derive(Debug)]
struct Running {
    id: String,
    ticket: Arc<Ticket>,
    unasked_caption: bool,
}

/// Jobs between the daemon's loop and the worker.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete before anything in it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in. An utterance breaks off a caption that nobody asked for; the worker puts that back.
    ///
    /// Of utterances and of requests `limit` may wait each: with more utterances the oldest goes, a request is refused.
    /// Of a camera's captions that nobody asked for the newest waits.
    pub(super) fn push(&self, job: Job, limit: usize) -> Pushed {
        let mut inner = self.lock();
        let rank = job.work.rank();
        let same_rank = |other: &Job| other.work.rank() == rank;
        let replaced = match job.work.unasked_caption() {
            Some(camera) => inner
                .waiting
                .iter()
                .position(|other| other.work.unasked_caption() == Some(camera)),
            None if inner
                .waiting
                .iter()
                .filter(|other| same_rank(other))
                .count()
                >= limit =>
            {
                if rank > 0 {
                    return Pushed::Full(Box::new(job));
                }
                inner.waiting.iter().position(same_rank)
            }
            None => None,
        };
        let replaced = replaced.and_then(|at| inner.waiting.remove(at));
        if rank == 0
            && let Some(running) = &inner.running
            && running.unasked_caption
        {
            running.ticket.preempt();
        }
        inner.waiting.push_back(job);
        self.changed.notify_all();
        match replaced {
            Some(old) => Pushed::InPlaceOf(Box::new(old)),
            None => Pushed::Waits,
        }
    }

    /// Puts back a caption that was broken off, unless a newer picture of its camera waits already; then it is returned.
    pub(super) fn put_back(&self, job: Job) -> Option<Job> {
        let mut inner = self.lock();
        let newer = inner
            .waiting
            .iter()
            .any(|other| other.work.unasked_caption() == job.work.unasked_caption());
        if newer || inner.closed {
            return Some(job);
        }
        let ticket = Ticket {
            deadline: Mutex::new(job.ticket.deadline()),
            ..Ticket::default()
        };
        inner.waiting.push_front(Job {
            ticket: Arc::new(ticket),
            ..job
        });
        None
    }

    /// The next job, or `None` after `wait` or once the queue is closed and empty.
    pub(super) fn pop(&self, wait: Duration) -> Option<Job> {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            let first = inner
                .waiting
                .iter()
                .enumerate()
                .min_by_key(|(at, job)| (job.work.rank(), *at));
            if let Some(at) = first.map(|(at, _)| at) {
                let job = inner.waiting.remove(at);
                inner.running = job.as_ref().map(|job| Running {
                    id: job.id.clone(),
                    ticket: Arc::clone(&job.ticket),
                    unasked_caption: job.work.unasked_caption().is_some(),
                });
                return job;
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

    /// The worker is done with its job.
    pub(super) fn done(&self) {
        self.lock().running = None;
    }

    /// Cancels a job wherever it is; one that waits comes back, one that runs ends by itself.
    pub(super) fn cancel(&self, id: &str) -> Cancelled {
        let mut inner = self.lock();
        if let Some(running) = inner.running.as_ref().filter(|running| running.id == id) {
            running.ticket.cancel();
            return Cancelled::Running;
        }
        let at = inner.waiting.iter().position(|job| job.id == id);
        match at.and_then(|at| inner.waiting.remove(at)) {
            Some(job) => Cancelled::Waiting(Box::new(job)),
            None => Cancelled::Unknown,
        }
    }

    /// Removes jobs whose time is over before they began; the one that runs is told by its ticket.
    pub(super) fn expired(&self) -> Vec<Job> {
        self.remove(|job| job.ticket.is_late())
    }

    /// Removes captions that nobody asked for.
    pub(super) fn unasked_captions(&self) -> Vec<Job> {
        self.remove(|job| job.work.unasked_caption().is_some())
    }

    /// Ends the queue: what waits comes back, what runs is cancelled.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut inner = self.lock();
        inner.closed = true;
        if let Some(running) = &inner.running {
            running.ticket.cancel();
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
        inner.waiting.len() + usize::from(inner.running.is_some())
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
