//! Where a camera's pictures come from.

use std::path::Path;
use std::time::Duration;

use super::camera::VideoDevice;
use super::picture::Picture;
use super::replay::Replay;
use super::still::Still;
use super::supervise::Unavailable;
use crate::config::{Camera, CameraType};
use crate::features::image::ImageLimits;

/// An open source of pictures.
pub(super) trait Source {
    /// Lets up to `wait` pass. Gives a picture if one is `wanted` and to be had: the newest, not one that waited.
    ///
    /// # Errors
    /// The source is gone.
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable>;
}

/// Opens the source that `config` names.
///
/// # Errors
/// It is not there, or cannot be used.
pub(super) fn open(config: &Camera, limits: &ImageLimits) -> Result<Box<dyn Source>, Unavailable> {
    Ok(match config.kind {
        CameraType::V4l2 => Box::new(VideoDevice::open(config)?),
        CameraType::Http => Box::new(Still::new(config, limits)?),
        CameraType::Replay => {
            let directory = config.directory.as_deref().unwrap_or(Path::new(""));
            Box::new(Replay::open(directory, limits)?)
        }
    })
}
