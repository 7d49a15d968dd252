//! Uncompressed audio as it arrives: WAV from a file or a pipe, or raw samples.
//!
//! Decoders made for music players stop at 26 channels and drop an incomplete last block; speech may come from a
//! microphone array, through a pipe whose length nobody knew when the header was written, or from a recorder that lost
//! power. So plain PCM is read here, sample by sample, and everything else is left to those decoders.

use std::io::{self, Read};

use crate::media::SAMPLE_RATE_HZ;

/// Lengths from here on are what writers put in the header when they cannot know the length (a pipe).
const UNKNOWN_LENGTH_BYTES: u32 = 0x7FFF_0000;
/// Bytes that are asked of the input at a time.
const READ_BYTES: usize = 16 * 1024;
/// What may stand behind the samples. Behind a `data` chunk of 0 bytes anything else is samples, whose writer never came to say how
/// many there are.
const CHUNKS: [&[u8; 4]; 19] = [
    b"LIST", b"list", b"id3 ", b"ID3 ", b"fact", b"cue ", b"plst", b"smpl", b"inst", b"bext",
    b"iXML", b"axml", b"PEAK", b"JUNK", b"junk", b"PAD ", b"FLLR", b"afsp", b"DISP",
];
/// Longest `fmt ` chunk that is defined (WAVEFORMATEXTENSIBLE).
const FMT_BYTES: usize = 40;

const FORMAT_PCM: u16 = 1;
const FORMAT_FLOAT: u16 = 3;
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;

/// Why a stream is not uncompressed audio that can be read.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// The input could not be read.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// The input ends before its first sample.
    #[error("the WAV header is cut off: expected a `{expected}` chunk")]
    CutOff {
        /// The chunk that is missing.
        expected: &'static str,
    },
    /// The header contradicts itself.
    #[error("the WAV header is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// The samples are not PCM.
    #[error("the WAV file holds compressed audio (format tag {tag:#06x}), expected PCM or float")]
    Compressed {
        /// The format tag of the `fmt ` chunk.
        tag: u16,
    },
}

/// How a sample is written, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 8 bits, 128 being silence.
    U8,
    /// 16 bits with sign.
    S16,
    /// 24 bits with sign, in three bytes.
    S24,
    /// 32 bits with sign.
    S32,
    /// Single precision, full scale being -1 to 1.
    F32,
    /// Double precision, full scale being -1 to 1.
    F64,
}

/// Reads interleaved samples from uncompressed audio, as they come.
pub struct PcmReader<R> {
    input: R,
    channels: usize,
    sample_rate_hz: u32,
    encoding: Encoding,
    /// Bytes of sample data that the header still promises; None when it did not know.
    promised: Option<u64>,
    buffer: Vec<u8>,
    filled: usize,
    truncated: bool,
    unfinished: bool,
}

impl<R: Read> PcmReader<R> {
    /// Reads a WAV header up to the first sample.
    ///
    /// # Errors
    /// If the input is not WAV, is damaged, cut off before the first sample, or compressed.
    pub fn wav(mut input: R) -> Result<PcmReader<R>, WavError> {
        let mut riff = [0; 12];
        read_or_cut_off(&mut input, &mut riff, "RIFF")?;
        if !is_wav(&riff) || &riff[8..] != b"WAVE" {
            return Err(WavError::Damaged {
                reason: "it does not begin with RIFF and WAVE".into(),
            });
        }
        let mut format = None;
        // Of a file that may be longer than 4 GiB.
        let mut long = None;
        loop {
            let expected = if format.is_none() { "fmt " } else { "data" };
            let mut head = [0; 8];
            read_or_cut_off(&mut input, &mut head, expected)?;
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            match &head[..4] {
                b"fmt " => format = Some(Format::read(&mut input, size)?),
                b"data" => {
                    let Some(Format {
                        channels,
                        sample_rate_hz,
                        encoding,
                    }) = format
                    else {
                        return Err(WavError::Damaged {
                            reason: "the `data` chunk comes before the `fmt ` chunk".into(),
                        });
                    };
                    let promised = match size {
                        0 => None,
                        UNKNOWN_LENGTH_BYTES.. => long,
                        size => Some(u64::from(size)),
                    };
                    let mut reader =
                        PcmReader::new(input, channels, sample_rate_hz, encoding, promised);
                    if size == 0 {
                        reader.look_ahead()?;
                    }
                    return Ok(reader);
                }
                b"ds64" if size >= 16 => {
                    let mut sizes = [0; 16];
                    read_or_cut_off(&mut input, &mut sizes, "ds64")?;
                    let [.., a, b, c, d, e, f, g, h] = sizes;
                    let bytes = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                    long = Some(bytes).filter(|&bytes| bytes > 0 && bytes < u64::MAX);
                    skip(&mut input, u64::from(size) - 16 + u64::from(size % 2))?;
                }
                // Chunks are padded to an even length.
                _ => skip(&mut input, u64::from(size) + u64::from(size % 2))?,
            }
        }
    }

