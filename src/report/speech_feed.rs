//! The sound of one utterance, on its way from where it is heard to the model.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the worker gets of an utterance.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// 16 kHz mono samples that came since the last time.
    Samples(Vec<f32>),
    /// It is over, and was so at `ended_at`.
    Ended {
        /// It was cut at the longest length.
        truncated: bool,
        /// When.
        ended_at: Instant,
    },
    /// It was no speech after all.
    Cancelled,
    /// Nothing yet.
    Silence,
}

#[derive(Debug, Default)]
struct Inner {
    samples: Vec<f32>,
    end: VecDeque<Heard>,
}

/// Samples between who hears, and writes without waiting, and who listens. Bounded by the length of an utterance.
#[derive(Debug, Default)]
pub struct SpeechFeed {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl SpeechFeed {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds samples.
    pub fn push(&self, samples: &[f32]) {
        self.lock().samples.extend_from_slice(samples);
        self.changed.notify_all();
    }

    /// Ends the utterance.
    pub fn end(&self, truncated: bool) {
        let ended_at = Instant::now();
        self.lock().end.push_back(Heard::Ended {
            truncated,
            ended_at,
        });
        self.changed.notify_all();
    }

    /// What was heard is to be forgotten.
    pub fn cancel(&self) {
        let mut inner = self.lock();
        inner.samples.clear();
        inner.end.push_back(Heard::Cancelled);
        drop(inner);
        self.changed.notify_all();
    }

    /// What came since the last time; waits for it at most `wait`.
    pub fn next(&self, wait: Duration) -> Heard {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            if !inner.samples.is_empty() {
                return Heard::Samples(std::mem::take(&mut inner.samples));
            }
            if let Some(end) = inner.end.pop_front() {
                return end;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
