//! Picture files of a directory as if a camera had taken them, again and again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::picture::{Picture, Pixels};
use super::source::{Source, SourceOptions};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;

/// `type = "replay"` of `[[camera]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// JPEG and PNG files, taken in the order of their names, again and again.
    pub directory: PathBuf,
}

impl SourceOptions for ReplayOptions {
    fn open(&self, _: f32, limits: &ImageLimits) -> Result<Box<dyn Source>, Unavailable> {
        Ok(Box::new(Replay::open(&self.directory, limits)?))
    }

    fn shown(&self) -> String {
        self.directory.display().to_string()
    }

    fn advice(&self) -> Option<&'static str> {
        Some("put .jpg or .png files there that this user may read")
    }
}

/// A directory, and what of it is still to be shown in this round.
struct Replay {
    directory: PathBuf,
    /// The next at the end.
    left: Vec<PathBuf>,
    limits: ImageLimits,
}

impl Replay {
    /// Reads the names in the directory.
    ///
    /// # Errors
    /// It cannot be read, or holds no picture.
    fn open(directory: &Path, limits: &ImageLimits) -> Result<Replay, Unavailable> {
        Ok(Replay {
            directory: directory.to_owned(),
            left: pictures(directory)?,
            limits: *limits,
        })
    }
}

impl Source for Replay {
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable> {
        if !wanted {
            std::thread::sleep(wait);
            return Ok(None);
        }
        if self.left.is_empty() {
            self.left = pictures(&self.directory)?;
        }
        let Some(path) = self.left.pop() else {
            return Ok(None);
        };
        let bytes = read(&path, &self.limits)
            .map_err(|error| Unavailable(format!("cannot read {}: {error}", path.display())))?;
        Ok(Some(Picture {
            pixels: Pixels::File(bytes),
            taken_at: SystemTime::now(),
        }))
    }
}

fn read(path: &Path, limits: &ImageLimits) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed: the decoder then tells the limit.
    let most = limits.max_file_bytes as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The pictures of `directory`, the last by name first.
fn pictures(directory: &Path) -> Result<Vec<PathBuf>, Unavailable> {
    let told = |what: String| Unavailable(format!("the directory {} {what}", directory.display()));
    let is_picture = |path: &PathBuf| {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    };
    let entries = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| told(format!("cannot be read: {error}")))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().filter(is_picture).collect();
    if paths.is_empty() {
        return Err(told("holds no .jpg, .jpeg or .png file".into()));
    }
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}
