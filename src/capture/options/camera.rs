//! `[[camera]]`: what is watched, and when it counts.

use std::path::PathBuf;

use serde::Deserialize;

use super::fits_topics;
use crate::capture::camera::V4l2Options;
use crate::capture::frigate::FrigateCamera;
use crate::capture::motion::Motion;
use crate::capture::replay::ReplayOptions;
use crate::capture::source::{Source, SourceOptions};
use crate::capture::still::HttpOptions;
use crate::capture::supervise::Unavailable;
use crate::features::image::ImageLimits;
use crate::values::between;

/// `[[camera]]`: one that can be watched, as far as that can be known without its device.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "Keys")]
pub struct CameraOptions {
    /// Name in topics and on the bus: `[a-z0-9_-]`, unique among the cameras.
    pub id: String,
    /// Name for people; absent: the id.
    pub name: Option<String>,
    /// Where its pictures come from.
    pub kind: CameraType,
    /// Pictures a second that motion is looked for in.
    pub fps: f32,
    /// What moves the daemon to describe a picture without being asked.
    pub motion: Motion,
    /// Describe a picture every so many seconds; 0 for never.
    pub every_s: u32,
    /// Least time between two captions that nobody asked for, seconds.
    pub cooldown_s: u32,
    /// Soft tokens that a picture becomes at most, with a Gemma 4; absent: as `[vision]` says.
    pub soft_tokens: Option<usize>,
    /// What the model is asked about a picture; absent: `[tasks] describe`. `{camera}` is the camera's name.
    pub prompt: Option<String>,
    /// Publish the picture that was described.
    pub publish_image: bool,
}

/// Where a camera's pictures come from: `type`, with the keys that only this type uses.
#[derive(Clone, Debug, PartialEq)]
pub enum CameraType {
    /// A V4L2 device.
    V4l2(V4l2Options),
    /// A still picture that another program serves.
    Http(HttpOptions),
    /// Picture files of a directory, for demonstrations and tests.
    Replay(ReplayOptions),
    /// One that Frigate watches; not written as a `type`, but in `[frigate]`.
    Frigate(FrigateCamera),
}

impl CameraType {
    fn options(&self) -> &dyn SourceOptions {
        match self {
            CameraType::V4l2(options) => options,
            CameraType::Http(options) => options,
            CameraType::Replay(options) => options,
            CameraType::Frigate(options) => options,
        }
    }
}

impl CameraOptions {
    /// Opens the source of its pictures.
    ///
    /// # Errors
    /// It is not there, or cannot be used.
    pub(in crate::capture) fn open(
        &self,
        limits: &ImageLimits,
    ) -> Result<Box<dyn Source>, Unavailable> {
        self.kind.options().open(self.fps, limits)
    }

    /// Its device, address or directory, for people: of an address neither user and password nor the query, where keys stand.
    pub fn source(&self) -> String {
        self.kind.options().shown()
    }

    /// What to do where it gives no pictures; `None` for a device, whose own errors say it.
    pub fn advice(&self) -> Option<&'static str> {
        self.kind.options().advice()
    }
}

/// The section as it is written: the keys of all types beside each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "struct Camera")]
struct Keys {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    r#type: TypeName,
    #[serde(default)]
    device: Option<PathBuf>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    redirect_hosts: Vec<String>,
    #[serde(default)]
    directory: Option<PathBuf>,
    #[serde(default = "vga_width")]
    width: u32,
    #[serde(default = "vga_height")]
    height: u32,
    #[serde(default = "warm_up")]
    warm_up_frames: u32,
    #[serde(default = "http_timeout")]
    timeout_ms: u32,
    #[serde(default = "five")]
    fps: f32,
    #[serde(default)]
    motion: Motion,
    #[serde(default)]
    every_s: u32,
    #[serde(default = "thirty")]
    cooldown_s: u32,
    #[serde(default)]
    soft_tokens: Option<usize>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default = "yes")]
    publish_image: bool,
}

