//! Which parameter groups of a loaded model are in memory.

use std::sync::Arc;

use super::GroupMemory;
use super::engine::Engine;
use super::error::EngineError;
use super::memory_lock::lock;
use crate::model::weights::{Group, GroupState, Mapped, Residency};

impl Engine {
    /// The states of the groups, to be shared with threads that prefetch while this one computes.
    pub fn residency(&self) -> &Arc<Residency> {
        &self.residency
    }

    /// Begins to read a group in the background, and does not wait; [`Residency::cancel`] ends it.
    pub fn prefetch(&self, group: Group) {
        self.residency.prefetch(group);
    }

    /// As [`Engine::prefetch`] for the text group, but reads only what a MatFormer slice reads of it; `None` is the whole model.
    ///
    /// # Errors
    /// No slice of that name.
    pub fn prefetch_text(&self, matformer: Option<&str>) -> Result<(), EngineError> {
        let unused = self.decoder.unused_by(self.slice(matformer)?);
        self.residency.prefetch_without(Group::Text, unused);
        Ok(())
    }

    /// Gives the memory of a group back: its pages, and of an encoder also its mapping. The next request that needs it reads it
    /// again.
    pub fn unload(&mut self, group: Group) {
        self.residency.unloaded(group);
        self.encoders.unload(group);
        match group {
            Group::Text => self.decoder.evict(),
            Group::Ple => self.decoder.ple().evict(),
            Group::Drafter => self.drafter.iter().for_each(|weights| weights.evict()),
            Group::Audio | Group::Vision => {}
        }
    }

    /// Gives the memory of the audio and vision groups back.
    pub fn unload_encoders(&mut self) {
        self.unload(Group::Audio);
        self.unload(Group::Vision);
    }

    /// Whether a group is in memory.
    pub fn group_state(&self, group: Group) -> GroupState {
        self.residency.state(group)
    }

    /// Memory of every parameter group now, that of the drafter where there is one.
    pub fn memory(&self) -> Vec<GroupMemory> {
        let of = |group: Group| {
            let mapped: Option<&Mapped> = match group {
                Group::Text => Some(self.decoder.weights()),
                Group::Ple => None,
                Group::Audio => self.encoders.audio_weights(),
                Group::Vision => self.encoders.vision_weights(),
                Group::Drafter => self.drafter.as_deref(),
            };
            let resident_bytes = match group {
                Group::Ple => self.decoder.ple().resident_bytes(),
                _ => mapped.map_or(0, Mapped::resident_bytes),
            };
            GroupMemory {
                group,
                state: self.group_state(group),
                mapped_bytes: mapped.map_or(0, Mapped::mapped_bytes),
                resident_bytes,
            }
        };
        let has = |group: &Group| *group != Group::Drafter || self.drafter.is_some();
        Group::ALL.into_iter().filter(has).map(of).collect()
    }

    /// What was asked for at the start and could not be had, in one line each: the engine works without.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Before text weights are read: they are still all there, and locked again if they were given back.
    pub(super) fn use_text(&self) -> Result<(), EngineError> {
        let weights = self.decoder.weights();
        weights.check_length()?;
        let unloaded = self.group_state(Group::Text) == GroupState::Unloaded;
        if self.options.mlock && unloaded {
            lock(weights);
        }
        self.residency.loaded(Group::Text);
        self.residency.loaded(Group::Ple);
        Ok(())
    }
}
