//! One utterance on its way from where it is heard to the model, while it is spoken.
//!
//! Whoever hears it, a microphone's thread or a client's connection, has the [`Sender`] end from the onset and never waits. Whoever
//! works on it has the [`Receiver`] end, takes what there is piece by piece, and is woken by what comes instead of waiting for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

/// How far an utterance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is being spoken.
    Speaking,
    /// Nothing has been said for a moment: what there is may be all.
    Paused,
    /// It is over.
    Ended {
        /// It was cut at the longest length.
        truncated: bool,
        /// When it ended.
        at: Instant,
    },
    /// It was no speech after all, or whoever spoke is gone: it is to be forgotten.
    Cancelled,
}

impl Progress {
    /// Whether more may come.
    pub fn is_open(self) -> bool {
        matches!(self, Progress::Speaking | Progress::Paused)
    }
}

#[derive(Debug)]
struct Inner {
    /// 16 kHz mono, not taken yet.
    samples: Vec<f32>,
    progress: Progress,
    /// Nobody listens.
    refused: bool,
    waker: Option<Waker>,
    /// So many samples are worth waking for.
    enough: usize,
}

#[derive(Debug)]
struct Shared(Mutex<Inner>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete before anything in it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let waker = {
            let mut inner = self.lock();
            let progress = inner.progress;
            if inner.refused || !progress.is_open() {
                return;
            }
            let before = inner.samples.len();
            change(&mut inner);
            let crossed = (before + 1..=inner.samples.len()).contains(&inner.enough);
            let progressed = inner.progress != progress;
            inner.waker.clone().filter(|_| crossed || progressed)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end of whoever hears an utterance. Dropped before [`Sender::end`], the utterance is cancelled.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// The end of whoever works on an utterance. Dropped, what is still said is not kept.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

/// An utterance of which nothing has been heard yet.
pub fn channel() -> (Sender, Receiver) {
    let shared = Arc::new(Shared(Mutex::new(Inner {
        samples: Vec::new(),
        progress: Progress::Speaking,
        refused: false,
        waker: None,
        enough: 0,
    })));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl Sender {
    /// Adds 16 kHz mono samples; the longest length is the speaker's to keep. Whoever paused goes on.
    pub fn push(&self, samples: &[f32]) {
        self.0.change(|inner| {
            inner.samples.extend_from_slice(samples);
            inner.progress = Progress::Speaking;
        });
    }

    /// Nothing more is said for now.
    pub fn pause(&self) {
        self.0.change(|inner| inner.progress = Progress::Paused);
    }

    /// The utterance is over.
    pub fn end(self, truncated: bool) {
        let at = Instant::now();
        self.0
            .change(|inner| inner.progress = Progress::Ended { truncated, at });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.change(|inner| {
            inner.samples = Vec::new();
            inner.progress = Progress::Cancelled;
        });
    }
}

impl Receiver {
    /// Wakes `waker` when `enough` samples have come together, each time anew, and when whoever speaks pauses, goes on or ends.
    pub fn wake(&self, waker: Waker, enough: usize) {
        let mut inner = self.0.lock();
        inner.waker = Some(waker);
        inner.enough = enough;
    }

    /// Samples that have come and were not taken, and how far the utterance is.
    pub fn state(&self) -> (usize, Progress) {
        let inner = self.0.lock();
        (inner.samples.len(), inner.progress)
    }

    /// What was not taken of an utterance that has paused, or is over: a copy. Nothing while more is being said.
    pub fn rest(&self) -> Option<Vec<f32>> {
        let inner = self.0.lock();
        let pauses = matches!(inner.progress, Progress::Paused | Progress::Ended { .. });
        pauses.then(|| inner.samples.clone())
    }

    /// Takes the next `count` samples, or all that there are where they are fewer.
    pub fn take(&self, count: usize) -> Vec<f32> {
        let mut inner = self.0.lock();
        let count = count.min(inner.samples.len());
        inner.samples.drain(..count).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.refused = true;
        inner.samples = Vec::new();
        inner.waker = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_said_is_taken_in_pieces_and_wakes_whoever_listens() {
        let (sender, receiver) = channel();
        let woken = Arc::new(Woken::default());
        receiver.wake(Arc::clone(&woken).into(), 2);
        sender.push(&[1.0]);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        sender.push(&[2.0, 3.0]);
        assert_eq!(receiver.state(), (3, Progress::Speaking));
        assert_eq!(receiver.take(2), [1.0, 2.0]);
        sender.end(true);
        let (left, progress) = receiver.state();
        assert_eq!(left, 1);
        assert!(matches!(
            progress,
            Progress::Ended {
                truncated: true,
                ..
            }
        ));
        assert_eq!(receiver.take(2), [3.0]);
        // Once for the samples, once for the end; that the speaker is gone after the end is no news.
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn whoever_pauses_may_go_on_or_end() {
        let (sender, receiver) = channel();
        let woken = Arc::new(Woken::default());
        receiver.wake(Arc::clone(&woken).into(), 100);
        sender.push(&[1.0]);
        assert_eq!(
            (receiver.rest(), receiver.state().1.is_open()),
            (None, true)
        );
        sender.pause();
        assert_eq!(receiver.state(), (1, Progress::Paused));
        assert_eq!(receiver.rest(), Some(vec![1.0]));
        sender.push(&[2.0]);
        assert_eq!(receiver.state(), (2, Progress::Speaking));
        assert_eq!(receiver.rest(), None);
        sender.pause();
        sender.end(false);
        assert_eq!(receiver.rest(), Some(vec![1.0, 2.0]));
        assert!(!receiver.state().1.is_open());
        // Once for each pause, once for going on, once for the end.
        assert_eq!(woken.0.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_speaker_that_goes_cancels_and_what_nobody_hears_is_not_kept() {
        let (sender, receiver) = channel();
        sender.push(&[1.0]);
        drop(sender);
        assert_eq!(receiver.state(), (0, Progress::Cancelled));
        let (sender, receiver) = channel();
        drop(receiver);
        sender.push(&[1.0; 1000]);
        assert_eq!(sender.0.lock().samples.capacity(), 0);
    }
}