/// `type`
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum TypeName {
    #[default]
    V4l2,
    Http,
    Replay,
}

fn vga_width() -> u32 {
    640
}

fn vga_height() -> u32 {
    480
}

fn warm_up() -> u32 {
    15
}

fn http_timeout() -> u32 {
    5_000
}

fn five() -> f32 {
    5.0
}

fn thirty() -> u32 {
    30
}

fn yes() -> bool {
    true
}

impl TryFrom<Keys> for CameraOptions {
    type Error = String;

    /// # Errors
    /// The first value that does not fit its key or the others: which camera, which key, what stands there and what may.
    fn try_from(keys: Keys) -> Result<CameraOptions, String> {
        fits_topics("camera", &keys.id)?;
        let id = keys.id.clone();
        keys.read()
            .map_err(|reason| format!("camera `{id}`: {reason}"))
    }
}

impl Keys {
    fn read(mut self) -> Result<CameraOptions, String> {
        let kind = self.kind()?;
        between("width", self.width, 16, 16_384)?;
        between("height", self.height, 16, 16_384)?;
        between("warm_up_frames", self.warm_up_frames, 0, 1000)?;
        between("timeout_ms", self.timeout_ms, 100, 120_000)?;
        between("fps", self.fps, 0.01, 60.0)?;
        if self.every_s > 0 && self.every_s < self.cooldown_s {
            return Err(format!(
                "every_s is {}, less than cooldown_s ({}), which would hold it back; lower cooldown_s",
                self.every_s, self.cooldown_s
            ));
        }
        self.motion.check()?;
        Ok(CameraOptions {
            id: self.id,
            name: self.name,
            kind,
            fps: self.fps,
            motion: self.motion,
            every_s: self.every_s,
            cooldown_s: self.cooldown_s,
            soft_tokens: self.soft_tokens,
            prompt: self.prompt,
            publish_image: self.publish_image,
        })
    }

    /// Takes the keys of its type; those of other types may not be given.
    fn kind(&mut self) -> Result<CameraType, String> {
        let (device, url, directory) = (self.device.take(), self.url.take(), self.directory.take());
        match self.r#type {
            TypeName::V4l2 => {
                let device = needed(device, "device", "v4l2")?;
                unused(url.is_some(), "url", "v4l2")?;
                unused(directory.is_some(), "directory", "v4l2")?;
                self.http_is_unused()?;
                Ok(CameraType::V4l2(V4l2Options {
                    device,
                    width: self.width,
                    height: self.height,
                    warm_up_frames: self.warm_up_frames,
                }))
            }
            TypeName::Http => {
                unused(device.is_some(), "device", "http")?;
                let url = needed(url, "url", "http")?;
                unused(directory.is_some(), "directory", "http")?;
                let options = HttpOptions {
                    url: HttpOptions::address(&url)?,
                    bearer_token_file: self.bearer_token_file.take(),
                    ca_file: self.ca_file.take(),
                    redirect_hosts: std::mem::take(&mut self.redirect_hosts),
                    timeout_ms: self.timeout_ms,
                };
                options.check()?;
                Ok(CameraType::Http(options))
            }
            TypeName::Replay => {
                unused(device.is_some(), "device", "replay")?;
                unused(url.is_some(), "url", "replay")?;
                let directory = needed(directory, "directory", "replay")?;
                self.http_is_unused()?;
                Ok(CameraType::Replay(ReplayOptions { directory }))
            }
        }
    }

    fn http_is_unused(&self) -> Result<(), String> {
        let given = [
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("redirect_hosts", !self.redirect_hosts.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("`{key}` is given, which only type = \"http\" uses")),
            None => Ok(()),
        }
    }
}

fn needed<T>(value: Option<T>, key: &str, kind: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("type is \"{kind}\", which needs `{key}`"))
}

fn unused(given: bool, key: &str, kind: &str) -> Result<(), String> {
    match given {
        true => Err(format!(
            "`{key}` is given, but type is \"{kind}\", which does not use it"
        )),
        false => Ok(()),
    }
}
