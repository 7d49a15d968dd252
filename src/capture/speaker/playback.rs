//! ALSA: a playback PCM, opened as it likes to be, and given mono samples at its own rate.

use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, HwParams, PCM, State};
use alsa::{Direction, ValueOr};

use super::output::Output;
use crate::capture::card::{explain_playback, keep_quiet};
use crate::capture::supervise::Unavailable;

/// Formats that are written, in the order of preference.
const FORMATS: [(Format, &str); 4] = [
    (Format::S16LE, "S16_LE"),
    (Format::S32LE, "S32_LE"),
    (Format::S243LE, "S24_3LE"),
    (Format::FloatLE, "FLOAT_LE"),
];

/// Rates that are asked for in turn.
const RATES_HZ: [u32; 6] = [48_000, 44_100, 32_000, 22_050, 16_000, 96_000];

/// Most channels that are opened.
const MAX_CHANNELS: u32 = 64;

/// Sound that waits in the device, and how often it wakes the writer, microseconds: little, so that what is stopped is silent soon.
const BUFFER_US: u32 = 200_000;
const PERIOD_US: u32 = 40_000;

/// A device that takes no sound for so long has died without telling.
const STUCK: Duration = Duration::from_secs(5);

/// How often it is looked whether all has been heard.
const LOOK: Duration = Duration::from_millis(10);

struct Pcm {
    device: String,
    pcm: PCM,
    format: Format,
    channels: usize,
    rate_hz: u32,
    bytes: Vec<u8>,
}

/// Opens `device`.
///
/// # Errors
/// It is not there, busy, or takes no sound that can be made.
pub(super) fn open(device: &str) -> Result<Box<dyn Output>, Unavailable> {
    Ok(Box::new(Pcm::open(device)?))
}

/// Opens `device`, and tells how sound would be given to it: rate, format, channels.
///
/// # Errors
/// As of [`open`].
pub(super) fn try_out(device: &str) -> Result<String, Unavailable> {
    let Pcm {
        format,
        channels,
        rate_hz,
        ..
    } = Pcm::open(device)?;
    let name = FORMATS.iter().find(|(found, _)| *found == format);
    let name = name.map_or("", |(_, name)| name);
    let plural = if channels == 1 { "" } else { "s" };
    Ok(format!("{rate_hz} Hz, {name}, {channels} channel{plural}"))
}

fn failed(device: &str, error: alsa::Error) -> Unavailable {
    Unavailable(explain_playback(device, error.errno().abs()))
}

fn configure(pcm: &PCM, device: &str) -> Result<(Format, usize, u32), Unavailable> {
    let failed = |error| failed(device, error);
    let params = HwParams::any(pcm).map_err(failed)?;
    params.set_rate_resample(false).map_err(failed)?;
    params.set_access(Access::RWInterleaved).map_err(failed)?;
    let format = FORMATS
        .iter()
        .find(|(format, _)| params.test_format(*format).is_ok());
    let Some(&(format, _)) = format else {
        return Err(Unavailable(format!(
            "ALSA device `{device}` takes none of the formats {}; open it through `plug` (`plughw:…` for `hw:…`)",
            FORMATS.map(|(_, name)| name).join(", ")
        )));
    };
    params.set_format(format).map_err(failed)?;
    let channels = params.set_channels_near(1).map_err(failed)?;
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(Unavailable(format!(
            "ALSA device `{device}` has {channels} channels, expected 1 to {MAX_CHANNELS}"
        )));
    }
    let exact = RATES_HZ
        .iter()
        .find(|rate| params.test_rate(**rate).is_ok());
    let rate_hz = match exact {
        Some(rate) => params.set_rate(*rate, ValueOr::Nearest).map(|()| *rate),
        None => params.set_rate_near(RATES_HZ[0], ValueOr::Nearest),
    };
    let rate_hz = rate_hz.map_err(failed)?;
    // Wishes: a device that has its own idea of them works too.
    params
        .set_buffer_time_near(BUFFER_US, ValueOr::Nearest)
        .ok();
    params
        .set_period_time_near(PERIOD_US, ValueOr::Nearest)
        .ok();
    pcm.hw_params(&params).map_err(failed)?;
    start_late(pcm).ok();
    Ok((format, channels as usize, rate_hz))
}

/// Two periods are to lie ready before the first is heard, so that it does not break off behind it.
fn start_late(pcm: &PCM) -> alsa::Result<()> {
    let period = pcm.hw_params_current()?.get_period_size()?;
    let params = pcm.sw_params_current()?;
    params.set_start_threshold(2 * period)?;
    pcm.sw_params(&params)
}

