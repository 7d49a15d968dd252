//! `[[microphone]]` and `[[camera]]`: what is listened to and watched.

use std::path::PathBuf;

use serde::Deserialize;

use super::address;
use super::microphone::Microphone;
use super::range::between;
use super::secret::without_secrets;

/// `[[camera]]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// Name in topics and on the bus: `[a-z0-9_-]`, unique among the cameras.
    pub id: String,
    /// Name for people; absent: the id.
    #[serde(default)]
    pub name: Option<String>,
    /// Kind of source: it says which of the keys below are needed.
    #[serde(default, rename = "type")]
    pub kind: CameraType,
    /// `v4l2`: `/dev/v4l/by-id/…`; `/dev/videoN` moves when devices are plugged in another order.
    #[serde(default)]
    pub device: Option<PathBuf>,
    /// `http`: an `http://` or `https://` address that answers with a JPEG or PNG (go2rtc, motionEye, Frigate, rpicam).
    #[serde(default)]
    pub url: Option<String>,
    /// `http`: a file with a token to send as `Authorization: Bearer`, read again for every picture.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// `http`: certificates of the authorities to trust, or the camera's own one, PEM; absent: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// `http`: other hosts that may be redirected to, `HOST` or `HOST:PORT`. User, password and token do not go there.
    #[serde(default)]
    pub redirect_hosts: Vec<String>,
    /// `replay`: a directory of JPEG and PNG files, taken in the order of their names, again and again.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// `v4l2`: preferred width, pixels.
    #[serde(default = "vga_width")]
    pub width: u32,
    /// `v4l2`: preferred height, pixels.
    #[serde(default = "vga_height")]
    pub height: u32,
    /// `v4l2`: pictures thrown away after opening, while exposure settles.
    #[serde(default = "warm_up")]
    pub warm_up_frames: u32,
    /// `http`: longest wait for an answer, milliseconds.
    #[serde(default = "http_timeout")]
    pub timeout_ms: u32,
    /// Pictures a second that motion is looked for in.
    #[serde(default = "five")]
    pub fps: f32,
    /// What moves the daemon to describe a picture without being asked.
    #[serde(default)]
    pub motion: Motion,
    /// Describe a picture every so many seconds; 0 for never.
    #[serde(default)]
    pub every_s: u32,
    /// Least time between two captions that nobody asked for, seconds.
    #[serde(default = "thirty")]
    pub cooldown_s: u32,
    /// What the model is asked about a picture; absent: `[tasks] describe`. `{camera}` is the camera's name.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Publish the picture that was described.
    #[serde(default = "yes")]
    pub publish_image: bool,
}

impl Camera {
    /// Its device, address or directory, for people: of an address neither user and password nor the query, where keys stand.
    pub fn source(&self) -> String {
        match self.kind {
            CameraType::V4l2 => self
                .device
                .as_deref()
                .map(|path| path.display().to_string()),
            CameraType::Http => {
                let url = self.url.as_deref();
                url.map(|url| without_secrets(url).into_owned())
            }
            CameraType::Replay => self
                .directory
                .as_deref()
                .map(|path| path.display().to_string()),
        }
        .unwrap_or_default()
    }
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

/// Where a camera's pictures come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CameraType {
    /// A V4L2 device.
    #[default]
    V4l2,
    /// A still picture that another program serves.
    Http,
    /// Picture files of a directory, for demonstrations and tests.
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

/// `[camera.motion]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Motion {
    /// Look for motion, and describe a picture when there is some.
    pub enabled: bool,
    /// Difference from the background from which a point counts as changed, 0 to 255.
    pub luma_threshold: u8,
    /// Share of the watched area that must have changed for motion to begin, 0 to 1.
    pub area: f32,
    /// Share below which motion may end, 0 to 1; lower than `area`, so that it does not flicker.
    pub area_off: f32,
    /// Motion ends after so long without any, seconds.
    pub off_delay_s: u32,
    /// Rectangles `[x, y, width, height]` of the picture, each 0 to 1, in which motion counts; none: everywhere.
    pub zones: Vec<[f32; 4]>,
}

