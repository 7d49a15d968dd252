//! Leaf data that travels between the rooms: what was heard and seen, before any model looks at it.

/// A stretch of mono audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AudioClip {
    /// Samples, full scale being -1 to 1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate_hz: u32,
}

impl AudioClip {
    /// Length in seconds; 0 for a clip that has no rate.
    pub fn duration_s(&self) -> f64 {
        if self.sample_rate_hz == 0 {
            return 0.0;
        }
        self.samples.len() as f64 / f64::from(self.sample_rate_hz)
    }
}
