//! V4L2: a video capture device, read through mapped buffers. The only place that knows this library.
//!
//! The library panics where a driver says something unknown, and where a stream cannot be stopped; so every call into it
//! goes through [`guarded`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use v4l::buffer::{Flags as BufferFlags, Type};
use v4l::capability::Flags;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::CaptureStream;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC};

use super::picture::{Picture, PixelFormat, Pixels, RawImage};
use super::source::{Source, SourceOptions};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;

/// Formats that are understood, in the order of preference: JPEG needs least of the USB bus, and is published as it came.
/// None stands for a whole JPEG file.
const FORMATS: [(&[u8; 4], Option<PixelFormat>); 5] = [
    (b"MJPG", None),
    (b"JPEG", None),
    (b"YUYV", Some(PixelFormat::Yuyv)),
    (b"NV12", Some(PixelFormat::Nv12)),
    (b"GREY", Some(PixelFormat::Grey)),
];

/// Buffers that the driver fills in turn.
const BUFFERS: u32 = 4;

/// A device that gives no picture for so long is gone.
const STALLED: Duration = Duration::from_secs(2);

/// `type = "v4l2"` of `[[camera]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct V4l2Options {
    /// `/dev/v4l/by-id/…`; `/dev/videoN` moves when devices are plugged in another order.
    pub device: PathBuf,
    /// Preferred width, pixels.
    pub width: u32,
    /// Preferred height, pixels.
    pub height: u32,
    /// Pictures thrown away after opening, while exposure settles.
    pub warm_up_frames: u32,
}

impl SourceOptions for V4l2Options {
    fn open(&self, fps: f32, _: &ImageLimits) -> Result<Box<dyn Source>, Unavailable> {
        Ok(Box::new(VideoDevice::open(self, fps)?))
    }

    fn shown(&self) -> String {
        self.device.display().to_string()
    }

    fn advice(&self) -> Option<&'static str> {
        None
    }
}

/// An open, streaming device.
struct VideoDevice {
    /// Taken when it is closed.
    stream: Option<Stream<'static>>,
    started: bool,
    format: Format,
    pixels: Option<PixelFormat>,
    path: PathBuf,
    /// Pictures still to be thrown away while exposure settles.
    warm_up: u32,
    last: Instant,
}

impl VideoDevice {
    /// Opens the device and begins to stream.
    fn open(options: &V4l2Options, fps: f32) -> Result<VideoDevice, Unavailable> {
        let path = options.device.clone();
        let failed = |error: io::Error| Unavailable(explain(&path, &error));
        let device = Device::with_path(&path).map_err(failed)?;
        let offered = guarded(|| {
            if !captures(device.query_caps()?.capabilities) {
                return Ok(None);
            }
            device.enum_formats().map(Some)
        });
        let Some(offered) = offered.map_err(failed)? else {
            return Err(Unavailable(format!(
                "{} gives no pictures (cameras have further nodes for metadata): take another; `gemmad devices` lists them",
                path.display()
            )));
        };
        let offers = |code: &&[u8; 4]| offered.iter().any(|format| format.fourcc.repr == **code);
        let codes = FORMATS.map(|(code, _)| code);
        let Some(code) = codes.iter().find(|code| offers(code)) else {
            let names: Vec<String> = offered.iter().map(|f| f.fourcc.to_string()).collect();
            return Err(Unavailable(format!(
                "{} offers {} only, and MJPG, YUYV, NV12 or GREY is needed: CSI cameras give raw sensor data here; serve their \
                 pictures over HTTP (rpicam, go2rtc) and use type = \"http\"",
                path.display(),
                names.join(", ")
            )));
        };
        let wanted = Format::new(options.width, options.height, FourCC::new(code));
        // At least one a second: drivers know no slower.
        let fps = fps.ceil().max(1.0) as u32;
        let opened = guarded(|| {
            let format = device.set_format(&wanted)?;
            // A wish: many devices have one rate only.
            device.set_params(&Parameters::with_fps(fps)).ok();
            let mut stream = Stream::with_buffers(&device, Type::VideoCapture, BUFFERS)?;
            stream.set_timeout(STALLED);
            Ok((format, stream))
        });
        let (format, stream) = opened.map_err(failed)?;
        let known = FORMATS
            .iter()
            .find(|(code, _)| **code == format.fourcc.repr);
        let opened = VideoDevice {
            stream: Some(stream),
            started: false,
            format,
            pixels: known.and_then(|(_, pixels)| *pixels),
            warm_up: options.warm_up_frames,
            last: Instant::now(),
            path,
        };
        if known.is_none() {
            return Err(Unavailable(format!(
                "{} was asked for {} and gives {}",
                opened.path.display(),
                wanted.fourcc,
                format.fourcc
            )));
        }
        Ok(opened)
    }