impl Default for Motion {
    fn default() -> Motion {
        Motion {
            enabled: true,
            luma_threshold: 25,
            area: 0.01,
            area_off: 0.005,
            off_delay_s: 30,
            zones: Vec::new(),
        }
    }
}

/// Longest id of a microphone or a camera: topics and names of Home Assistant's devices are made of it.
const MOST_ID_BYTES: usize = 64;

/// Looks whether the values fit their keys and each other.
///
/// # Errors
/// The first that does not: which device, which key, what stands there and what may.
pub(super) fn check(microphones: &[Microphone], cameras: &[Camera]) -> Result<(), String> {
    ids("microphone", microphones.iter().map(|m| m.id.as_str()))?;
    ids("camera", cameras.iter().map(|c| c.id.as_str()))?;
    for microphone in microphones {
        microphone
            .check()
            .map_err(|reason| format!("microphone `{}`: {reason}", microphone.id))?;
    }
    for camera in cameras {
        check_camera(camera).map_err(|reason| format!("camera `{}`: {reason}", camera.id))?;
    }
    Ok(())
}

fn ids<'a>(kind: &str, ids: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for id in ids {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if id.is_empty() || id.len() > MOST_ID_BYTES || !id.chars().all(fits) {
            let shown: String = id.chars().take(MOST_ID_BYTES).collect();
            return Err(format!(
                "{kind}.id is {shown:?}; it may hold up to {MOST_ID_BYTES} of a-z, 0-9, `_` and `-`, since it becomes part of topics"
            ));
        }
        if !seen.insert(id) {
            return Err(format!(
                "{kind}.id {id:?} is given twice; each {kind} needs its own"
            ));
        }
    }
    Ok(())
}

fn check_camera(camera: &Camera) -> Result<(), String> {
    let given = [
        (CameraType::V4l2, "v4l2", "device", camera.device.is_some()),
        (CameraType::Http, "http", "url", camera.url.is_some()),
        (
            CameraType::Replay,
            "replay",
            "directory",
            camera.directory.is_some(),
        ),
    ];
    let kind = given.iter().find(|(kind, ..)| *kind == camera.kind);
    let name = kind.map_or("", |(_, name, ..)| *name);
    for (kind, _, key, given) in given {
        if kind == camera.kind && !given {
            return Err(format!("type is \"{name}\", which needs `{key}`"));
        }
        if kind != camera.kind && given {
            return Err(format!(
                "`{key}` is given, but type is \"{name}\", which does not use it"
            ));
        }
    }
    address::check(camera)?;
    between("width", camera.width, 16, 16_384)?;
    between("height", camera.height, 16, 16_384)?;
    between("warm_up_frames", camera.warm_up_frames, 0, 1000)?;
    between("timeout_ms", camera.timeout_ms, 100, 120_000)?;
    between("fps", camera.fps, 0.01, 60.0)?;
    if camera.every_s > 0 && camera.every_s < camera.cooldown_s {
        return Err(format!(
            "every_s is {}, less than cooldown_s ({}), which would hold it back; lower cooldown_s",
            camera.every_s, camera.cooldown_s
        ));
    }
    let motion = &camera.motion;
    between("motion.area", motion.area, 0.0001, 1.0)?;
    between("motion.area_off", motion.area_off, 0.0, 1.0)?;
    if motion.area_off >= motion.area {
        return Err(format!(
            "motion.area_off is {}; it must be less than motion.area ({})",
            motion.area_off, motion.area
        ));
    }
    for zone @ [x, y, width, height] in &motion.zones {
        let inside = zone.iter().all(|side| (0.0..=1.0).contains(side))
            && *width > 0.0
            && *height > 0.0
            // A third and two thirds may come to a little more than one.
            && x + width <= 1.0001
            && y + height <= 1.0001;
        if !inside {
            return Err(format!(
                "motion.zones has {zone:?}; a zone is [x, y, width, height] in shares of the picture, within 0 to 1"
            ));
        }
    }
    Ok(())
}