/// Writes mono samples as `format` wants them, the same in each channel.
fn encode(samples: &[f32], format: Format, channels: usize, bytes: &mut Vec<u8>) {
    let whole = |sample: f32, bits: u32| {
        let most = f64::from((1_u32 << (bits - 1)) - 1);
        (f64::from(sample).clamp(-1.0, 1.0) * most).round() as i32
    };
    bytes.clear();
    for &sample in samples {
        let (encoded, len) = match format {
            Format::S16LE => (whole(sample, 16).to_le_bytes(), 2),
            Format::S243LE => (whole(sample, 24).to_le_bytes(), 3),
            Format::FloatLE => (sample.clamp(-1.0, 1.0).to_le_bytes(), 4),
            _ => (whole(sample, 32).to_le_bytes(), 4),
        };
        for _ in 0..channels {
            bytes.extend_from_slice(&encoded[..len]);
        }
    }
}

impl Pcm {
    fn open(device: &str) -> Result<Pcm, Unavailable> {
        keep_quiet();
        let pcm =
            PCM::new(device, Direction::Playback, true).map_err(|error| failed(device, error))?;
        let (format, channels, rate_hz) = configure(&pcm, device)?;
        Ok(Pcm {
            device: device.to_owned(),
            pcm,
            format,
            channels,
            rate_hz,
            bytes: Vec::new(),
        })
    }

    fn failed(&self, error: alsa::Error) -> Unavailable {
        keep_quiet();
        failed(&self.device, error)
    }

    fn stuck(&self) -> Unavailable {
        Unavailable(format!(
            "ALSA device `{}` takes no sound any more: unplug it and plug it in again",
            self.device
        ))
    }

    /// As before anything was written.
    fn begin_anew(&self) -> Result<(), Unavailable> {
        self.pcm.prepare().map_err(|error| self.failed(error))
    }
}

impl Output for Pcm {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn write(&mut self, samples: &[f32]) -> Result<(), Unavailable> {
        let mut bytes = std::mem::take(&mut self.bytes);
        encode(samples, self.format, self.channels, &mut bytes);
        let frame = bytes.len() / samples.len().max(1);
        let (mut done, mut taken_at) = (0, Instant::now());
        while done < bytes.len() {
            if taken_at.elapsed() >= STUCK {
                return Err(self.stuck());
            }
            match self.pcm.io_bytes().writei(&bytes[done..]) {
                Ok(frames) if frames > 0 => {
                    done += frames * frame;
                    taken_at = Instant::now();
                }
                Ok(_) => std::thread::sleep(LOOK),
                Err(error) => match error.errno().abs() {
                    libc::EAGAIN => {
                        self.pcm.wait(Some(100)).ok();
                    }
                    // Nothing came in time, or the board slept: it goes on.
                    errno @ (libc::EPIPE | libc::ESTRPIPE) => {
                        let recovered = self.pcm.recover(errno, true);
                        recovered.map_err(|error| self.failed(error))?;
                    }
                    _ => return Err(self.failed(error)),
                },
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Unavailable> {
        let begun = Instant::now();
        loop {
            match self.pcm.drain() {
                Ok(()) => break,
                Err(error) if error.errno().abs() == libc::EAGAIN => {}
                // What it had left is heard; what it says now would be said of the next, too.
                Err(error) if error.errno().abs() == libc::EPIPE => break,
                Err(error) => return Err(self.failed(error)),
            }
            if begun.elapsed() >= STUCK {
                return Err(self.stuck());
            }
            std::thread::sleep(LOOK);
        }
        self.begin_anew()
    }

    fn hush(&mut self) -> Result<(), Unavailable> {
        self.pcm.drop().map_err(|error| self.failed(error))?;
        self.begin_anew()
    }

    fn check(&mut self) -> Result<(), Unavailable> {
        match self.pcm.state() {
            State::Disconnected => Err(Unavailable(explain_playback(&self.device, libc::ENODEV))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_each_format_wants_them() {
        let mut bytes = Vec::new();
        let mut written = |format, channels| {
            encode(&[1.5, -1.0], format, channels, &mut bytes);
            bytes.clone()
        };
        assert_eq!(written(Format::S16LE, 1), [0xff, 0x7f, 0x01, 0x80]);
        let both = [0xff, 0x7f, 0xff, 0x7f, 0x01, 0x80, 0x01, 0x80];
        assert_eq!(written(Format::S16LE, 2), both);
        let bits24 = [0xff, 0xff, 0x7f, 0x01, 0x00, 0x80];
        assert_eq!(written(Format::S243LE, 1), bits24);
        let bits32 = [0xff, 0xff, 0xff, 0x7f, 0x01, 0x00, 0x00, 0x80];
        assert_eq!(written(Format::S32LE, 1), bits32);
        let floats = [1.0_f32.to_le_bytes(), (-1.0_f32).to_le_bytes()].concat();
        assert_eq!(written(Format::FloatLE, 1), floats);
    }
}