    /// The newest frame, if one came within `wait`.
    fn newest(&mut self, wait: Duration, wanted: bool) -> io::Result<Option<Vec<u8>>> {
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let stream = self.stream.as_mut().ok_or_else(gone)?;
        let handle = stream.handle();
        let ready = |wait: Duration| {
            let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
            Ok::<bool, io::Error>(handle.poll(libc::POLLIN, wait_ms)? > 0)
        };
        let mut frame = None;
        // Only the first frame is taken without a look: asking for it starts the stream.
        let mut another = !self.started || ready(wait)?;
        while another {
            let (bytes, metadata) = CaptureStream::next(stream)?;
            self.started = true;
            self.last = Instant::now();
            if self.warm_up > 0 {
                self.warm_up -= 1;
            } else {
                let len = (metadata.bytesused as usize).min(bytes.len());
                let damaged = metadata.flags.contains(BufferFlags::ERROR) || len == 0;
                frame = (wanted && !damaged).then(|| bytes[..len].to_vec());
            }
            another = ready(Duration::ZERO)?;
        }
        Ok(frame)
    }
}

impl Source for VideoDevice {
    fn next(&mut self, wait: Duration, wanted: bool) -> Result<Option<Picture>, Unavailable> {
        let frame = guarded(|| self.newest(wait, wanted));
        let frame = frame.map_err(|error| Unavailable(explain(&self.path, &error)))?;
        let Some(bytes) = frame else {
            if self.last.elapsed() >= STALLED {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(Unavailable(explain(&self.path, &error)));
            }
            return Ok(None);
        };
        let size = (self.format.width as usize, self.format.height as usize);
        let pixels = match self.pixels {
            None => Pixels::File(bytes),
            Some(format) => {
                match RawImage::new(format, size, self.format.stride as usize, bytes) {
                    Ok(raw) => Pixels::Raw(raw),
                    // Cut off: dropped, as a damaged JPEG is.
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(Some(Picture {
            pixels,
            taken_at: SystemTime::now(),
        }))
    }
}

impl Drop for VideoDevice {
    fn drop(&mut self) {
        let stream = self.stream.take();
        // What cannot be stopped any more is gone, and was told to be.
        guarded(|| {
            drop(stream);
            Ok(())
        })
        .ok();
    }
}

/// Runs `work`; a panic in the library becomes an error.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(io::Error::other("its driver says what is not understood")))
}

fn captures(capabilities: Flags) -> bool {
    capabilities.contains(Flags::VIDEO_CAPTURE | Flags::STREAMING)
}

/// An error in words that say what to do.
fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => format!(
            "{path} does not exist: is the camera plugged in? `gemmad devices` lists those there are"
        ),
        Some(libc::EACCES | libc::EPERM) => format!(
            "{path} may not be opened by this user: add the user to the group `video`, or set `SupplementaryGroups=video` in the service"
        ),
        Some(libc::EBUSY) => format!(
            "{path} is used by another program: a camera serves one at a time; end the other, or let it serve stills over HTTP and use type = \"http\""
        ),
        Some(libc::ENOSPC) => format!(
            "{path} finds no room on its USB bus: plug other cameras into another port, or lower width, height and fps"
        ),
        // Drivers answer to calls on an unplugged camera with each of these.
        Some(libc::ENODEV | libc::ENXIO | libc::EIO | libc::EINVAL) => {
            format!("{path} is gone: it was unplugged, or its driver gave up ({error})")
        }
        _ if error.kind() == io::ErrorKind::TimedOut => {
            format!("{path} is open and gives no pictures: unplug it and plug it in again")
        }
        _ => format!("{path} cannot be used: {error}"),
    }
}

