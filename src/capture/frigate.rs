//! A camera that Frigate watches: its newest picture, for whoever asks. What Frigate sees of itself comes as events.

use std::time::{Duration, SystemTime};

use super::picture::{Picture, Pixels};
use super::source::{Source, SourceOptions};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;
use crate::frigate::{Api, FrigateOptions};

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
        let api = Api::new(&self.frigate, limits.max_file_bytes).map_err(Unavailable)?;
        Ok(Box::new(Newest {
            api,
            name: self.name.clone(),
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
}

impl Source for Newest {
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable> {
        if !wanted {
            std::thread::sleep(wait);
            return Ok(None);
        }
        let bytes = (self.api.latest(&self.name))
            .map_err(|trouble| Unavailable(format!("Frigate {}", trouble.in_words())))?;
        Ok(Some(Picture {
            pixels: Pixels::File(bytes),
            taken_at: SystemTime::now(),
        }))
    }
}
