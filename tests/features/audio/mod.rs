//! Audio files and resampling against `sox`, and against everything that a file may do wrong.

mod headers;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gemmad::features::audio_file::{AudioFileError, AudioLimits, AudioReader, read_audio_file};
use gemmad::features::resample::Resampler;
use gemmad::features::wav::PcmReader;
use proptest::prelude::*;

const VOICE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tiny-a/golden/a3_2.wav"
);

/// Runs sox, with `input` on its standard input, and returns its standard output.
fn sox(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sox")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test compares with sox: install the package `sox` and `libsox-fmt-mp3`");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _sox_may_not_read_it = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "sox {args:?} failed");
    output.stdout
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn bytes_of(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn rms(x: &[f32]) -> f64 {
    (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
}

/// The error of `got` against `want`, relative to the loudness of `want`, over the samples that both have.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let difference: Vec<f32> = got.iter().zip(want).map(|(a, b)| a - b).collect();
    rms(&difference) / rms(want)
}

fn voice() -> Vec<f32> {
    f32s(&sox(&[VOICE, "-t", "f32", "-"], &[]))
}

fn read(path: &Path) -> Result<Vec<f32>, AudioFileError> {
    read_audio_file(path, &AudioLimits::default()).map(|clip| {
        assert_eq!(clip.sample_rate_hz, 16_000);
        clip.samples
    })
}

fn temp(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// A WAV header as anyone could write it, true or not.
fn wav_header(tag: u16, channels: u16, rate: u32, bits: u16, data_bytes: u32) -> Vec<u8> {
    let block = channels.wrapping_mul(bits / 8);
    let mut h = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".to_vec();
    h.extend(tag.to_le_bytes());
    h.extend(channels.to_le_bytes());
    h.extend(rate.to_le_bytes());
    h.extend(rate.wrapping_mul(u32::from(block)).to_le_bytes());
    h.extend(block.to_le_bytes());
    h.extend(bits.to_le_bytes());
    h.extend(b"data");
    h.extend(data_bytes.to_le_bytes());
    h
}

/// Tones from 100 Hz to 6.5 kHz, one second.
fn tones(rate: u32) -> Vec<f32> {
    (0..rate)
        .map(|n| {
            let t = f64::from(n) / f64::from(rate);
            let hz = [100.0, 440.0, 1000.0, 2500.0, 3400.0, 5000.0, 6500.0]
                .into_iter()
                .filter(|hz| hz * 2.2 < f64::from(rate));
            hz.map(|hz| 0.1 * (std::f64::consts::TAU * hz * t).sin())
                .sum::<f64>() as f32
        })
        .collect()
}

/// Two good resamplers differ in the last percent of the band and in how they treat the ends; within, by rounding and by the
/// ripple of their filters (sox's is -96 dB or better at `rate -v`). 1e-3 is -60 dB.
#[test]
fn resampling_agrees_with_sox() {
    for rate in [
        8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000,
    ] {
        let signal = tones(rate);
        let rate_arg = rate.to_string();
        let args = [
            "-t", "f32", "-r", &rate_arg, "-c", "1", "-", "-t", "f32", "-r", "16000", "-", "rate",
            "-v",
        ];
        let want = f32s(&sox(&args, &bytes_of(&signal)));
        let mut resampler = Resampler::new(rate, 16_000).unwrap();
        let mut got = Vec::new();
        resampler.push(&signal, &mut got).unwrap();
        resampler.finish(&mut got).unwrap();
        assert_eq!(got.len(), 16_000, "one second from {rate} Hz");
        assert!(want.len().abs_diff(got.len()) <= 1);
        let error = relative_error(&got[800..15_200], &want[800..15_200]);
        assert!(
            error < 1e-3,
            "from {rate} Hz: relative error {error:.2e} against sox"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// How a stream is cut changes nothing at all.
    #[test]
    fn resampling_in_pieces_is_the_same(rate in prop::sample::select(vec![8000u32, 16_000, 22_050, 44_100, 47_999]), sizes in prop::collection::vec(1usize..3000, 1..8)) {
        let signal = tones(rate);
        let signal = &signal[..8000];
        let whole = {
            let mut out = Vec::new();
            let mut resampler = Resampler::new(rate, 16_000).unwrap();
            resampler.push(signal, &mut out).unwrap();
            resampler.finish(&mut out).unwrap();
            out
        };
        let mut pieces = Vec::new();
        let mut resampler = Resampler::new(rate, 16_000).unwrap();
        let mut rest = signal;
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, left) = rest.split_at((*size).min(rest.len()));
            resampler.push(piece, &mut pieces).unwrap();
            rest = left;
        }
        resampler.finish(&mut pieces).unwrap();
        prop_assert_eq!(whole, pieces);
    }

    /// Whatever the bytes are, opening them ends in samples or in an error, not in a panic.
    #[test]
    fn garbage_never_panics(kind in 0usize..5, flips in prop::collection::vec((0usize..2000, any::<u8>()), 0..24), cut in 0usize..4000) {
        let names = ["voice.wav", "voice.flac", "voice.ogg", "voice.mp3", "noise.bin"];
        let mut bytes = encoded(kind).clone();
        bytes.truncate(cut.max(1));
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let (_dir, path) = temp(names[kind], &bytes);
        let limits = AudioLimits { max_duration_s: 20, ..AudioLimits::default() };
        if let Ok(clip) = read_audio_file(&path, &limits) {
            prop_assert!(clip.samples.len() <= 20 * 16_000);
            prop_assert!(clip.samples.iter().all(|x| x.is_finite()));
        }
    }
}

/// The voice in each format, or something that is none.
fn encoded(kind: usize) -> &'static Vec<u8> {
    static FILES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    let files = FILES.get_or_init(|| {
        let mut files: Vec<_> = ["wav", "flac", "ogg", "mp3"]
            .iter()
            .map(|t| sox(&[VOICE, "-t", t, "-"], &[]))
            .collect();
        files.push(
            (0..4000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        );
        files
    });
    &files[kind]
}

/// Lossless files give the very samples; 24 bits and float keep what 16 bits hold.
#[test]
fn lossless_files_are_exact() {
    let want = voice();
    for args in [
        vec!["-t", "wav"],
        vec!["-b", "24", "-t", "wav"],
        vec!["-b", "32", "-t", "wav"],
        vec!["-e", "float", "-b", "32", "-t", "wav"],
        vec!["-e", "float", "-b", "64", "-t", "wav"],
        vec!["-t", "flac"],
        vec!["-c", "2", "-t", "wav"],
        vec!["-c", "2", "-t", "flac"],
    ] {
        let mut all = vec![VOICE];
        all.extend(&args);
        all.push("-");
        let (_dir, path) = temp("voice", &sox(&all, &[]));
        let got = read(&path).unwrap();
        assert_eq!(got.len(), want.len(), "{args:?}");
        assert!(relative_error(&got, &want) < 1e-6, "{args:?}");
    }
}

/// Lossy files sound as they do to sox. MP3 decoders differ in how much of the codec's delay they leave at the start, so that
/// the best shift of up to a tenth of a second is taken.
#[test]
fn lossy_files_agree_with_sox() {
    for (format, args, bound) in [
        ("ogg", vec!["-C", "8"], 1e-3),
        ("mp3", vec!["-C", "128"], 1e-3),
        // sox adds no dither when it writes floats: the difference is rounding.
        ("wav", vec!["-b", "8", "-e", "unsigned-integer"], 1e-6),
    ] {
        let mut all = vec![VOICE, "-t", format];
        all.extend(&args);
        all.push("-");
        let bytes = sox(&all, &[]);
        let want = f32s(&sox(&["-t", format, "-", "-t", "f32", "-"], &bytes));
        let (_dir, path) = temp("voice.bin", &bytes);
        let got = read(&path).unwrap();
        assert!(
            got.len().abs_diff(want.len()) <= 2400,
            "{format}: {} samples, expected {}",
            got.len(),
            want.len()
        );
        let middle = &want[4000..want.len() - 4000];
        // Where it begins, by a part of the samples; how far it is off there, by all.
        let rough = |at: &usize| {
            let both = got[*at..].iter().zip(middle).step_by(16);
            both.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let at = (2400..=5600usize).min_by(|a, b| rough(a).total_cmp(&rough(b)));
        let error = relative_error(&got[at.unwrap()..][..middle.len()], middle);
        assert!(
            error < bound,
            "{format}: relative error {error:.2e} against sox"
        );
    }
}

/// The voice at other rates and channel counts comes back as the voice.
#[test]
fn rates_and_channels() {
    let want = voice();
    for (rate, channels) in [
        (8000, 1),
        (11_025, 2),
        (44_100, 1),
        (48_000, 6),
        (192_000, 2),
        (16_000, 32),
        (48_000, 26),
    ] {
        let samples = f32s(&sox(
            &[
                VOICE,
                "-t",
                "f32",
                "-r",
                &rate.to_string(),
                "-",
                "rate",
                "-v",
            ],
            &[],
        ));
        let mut bytes = wav_header(
            3,
            channels,
            rate,
            32,
            (samples.len() * 4 * usize::from(channels)) as u32,
        );
        for x in &samples {
            for _ in 0..channels {
                bytes.extend(x.to_le_bytes());
            }
        }
        let (_dir, path) = temp("voice.wav", &bytes);
        let got = read(&path).unwrap();
        assert!(
            got.len().abs_diff(want.len()) <= 1,
            "{rate} Hz: {} samples",
            got.len()
        );
        // Through 8 and 11 kHz the upper band is lost.
        let bound = if rate < 16_000 { 0.3 } else { 0.03 };
        let error = relative_error(&got, &want);
        assert!(
            error < bound,
            "{rate} Hz, {channels} channels: relative error {error}"
        );
    }
}

#[test]
fn channels_are_averaged() {
    let mut bytes = wav_header(1, 2, 16_000, 16, 4 * 600);
    for i in 0..600i16 {
        bytes.extend((i * 10).to_le_bytes());
        bytes.extend((i * 30).to_le_bytes());
    }
    let (_dir, path) = temp("a.wav", &bytes);
    let got = read(&path).unwrap();
    assert!(
        got.iter()
            .enumerate()
            .all(|(i, &x)| (x - i as f32 * 20.0 / 32768.0).abs() < 1e-7)
    );
}

/// A file that lost its end gives what it has, and says so; a pipe's unknown length is no damage.
#[test]
fn cut_files_give_what_they_have() {
    let whole = voice();
    for (kind, cut) in [(0, 44 + 2 * 30_001), (1, 20_000), (2, 9_000), (3, 9_000)] {
        let bytes = &encoded(kind)[..cut.min(encoded(kind).len() * 2 / 3)];
        let (_dir, path) = temp("cut", bytes);
        let mut reader = AudioReader::open(&path, &AudioLimits::default()).unwrap();
        let mut got = Vec::new();
        while reader.read(&mut got).unwrap() {}
        assert!(
            got.len() > 8000 && got.len() < whole.len(),
            "format {kind}: {} samples",
            got.len()
        );
        if kind == 0 {
            assert_eq!(
                got[..],
                whole[..30_001],
                "not one sample of a cut WAV file may be lost"
            );
            assert!(reader.damage().unwrap().contains("shorter"));
        }
    }
    for unknown in [0xFFFF_FFFF, 0x7FFF_FFFF] {
        let mut bytes = wav_header(1, 1, 16_000, 16, unknown);
        bytes.extend(vec![1; 2000]);
        let mut reader = PcmReader::wav(&bytes[..]).unwrap();
        let mut got = Vec::new();
        while reader.read(&mut got).unwrap() {}
        assert_eq!((got.len(), reader.truncated()), (1000, false));
    }
}

#[test]
fn silence_and_ten_milliseconds_are_audio() {
    for samples in [160u32, 16_000] {
        let mut bytes = wav_header(1, 1, 16_000, 16, samples * 2);
        bytes.extend(vec![0; samples as usize * 2]);
        let (_dir, path) = temp("silence.wav", &bytes);
        assert_eq!(read(&path).unwrap(), vec![0.0; samples as usize]);
    }
}

/// Samples that are not numbers would poison every frame after them.
#[test]
fn not_a_number_becomes_silence() {
    let mut bytes = wav_header(3, 1, 16_000, 32, 16);
    bytes.extend(bytes_of(&[0.5, f32::NAN, f32::INFINITY, -0.5]));
    let (_dir, path) = temp("nan.wav", &bytes);
    assert_eq!(read(&path).unwrap(), vec![0.5, 0.0, 0.0, -0.5]);
}

#[test]
fn what_cannot_be_read_is_refused_clearly() {
    let error = |bytes: &[u8]| {
        let (_dir, path) = temp("bad.wav", bytes);
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.contains("bad.wav"),
            "the file is not named: {message}"
        );
        message
    };
    assert!(error(b"").contains("no bytes"));
    assert!(error(&wav_header(1, 1, 16_000, 16, 0)).contains("no audio samples"));
    assert!(error(b"RIFF").contains("cut off"));
    assert!(error(&wav_header(1, 1, 16_000, 16, 100)[..30]).contains("cut off"));
    assert!(error(&wav_header(1, 0, 16_000, 16, 100)).contains("0 channels"));
    assert!(error(&wav_header(1, 1, 0, 16, 100)).contains("cannot resample from 0 Hz"));
    assert!(error(&wav_header(1, 1, u32::MAX, 16, 100)).contains("4294967295 Hz"));
    assert!(error(&wav_header(1, 1, 16_000, 64, 100)).contains("samples of 8 bytes"));
    assert!(
        error(&wav_header(1, 60_000, 16_000, 8, 100))
            .contains("60000 channels, more than the 64 that `max_channels` allows")
    );
    assert!(error(b"this is a text, not a song").contains("not audio"));
    assert!(
        error(
            &std::fs::read(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/tiny-a/golden/icon.png"
            ))
            .unwrap()
        )
        .contains("not audio")
    );
    let missing = read(Path::new("/nowhere/voice.wav"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("/nowhere/voice.wav") && missing.contains("No such file"),
        "{missing}"
    );
    assert!(
        read(Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
}

#[test]
fn limits_are_kept() {
    let refusal = |limits: AudioLimits| {
        read_audio_file(Path::new(VOICE), &limits)
            .unwrap_err()
            .to_string()
    };
    let default = AudioLimits::default();
    assert!(
        refusal(AudioLimits {
            max_file_bytes: 1000,
            ..default.clone()
        })
        .contains("`max_file_bytes`")
    );
    assert!(
        refusal(AudioLimits {
            max_duration_s: 2,
            ..default
        })
        .contains("`max_duration_s`")
    );
}
