//! Whether the inference thread gets on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the watchdog looks at: whether the worker works, and whether it gets on.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Heartbeat {
    busy: AtomicBool,
    steps: AtomicU64,
}

impl Heartbeat {
    /// The worker has computed something.
    pub(super) fn beat(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.beat();
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether the worker is idle, or has got on since `steps` was last seen.
    pub(in crate::daemon) fn is_alive(&self, steps: &mut u64) -> bool {
        let now = self.steps.load(Ordering::Relaxed);
        let moved = now != *steps;
        *steps = now;
        moved || !self.busy.load(Ordering::Relaxed)
    }
}
