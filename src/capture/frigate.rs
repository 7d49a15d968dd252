//! A camera that Frigate watches: its newest picture, for whoever asks. What Frigate sees of itself comes as events.

use std::time::{Duration, SystemTime};

use super::picture::{Picture, Pixels};
use super::source::{Source, SourceOptions};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;
use crate::frigate::{Api, FrigateOptions, Trouble};

/// A camera that is to be closed is not waited for much longer than this, milliseconds.
const LONGEST_MS: u32 = 4_000;

/// A camera of `[frigate] cameras`.
#[derive(Clone, Debug, PartialEq)]
pub struct FrigateCamera {
    /// The section.
    pub frigate: FrigateOptions,
    /// Frigate's name of it.
    pub name: String,
}

impl SourceOptions for FrigateCamera {
    fn open(&self, _: f32, limits: &ImageLimits) -> Result<Box<dyn Source>, Unavailable> {
        let frigate = FrigateOptions {
            timeout_ms: self.frigate.timeout_ms.min(LONGEST_MS),
            ..self.frigate.clone()
        };
        Ok(Box::new(Newest {
            api: Api::new(&frigate, limits.max_file_bytes).map_err(Unavailable)?,
            name: self.name.clone(),
            has_failed: false,
        }))
    }

    fn shown(&self) -> String {
        format!("{} of Frigate", self.name)
    }

    fn advice(&self) -> Option<&'static str> {
        Some("frigate.url has to be Frigate's address, and the camera one of its configuration")
    }
}

struct Newest {
    api: Api,
    name: String,
    /// The last time, so that once may be chance.
    has_failed: bool,
}

impl Source for Newest {
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable> {
        if !wanted {
            std::thread::sleep(wait);
            return Ok(None);
        }
        let bytes = match self.api.latest(&self.name) {
            Ok(bytes) => bytes,
            Err(Trouble::Passing(_) | Trouble::Absent(_)) if !self.has_failed => {
                self.has_failed = true;
                std::thread::sleep(wait);
                return Ok(None);
            }
            Err(trouble) => return Err(Unavailable(format!("Frigate {}", trouble.in_words()))),
        };
        self.has_failed = false;
        Ok(Some(Picture {
            pixels: Pixels::File(bytes),
            taken_at: SystemTime::now(),
        }))
    }
}
