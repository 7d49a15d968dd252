//! When switches are written to disk: at once, but not more often than a few times between two ticks of the loop, however often they
//! change. What is not written yet is not told yet either. It knows no clock and no file.

/// Writes between two ticks: somebody may mute every room at once.
const MAX_WRITES: u32 = 8;

/// Whether something has to be written.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Something changed that is not written.
    due: bool,
    /// How often was written since the last tick.
    writes: u32,
}

impl Keeping {
    /// A switch changed; whether to write now. If not, the next tick does.
    pub(super) fn changed(&mut self) -> bool {
        self.due = self.writes >= MAX_WRITES;
        if !self.due {
            self.writes += 1;
        }
        !self.due
    }

    /// A second is over, or the end has come; whether to write now.
    pub(super) fn tick(&mut self) -> bool {
        self.writes = u32::from(self.due);
        std::mem::take(&mut self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_written_a_few_times_a_tick_and_its_end_is_not_forgotten() {
        let mut keeping = Keeping::default();
        assert!(!keeping.tick());
        // One alone is written at once.
        assert!(keeping.changed());
        assert!(!keeping.tick());
        let mut writes = 0;
        for _ in 0..10 {
            writes += (0..1000).filter(|_| keeping.changed()).count();
            assert!(keeping.tick(), "the last of them waits");
            writes += 1;
        }
        assert_eq!(writes, 8 + 1 + 9 * (7 + 1));
        assert!(!keeping.tick() && keeping.changed());
    }
}
