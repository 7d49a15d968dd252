//! Audio files to 16 kHz mono: WAV, FLAC, OGG Vorbis and MP3, any rate and any number of channels.

pub(crate) mod container;
mod error;

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as DecoderError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use super::resample::{Resampler, downmix};
use super::wav::{self, PcmReader, WavError};
use crate::media::{AudioClip, SAMPLE_RATE_HZ};
use error::{limit, undecodable};

pub use error::AudioFileError;

/// What is accepted as audio; everything beyond is refused before or while it is read.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AudioLimits {
    /// Largest file in bytes.
    pub max_file_bytes: u64,
    /// Longest audio in seconds.
    pub max_duration_s: u32,
    /// Most channels.
    pub max_channels: usize,
}

impl Default for AudioLimits {
    fn default() -> AudioLimits {
        AudioLimits {
            max_file_bytes: 1 << 30,
            max_duration_s: 3600,
            max_channels: 64,
        }
    }
}

/// An audio file, decoded piece by piece to 16 kHz mono.
pub struct AudioReader {
    path: PathBuf,
    source: Source,
    channels: usize,
    /// None once the end has been reached.
    resampler: Option<Resampler>,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    given: u64,
    max_samples: u64,
    limits: AudioLimits,
    damage: Option<String>,
}

enum Source {
    Pcm(PcmReader<BufReader<Box<dyn MediaSource>>>),
    Packets(Packets),
}

/// Reads a whole audio file, to 16 kHz mono.
///
/// A file that is cut off or damaged gives what can be decoded; [`AudioReader::damage`] tells.
///
/// # Errors
/// If the file cannot be read, exceeds a limit, is not audio or holds no sample.
pub fn read_audio_file(path: &Path, limits: &AudioLimits) -> Result<AudioClip, AudioFileError> {
    let mut reader = AudioReader::open(path, limits)?;
    let mut clip = AudioClip {
        samples: Vec::new(),
        sample_rate_hz: SAMPLE_RATE_HZ,
    };
    while reader.read(&mut clip.samples)? {}
    Ok(clip)
}

impl AudioReader {
    /// Opens `path` and reads its header.
    ///
    /// # Errors
    /// If the file cannot be read, exceeds a limit or is not audio.
    pub fn open(path: &Path, limits: &AudioLimits) -> Result<AudioReader, AudioFileError> {
        AudioReader::open_at(path, limits, SAMPLE_RATE_HZ)
    }

