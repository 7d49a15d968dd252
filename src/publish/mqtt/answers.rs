//! The way back to whoever asks over MQTT.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shared::Shared;
use crate::report::ReplyTo;

/// Where answers go: into the outbox that is there when they come, which may be another than when the question came: a reload with
/// another `[mqtt]` makes the connection anew.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<Option<Arc<Shared>>>>);

impl Answers {
    fn now(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on they go there.
    pub(super) fn go_to(&self, shared: &Arc<Shared>) {
        *self.now() = Some(Arc::clone(shared));
    }

    /// There is no connection any more, unless another has taken its place.
    pub(super) fn leave(&self, shared: &Arc<Shared>) {
        let mut now = self.now();
        if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, shared)) {
            *now = None;
        }
    }

    /// For one request; the answer to one that came as `plain` text goes to `answer`, too.
    pub(super) fn reply_to(&self, plain: bool) -> ReplyTo {
        let answers = self.clone();
        let next_piece = AtomicU64::new(0);
        ReplyTo::new(move |update| {
            let sequence = match update.partial {
                Some(_) => next_piece.fetch_add(1, Ordering::Relaxed),
                None => 0,
            };
            let shared = answers.now().clone();
            if let Some(shared) = shared {
                shared.answer(update, sequence, plain);
            }
        })
    }
}