    /// Reads headerless mono samples, 16-bit little-endian at 16 kHz.
    pub fn raw_s16le(input: R) -> PcmReader<R> {
        PcmReader::new(input, 1, SAMPLE_RATE_HZ, Encoding::S16, None)
    }

    fn new(
        input: R,
        channels: usize,
        sample_rate_hz: u32,
        encoding: Encoding,
        promised: Option<u64>,
    ) -> PcmReader<R> {
        let frame_bytes = channels * encoding.bytes();
        let buffer = vec![0; (READ_BYTES / frame_bytes).max(1) * frame_bytes];
        PcmReader {
            input,
            channels,
            sample_rate_hz,
            encoding,
            promised,
            buffer,
            filled: 0,
            truncated: false,
            unfinished: false,
        }
    }

    /// Behind a header that promises nothing: samples, another chunk, or the end.
    fn look_ahead(&mut self) -> Result<(), WavError> {
        let mut start = Vec::new();
        self.input.by_ref().take(4).read_to_end(&mut start)?;
        let room = self.buffer.len();
        if CHUNKS.iter().any(|name| start == *name) {
            self.promised = Some(0);
        } else {
            self.unfinished = !start.is_empty();
            self.buffer.resize(room.max(start.len()), 0);
            self.buffer[..start.len()].copy_from_slice(&start);
            self.filled = start.len();
        }
        Ok(())
    }

    /// Channels, at least one.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples a second of each channel.
    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// True once the input has ended before the length that its header promised, or within a frame.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// True where the header promises no samples and there are some: whoever wrote it never finished it.
    pub fn unfinished(&self) -> bool {
        self.unfinished
    }

    /// Waits for samples and appends whole frames, `[frames, channels]`, to `interleaved`; false at the end.
    ///
    /// Samples that are not numbers (float audio may hold them) become 0.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn read(&mut self, interleaved: &mut Vec<f32>) -> io::Result<bool> {
        let frame_bytes = self.channels * self.encoding.bytes();
        loop {
            let whole = self.filled / frame_bytes * frame_bytes;
            if whole > 0 {
                self.encoding.decode(&self.buffer[..whole], interleaved);
                self.buffer.copy_within(whole..self.filled, 0);
                self.filled -= whole;
                return Ok(true);
            }
            let room = (self.buffer.len() - self.filled) as u64;
            let wanted = self.promised.map_or(room, |promised| promised.min(room)) as usize;
            let got = match self
                .input
                .read(&mut self.buffer[self.filled..self.filled + wanted])
            {
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if got == 0 {
                self.truncated =
                    self.filled > 0 || self.promised.is_some_and(|promised| promised > 0);
                return Ok(false);
            }
            self.filled += got;
            if let Some(promised) = &mut self.promised {
                *promised -= got as u64;
            }
        }
    }
}

/// What the `fmt ` chunk says.
struct Format {
    channels: usize,
    sample_rate_hz: u32,
    encoding: Encoding,
}

impl Format {
    fn read(input: &mut impl Read, size: u32) -> Result<Format, WavError> {
        let mut fmt = [0; FMT_BYTES];
        let len = (size as usize).min(FMT_BYTES);
        if len < 16 {
            return Err(WavError::Damaged {
                reason: format!("its `fmt ` chunk has {size} bytes, expected at least 16"),
            });
        }
        read_or_cut_off(input, &mut fmt[..len], "fmt ")?;
        skip(input, u64::from(size) - len as u64 + u64::from(size % 2))?;
        let u16_at = |i: usize| u16::from_le_bytes([fmt[i], fmt[i + 1]]);
        let tag = match u16_at(0) {
            FORMAT_EXTENSIBLE if len == FMT_BYTES => u16_at(24),
            tag => tag,
        };
        if tag != FORMAT_PCM && tag != FORMAT_FLOAT {
            return Err(WavError::Compressed { tag });
        }
        let u32_at = |i: usize| u32::from_le_bytes([fmt[i], fmt[i + 1], fmt[i + 2], fmt[i + 3]]);
        let channels = usize::from(u16_at(2));
        let (sample_rate_hz, bytes_a_second) = (u32_at(4), u32_at(8));
        let (block_bytes, bits) = (usize::from(u16_at(12)), u16_at(14));
        let sample_bytes =
            sample_bytes(channels, sample_rate_hz, bytes_a_second, block_bytes, bits)
                .map_err(|reason| WavError::Damaged { reason })?;
        // A sample of fewer bits stands at the top of its bytes.
        let encoding = match (tag, sample_bytes) {
            (FORMAT_PCM, 1) => Encoding::U8,
            (FORMAT_PCM, 2) => Encoding::S16,
            (FORMAT_PCM, 3) => Encoding::S24,
            (FORMAT_PCM, 4) => Encoding::S32,
            (FORMAT_FLOAT, 4) => Encoding::F32,
            (FORMAT_FLOAT, 8) => Encoding::F64,
            (_, bytes) => {
                return Err(WavError::Damaged {
                    reason: format!("samples of {bytes} bytes cannot be"),
                });
            }
        };
        Ok(Format {
            channels,
            sample_rate_hz,
            encoding,
        })
    }
}

