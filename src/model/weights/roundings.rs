//! What goes into a layer and what comes out of it, rounded to steps that were trained with the weights.

use kernels::quant::Roundings;

use super::mobile::ACTIVATION_SCALES;
use super::{Mapped, WeightsError};

impl Mapped {
    /// The steps to which a layer rounds its inputs and outputs: 0, which is none, where it has no such numbers.
    ///
    /// # Errors
    /// A step is negative, infinite or not a number.
    pub fn roundings(&self, layer: &str) -> Result<Roundings, WeightsError> {
        let step = |end: &str| {
            let name = format!("{layer}{end}");
            if !self.contains(&name) {
                return Ok(0.0);
            }
            let step = self.vector(&name, 1)?[0];
            match step.is_finite() && step >= 0.0 {
                true => Ok(step),
                false => {
                    Err(self.unusable(&name, format!("is {step}: nothing is rounded to that")))
                }
            }
        };
        let [input, output] = ACTIVATION_SCALES.map(step);
        Ok(Roundings {
            input: input?,
            output: output?,
        })
    }
}