    /// The same, decoded to samples of another rate than the model's: for whoever has it played.
    ///
    /// # Errors
    /// If the file cannot be read, exceeds a limit or is not audio.
    pub fn open_at(
        path: &Path,
        limits: &AudioLimits,
        to_hz: u32,
    ) -> Result<AudioReader, AudioFileError> {
        let io_error = |source| AudioFileError::Io {
            path: path.into(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(io_error)?;
        if !metadata.is_file() {
            return Err(AudioFileError::NotAFile { path: path.into() });
        }
        let len = metadata.len();
        if len == 0 {
            return Err(AudioFileError::Empty {
                path: path.into(),
                damage: Some("the file has no bytes".into()),
            });
        }
        if len > limits.max_file_bytes {
            return Err(limit(
                path,
                len,
                "bytes",
                limits.max_file_bytes,
                "max_file_bytes",
            ));
        }
        let open = || -> Result<Box<dyn MediaSource>, AudioFileError> {
            Ok(Box::new(File::open(path).map_err(io_error)?))
        };
        AudioReader::read_header(path, open, limits, to_hz)
    }

    /// Reads the header of a file that is in memory; errors call it `name`.
    ///
    /// # Errors
    /// If it exceeds a limit or is not audio.
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        limits: &AudioLimits,
    ) -> Result<AudioReader, AudioFileError> {
        AudioReader::from_bytes_at(name, bytes, limits, SAMPLE_RATE_HZ)
    }

    /// The same, at another rate, as [`AudioReader::open_at`] has it.
    ///
    /// # Errors
    /// If it exceeds a limit or is not audio.
    pub fn from_bytes_at(
        name: &str,
        bytes: &[u8],
        limits: &AudioLimits,
        to_hz: u32,
    ) -> Result<AudioReader, AudioFileError> {
        let path = Path::new(name);
        let length = bytes.len() as u64;
        if length > limits.max_file_bytes {
            let most = limits.max_file_bytes;
            return Err(limit(path, length, "bytes", most, "max_file_bytes"));
        }
        if bytes.is_empty() {
            return Err(AudioFileError::Empty {
                path: path.into(),
                damage: Some("it has no bytes".into()),
            });
        }
        let open = || -> Result<Box<dyn MediaSource>, AudioFileError> {
            Ok(Box::new(Cursor::new(bytes.to_vec())))
        };
        AudioReader::read_header(path, open, limits, to_hz)
    }

    fn read_header(
        path: &Path,
        open: impl Fn() -> Result<Box<dyn MediaSource>, AudioFileError>,
        limits: &AudioLimits,
        to_hz: u32,
    ) -> Result<AudioReader, AudioFileError> {
        let io_error = |source| AudioFileError::Io {
            path: path.into(),
            source,
        };
        // The content decides, not the name.
        let mut start = Vec::new();
        open()?
            .take(container::START_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(io_error)?;
        if let Some(reason) = container::not_read(&start) {
            return Err(undecodable(path, reason));
        }
        let pcm = if wav::is_wav(&start) {
            PcmReader::wav(BufReader::new(open()?))
        } else {
            Err(WavError::Compressed { tag: 0 })
        };
        let (source, channels, rate) = match pcm {
            Ok(pcm) => {
                let (channels, rate) = (pcm.channels(), pcm.sample_rate_hz());
                (Source::Pcm(pcm), channels, rate)
            }
            Err(WavError::Compressed { tag }) => {
                let packets = match (Packets::open(path, open()?), container::wav_codec(tag)) {
                    (Err(_), Some(codec)) => {
                        let reason = format!("it is {codec} in WAV; {}", container::CONVERT);
                        return Err(undecodable(path, reason));
                    }
                    (packets, _) => packets?,
                };
                let (channels, rate) = (packets.channels, packets.sample_rate_hz);
                (Source::Packets(packets), channels, rate)
            }
            Err(WavError::Io(source)) => return Err(io_error(source)),
            Err(e) => return Err(undecodable(path, e)),
        };
        if channels > limits.max_channels {
            return Err(limit(
                path,
                channels as u64,
                "channels",
                limits.max_channels as u64,
                "max_channels",
            ));
        }
        let resampler = Resampler::new(rate, to_hz);
        Ok(AudioReader {
            resampler: Some(resampler.map_err(|source| AudioFileError::Resample {
                path: path.into(),
                source,
            })?),
            path: path.into(),
            source,
            channels,
            interleaved: Vec::new(),
            mono: Vec::new(),
            given: 0,
            max_samples: u64::from(limits.max_duration_s) * u64::from(to_hz),
            limits: limits.clone(),
            damage: None,
        })
    }

    /// Appends the next samples (some tens of milliseconds) to `samples`; false at the end.
    ///
    /// # Errors
    /// If the file cannot be read, exceeds a limit, or ends without a single sample.
    pub fn read(&mut self, samples: &mut Vec<f32>) -> Result<bool, AudioFileError> {
        let Some(resampler) = &mut self.resampler else {
            return Ok(false);
        };
        self.interleaved.clear();
        let more = match &mut self.source {
            Source::Pcm(pcm) => {
                let more =
                    pcm.read(&mut self.interleaved)
                        .map_err(|source| AudioFileError::Io {
                            path: self.path.clone(),
                            source,
                        })?;
                if pcm.truncated() {
                    self.damage = Some("the file is shorter than its header says".into());
                } else if pcm.unfinished() {
                    self.damage = Some("its header was never finished: it promises 0 bytes".into());
                }
                more
            }
            Source::Packets(packets) => {
                packets.read(&self.path, &mut self.interleaved, &mut self.damage)?
            }
        };
        self.mono.clear();
        downmix(&self.interleaved, self.channels, &mut self.mono);
        let before = samples.len();
        let resampled = if more {
            resampler.push(&self.mono, samples)
        } else {
            self.resampler
                .take()
                .map_or(Ok(()), |resampler| resampler.finish(samples))
        };
        resampled.map_err(|source| AudioFileError::Resample {
            path: self.path.clone(),
            source,
        })?;
        self.given += (samples.len() - before) as u64;
        if self.given > self.max_samples {
            let max_s = u64::from(self.limits.max_duration_s);
            return Err(limit(
                &self.path,
                max_s + 1,
                "seconds or more",
                max_s,
                "max_duration_s",
            ));
        }
        if !more && self.given == 0 {
            return Err(AudioFileError::Empty {
                path: self.path.clone(),
                damage: self.damage.take(),
            });
        }
        Ok(more)
    }

    /// What was wrong with the part of the file that has been read, if anything.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

/// Compressed audio, decoded packet by packet.
struct Packets {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track_id: u32,
    channels: usize,
    sample_rate_hz: u32,
    decoded: Vec<f32>,
}

impl Packets {
    fn open(path: &Path, file: Box<dyn MediaSource>) -> Result<Packets, AudioFileError> {
        guarded(path, || {
            let stream = MediaSourceStream::new(file, Default::default());
            let format = symphonia::default::get_probe()
                .probe(
                    &Hint::new(),
                    stream,
                    FormatOptions::default(),
                    MetadataOptions::default(),
                )
                .map_err(|e| undecodable(path, e))?;
            let track = format
                .default_track(TrackType::Audio)
                .ok_or_else(|| undecodable(path, "it has no audio track"))?;
            let params = track
                .codec_params
                .as_ref()
                .and_then(|params| params.audio())
                .ok_or_else(|| undecodable(path, "its codec is unknown"))?;
            let channels = params
                .channels
                .as_ref()
                .map_or(0, |channels| channels.count());
            let (Some(sample_rate_hz), true) = (params.sample_rate, channels > 0) else {
                return Err(undecodable(
                    path,
                    "its rate or its number of channels is unknown",
                ));
            };
            let decoder = symphonia::default::get_codecs()
                .make_audio_decoder(params, &AudioDecoderOptions::default())
                .map_err(|e| undecodable(path, e))?;
            let track_id = track.id;
            Ok(Packets {
                format,
                decoder,
                track_id,
                channels,
                sample_rate_hz,
                decoded: Vec::new(),
            })
        })
    }

    /// Appends one packet's samples, `[frames, channels]`; false at the end.
    fn read(
        &mut self,
        path: &Path,
        interleaved: &mut Vec<f32>,
        damage: &mut Option<String>,
    ) -> Result<bool, AudioFileError> {
        guarded(path, || {
            loop {
                let packet = match self.format.next_packet() {
                    Ok(Some(packet)) => packet,
                    Ok(None) => return Ok(false),
                    // What comes after a break cannot be placed in time: the audio ends there.
                    Err(e) => {
                        *damage = Some(format!("it ends early: {e}"));
                        return Ok(false);
                    }
                };
                if packet.track_id != self.track_id {
                    continue;
                }
                match self.decoder.decode(&packet) {
                    Ok(buffer) => {
                        let spec = buffer.spec();
                        if spec.rate() != self.sample_rate_hz
                            || spec.channels().count() != self.channels
                        {
                            *damage =
                                Some("its rate or its number of channels changes midway".into());
                            return Ok(false);
                        }
                        buffer.copy_to_vec_interleaved(&mut self.decoded);
                        interleaved.extend(
                            self.decoded
                                .iter()
                                .map(|&x| if x.is_finite() { x } else { 0.0 }),
                        );
                        return Ok(true);
                    }
                    // Players skip a damaged packet, and so is done here, but not silently.
                    Err(DecoderError::DecodeError(e)) => {
                        *damage = Some(format!("a damaged packet was skipped: {e}"))
                    }
                    Err(e) => {
                        *damage = Some(format!("it ends early: {e}"));
                        return Ok(false);
                    }
                }
            }
        })
    }
}

/// Runs a decoder that is fed with bytes from strangers: should it panic, the file is refused, and the process lives on.
fn guarded<T>(
    path: &Path,
    decode: impl FnOnce() -> Result<T, AudioFileError>,
) -> Result<T, AudioFileError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(undecodable(path, "the decoder failed on it")))
}