/// A camera that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraDevice {
    /// The path that stays when devices are plugged in another order, or `/dev/videoN` where there is none.
    pub path: PathBuf,
    /// `/dev/videoN`.
    pub node: PathBuf,
    /// What the driver calls it, and the bus it hangs on; or why it cannot be opened.
    pub about: Result<CameraAbout, String>,
}

/// What a driver says of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraAbout {
    /// The device.
    pub card: String,
    /// Where it is plugged in.
    pub bus: String,
    /// Formats, as four characters each, whether they are understood, and the sizes they come in.
    pub formats: Vec<CameraFormat>,
}

/// A format that a camera gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraFormat {
    /// Four characters.
    pub code: String,
    /// Whether it can be used here.
    pub understood: bool,
    /// `640x480`, or `16x16 to 1920x1080`.
    pub sizes: Vec<String>,
}

/// The V4L2 nodes that give pictures, and those that may not be opened.
pub fn cameras() -> Vec<CameraDevice> {
    let names = |directory: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let links = names("/dev/v4l/by-id");
    let is_video = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("video"));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let nodes = names("/dev").into_iter().filter(is_video);
    nodes
        .filter_map(|node| {
            let about = match guarded(|| about(&node)) {
                Ok(Some(about)) => Ok(about),
                Ok(None) => return None,
                Err(error) => Err(explain(&node, &error)),
            };
            let same = |link: &&PathBuf| link.canonicalize().is_ok_and(|target| target == node);
            let link = links.iter().find(same).cloned();
            Some(CameraDevice {
                path: link.unwrap_or_else(|| node.clone()),
                node,
                about,
            })
        })
        .collect()
}

fn about(node: &Path) -> io::Result<Option<CameraAbout>> {
    let device = Device::with_path(node)?;
    let capabilities = device.query_caps()?;
    if !captures(capabilities.capabilities) {
        return Ok(None);
    }
    let formats = device.enum_formats()?.into_iter().map(|format| {
        // A driver may know no sizes.
        let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
        CameraFormat {
            code: format.fourcc.to_string(),
            understood: FORMATS.iter().any(|(code, _)| **code == format.fourcc.repr),
            sizes: sizes
                .into_iter()
                .map(|size| match size.size {
                    FrameSizeEnum::Discrete(size) => format!("{}x{}", size.width, size.height),
                    FrameSizeEnum::Stepwise(range) => format!(
                        "{}x{} to {}x{}",
                        range.min_width, range.min_height, range.max_width, range.max_height
                    ),
                })
                .collect(),
        }
    });
    Ok(Some(CameraAbout {
        formats: formats.collect(),
        card: capabilities.card,
        bus: capabilities.bus,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        for (errno, words) in [
            (libc::ENOENT, ["plugged in", "gemmad devices"]),
            (libc::EACCES, ["group `video`", "SupplementaryGroups"]),
            (libc::EBUSY, ["another program", "http"]),
            (libc::ENODEV, ["gone", "unplugged"]),
            (libc::EINVAL, ["gone", "unplugged"]),
            (libc::ENOSPC, ["USB bus", "width"]),
        ] {
            let told = explain(
                Path::new("/dev/video7"),
                &io::Error::from_raw_os_error(errno),
            );
            assert!(
                words.iter().all(|word| told.contains(word)) && told.contains("/dev/video7"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_panic_of_the_library_is_an_error() {
        let result: io::Result<()> = guarded(|| panic!("expected by the test"));
        assert!(result.is_err());
    }
}
