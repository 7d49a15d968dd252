//! Which parameter groups are in memory, and bringing them there in the background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Checkpoint, Group, HEAD_RESIDUAL, Mapped, Stretch, row_file};

/// Whether a parameter group is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// Its memory was given back, or never taken.
    #[default]
    Unloaded,
    /// Its pages are being read in the background.
    Loading,
    /// It was read, or is in use: pages that a request does not touch may still be on flash.
    Resident,
}

impl std::fmt::Display for GroupState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GroupState::Unloaded => "unloaded",
            GroupState::Loading => "loading",
            GroupState::Resident => "resident",
        })
    }
}

/// The state of every group of one checkpoint: unloaded → loading → resident → unloaded. Threads share it, so that what is
/// about to be needed can be read while the thread that computes is busy.
#[derive(Debug)]
pub struct Residency {
    checkpoint: Arc<Checkpoint>,
    /// Tensors that are never read ahead.
    by_row: Vec<String>,
    groups: [Mutex<Slot>; Group::ALL.len()],
}

#[derive(Debug, Default)]
struct Slot {
    state: GroupState,
    /// A prefetch that is under way ends when this is set.
    prefetch: Option<Arc<AtomicBool>>,
    /// What a prefetch has mapped, until the group is unloaded.
    held: Option<Arc<Mapped>>,
}

impl Slot {
    fn end_prefetch(&mut self) {
        if let Some(cancelled) = self.prefetch.take() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}

impl Residency {
    /// Every group is unloaded.
    pub fn new(checkpoint: Arc<Checkpoint>) -> Arc<Residency> {
        Residency::leaving(checkpoint, Vec::new())
    }

    /// Likewise; the tensors `by_row` are large, a few of their rows are read, and the others stay on flash.
    pub fn leaving(checkpoint: Arc<Checkpoint>, by_row: Vec<String>) -> Arc<Residency> {
        Arc::new(Residency {
            checkpoint,
            by_row,
            groups: Default::default(),
        })
    }

    /// The state of a group now.
    pub fn state(&self, group: Group) -> GroupState {
        self.slot(group).state
    }

    /// Begins to read an unloaded group in the background. Does nothing for a group that is loading or resident or not in the
    /// checkpoint, nor for PLE, whose rows are read as their ids become known.
    pub fn prefetch(self: &Arc<Residency>, group: Group) {
        self.prefetch_without(group, Vec::new());
    }

    /// As [`Residency::prefetch`], but leaves the stretches `without` on flash.
    pub fn prefetch_without(self: &Arc<Residency>, group: Group, without: Vec<Stretch>) {
        if group == Group::Ple || !self.checkpoint.has(group) {
            return;
        }
        let mut slot = self.slot(group);
        if slot.state != GroupState::Unloaded {
            return;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let residency = Arc::clone(self);
        let of_thread = Arc::clone(&cancelled);
        let thread = std::thread::Builder::new()
            .name(format!("prefetch-{group}"))
            .spawn(move || residency.read(group, &without, &of_thread));
        match thread {
            // It needs the slot to say that it is done, which it gets after this.
            Ok(_) => {
                slot.state = GroupState::Loading;
                slot.prefetch = Some(cancelled);
            }
            // The group is then read when it is used.
            Err(error) => log::warn!("cannot read the {group} weights in the background: {error}"),
        }
    }

    /// Ends a prefetch; what it has read is given back unless the group has come into use.
    pub fn cancel(&self, group: Group) {
        let mut slot = self.slot(group);
        slot.end_prefetch();
        if slot.state == GroupState::Loading {
            slot.state = GroupState::Unloaded;
        }
    }

    /// The group is in use from now on; a prefetch goes on.
    pub(crate) fn loaded(&self, group: Group) {
        self.slot(group).state = GroupState::Resident;
    }

    /// The group is no longer in use, nor wanted.
    pub(crate) fn unloaded(&self, group: Group) {
        let mut slot = self.slot(group);
        slot.end_prefetch();
        slot.state = GroupState::Unloaded;
        slot.held = None;
    }

    /// The prefetch itself.
    fn read(&self, group: Group, without: &[Stretch], cancelled: &Arc<AtomicBool>) {
        let mapped = self.checkpoint.load(group);
        let stop = || cancelled.load(Ordering::Relaxed);
        let whole = mapped.as_ref().is_ok_and(|mapped| {
            let by_row = self.by_row.iter();
            let by_row = by_row.filter_map(|name| mapped.stretch(name));
            let without: Vec<Stretch> = by_row.chain(without.iter().cloned()).collect();
            mapped.populate(&without, &stop)
        });
        if whole && group == Group::Text {
            row_file::read_ahead(&self.checkpoint, HEAD_RESIDUAL, &stop);
        }
        let mut slot = self.slot(group);
        let current = slot.prefetch.as_ref();
        if current.is_none_or(|current| !Arc::ptr_eq(current, cancelled)) {
            return;
        }
        slot.prefetch = None;
        match mapped {
            Ok(mapped) if whole => {
                slot.held = Some(mapped);
                slot.state = GroupState::Resident;
            }
            Ok(_) => {}
            Err(error) => {
                // Whoever needs the group will be told.
                log::warn!("{error}");
                if slot.state == GroupState::Loading {
                    slot.state = GroupState::Unloaded;
                }
            }
        }
    }

    fn slot(&self, group: Group) -> MutexGuard<'_, Slot> {
        // Every change is a single assignment or two, none of which panics.
        self.groups[group as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
