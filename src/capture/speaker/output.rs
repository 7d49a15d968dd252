//! What a speaker's thread plays to.

use crate::capture::supervise::Unavailable;

/// An open device.
pub(super) trait Output {
    fn rate_hz(&self) -> u32;

    /// Hands over samples, and waits while it has no room for them.
    ///
    /// # Errors
    /// The device is gone.
    fn write(&mut self, samples: &[f32]) -> Result<(), Unavailable>;

    /// Waits until all has been heard.
    ///
    /// # Errors
    /// The device is gone.
    fn finish(&mut self) -> Result<(), Unavailable>;

    /// Forgets what has not been heard yet.
    ///
    /// # Errors
    /// The device is gone.
    fn hush(&mut self) -> Result<(), Unavailable>;

    /// Looks whether it is still there.
    ///
    /// # Errors
    /// It is not.
    fn check(&mut self) -> Result<(), Unavailable>;
}

/// Opens what the speaker plays to.
pub(super) type Open = Box<dyn FnMut(&str) -> Result<Box<dyn Output>, Unavailable> + Send>;
