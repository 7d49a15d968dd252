//! What outlives the door: it is opened anew where another section than its own changes, too, and nothing is described twice or lost
//! for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::gate::Gate;
use super::writing::Unwritten;
use crate::report::FrigateEvent;

/// The same for each time that the door is opened.
#[derive(Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gate: Mutex<Gate>,
    /// Something waits to be fetched.
    next: Notify,
    unwritten: Unwritten,
}

impl Memory {
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unwritten(&self) -> &Unwritten {
        &self.0.unwritten
    }

    /// Nothing comes of an event.
    pub(super) fn failed(&self, event: &FrigateEvent) {
        self.gate().failed(event, Instant::now());
        self.0.next.notify_one();
    }

    /// Until something waits that no message brought.
    pub(super) async fn next(&self) {
        self.0.next.notified().await;
    }
}
