//! Where a camera's pictures come from.

use std::time::Duration;

use super::picture::Picture;
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;

/// An open source of pictures.
pub(super) trait Source {
    /// Lets up to `wait` pass. Gives a picture if one is `wanted` and to be had: the newest, not one that waited.
    ///
    /// # Errors
    /// The source is gone.
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable>;
}

/// What a source of one type is told by `[[camera]]`.
pub(super) trait SourceOptions {
    /// Opens it; `fps` is how many pictures a second are looked at.
    ///
    /// # Errors
    /// It is not there, or cannot be used.
    fn open(&self, fps: f32, limits: &ImageLimits) -> Result<Box<dyn Source>, Unavailable>;

    /// Its device, address or directory, for people.
    fn shown(&self) -> String;

    /// What to do where it gives no pictures; `None` where its own errors say it.
    fn advice(&self) -> Option<&'static str>;
}