/// Bytes of a sample, which the header says three times over: by its bits, by its blocks, and by its bytes a second. Two that agree
/// are believed; samples of 24 bits or of an odd number may take more bytes than they need. Writers that are wrong about the channels
/// are so in blocks and seconds alike: then the bits are right, as for sox.
fn sample_bytes(
    channels: usize,
    sample_rate_hz: u32,
    bytes_a_second: u32,
    block_bytes: usize,
    bits: u16,
) -> Result<usize, String> {
    if channels == 0 {
        return Err("it has 0 channels".to_owned());
    }
    let by_bits = usize::from(bits).div_ceil(8);
    let by_blocks = block_bytes / channels;
    let by_blocks = if by_blocks * channels == block_bytes {
        by_blocks
    } else {
        0
    };
    let frames_bytes = |sample: usize| u64::from(sample_rate_hz) * (channels * sample) as u64;
    let seconds_say = |sample| sample > 0 && frames_bytes(sample) == u64::from(bytes_a_second);
    let same_channels = u64::from(sample_rate_hz) * block_bytes as u64 == u64::from(bytes_a_second);
    let fills_its_bytes = matches!(bits, 8 | 16 | 32 | 64);
    if block_bytes > 0 && same_channels && (fills_its_bytes || block_bytes == by_bits) {
        Ok(by_bits)
    } else if by_blocks > 0 && (by_bits == by_blocks || bits == 0 || seconds_say(by_blocks)) {
        Ok(by_blocks)
    } else if seconds_say(by_bits) {
        Ok(by_bits)
    } else {
        Err(format!(
            "{bits} bits in {channels} channels make blocks of {} bytes and at {sample_rate_hz} Hz {} bytes a second, but it says {block_bytes} and {bytes_a_second}",
            channels * by_bits,
            frames_bytes(by_bits)
        ))
    }
}

/// Whether a stream that begins like this is WAV, also where it may be longer than 4 GiB (RF64, BW64).
pub(crate) fn is_wav(start: &[u8]) -> bool {
    [b"RIFF", b"RF64", b"BW64"]
        .iter()
        .any(|word| start.starts_with(*word))
}

impl Encoding {
    /// Bytes of a sample.
    pub fn bytes(self) -> usize {
        match self {
            Encoding::U8 => 1,
            Encoding::S16 => 2,
            Encoding::S24 => 3,
            Encoding::S32 | Encoding::F32 => 4,
            Encoding::F64 => 8,
        }
    }

    /// Appends the samples of `bytes`, full scale being -1 to 1; what is no number becomes 0.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
        let samples = bytes.chunks_exact(self.bytes());
        match self {
            Encoding::U8 => out.extend(samples.map(|b| (f32::from(b[0]) - 128.0) / 128.0)),
            Encoding::S16 => {
                out.extend(samples.map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0))
            }
            // Read into the upper bytes, so that the sign is in its place.
            Encoding::S24 => out.extend(
                samples.map(|b| i32::from_le_bytes([0, b[0], b[1], b[2]]) as f32 / 2_147_483_648.0),
            ),
            Encoding::S32 => {
                out.extend(samples.map(|b| {
                    i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2_147_483_648.0
                }));
            }
            Encoding::F32 => {
                out.extend(samples.map(|b| finite(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))))
            }
            Encoding::F64 => out.extend(samples.map(|b| {
                finite(f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            })),
        }
    }
}

fn read_or_cut_off(
    input: &mut impl Read,
    bytes: &mut [u8],
    expected: &'static str,
) -> Result<(), WavError> {
    input.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => WavError::CutOff { expected },
        _ => WavError::Io(e),
    })
}

fn skip(input: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut input.by_ref().take(bytes), &mut io::sink()).map(|_| ())
}
