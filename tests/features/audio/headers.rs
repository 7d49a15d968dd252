//! Headers that were never finished or contradict themselves, and files of other kinds.

use gemmad::features::audio_file::{AudioLimits, AudioReader};
use gemmad::features::wav::PcmReader;

use super::{VOICE, read, sox, temp, voice, wav_header};

fn samples(bytes: &[u8]) -> (Vec<f32>, bool, bool) {
    let mut reader = PcmReader::wav(bytes).unwrap();
    let mut got = Vec::new();
    while reader.read(&mut got).unwrap() {}
    (got, reader.truncated(), reader.unfinished())
}

/// A pipe that puts 0 for "unknown", and a recorder that lost its power before it came to say how much there is.
#[test]
fn a_header_that_promises_nothing_is_read_to_the_end() {
    let want = voice();
    let mut bytes = std::fs::read(VOICE).unwrap();
    let rest = bytes.len() - 44;
    assert_eq!((want.len() * 2, &bytes[36..40]), (rest, &b"data"[..]));
    for riff in [0_u32, 36, u32::MAX] {
        bytes[4..8].copy_from_slice(&riff.to_le_bytes());
        bytes[40..44].fill(0);
        assert_eq!(samples(&bytes), (want.clone(), false, true));
        let (_dir, path) = temp("size0.wav", &bytes);
        let mut reader = AudioReader::open(&path, &AudioLimits::default()).unwrap();
        let mut got = Vec::new();
        while reader.read(&mut got).unwrap() {}
        assert_eq!(got, want);
        assert!(reader.damage().unwrap().contains("never finished"));
    }
    // However little there is.
    for frames in [1, 2, 3] {
        assert_eq!(
            samples(&bytes[..44 + 2 * frames]),
            (want[..frames].to_vec(), false, true)
        );
    }
    let (got, truncated, _) = samples(&bytes[..44 + 3]);
    assert_eq!((got.len(), truncated), (1, true));
    let mut wide = wav_header(3, 2, 16_000, 64, 0);
    wide.extend(0.5_f64.to_le_bytes().repeat(4));
    assert_eq!(samples(&wide).0, vec![0.5; 4]);
}

#[test]
fn a_file_that_really_ends_there_is_empty() {
    let header = wav_header(1, 1, 16_000, 16, 0);
    assert_eq!(samples(&header), (Vec::new(), false, false));
    for name in [b"LIST", b"id3 ", b"bext"] {
        let bytes = [&header[..], name, &8_u32.to_le_bytes(), b"INFOISFT"].concat();
        assert_eq!(samples(&bytes), (Vec::new(), false, false));
        let (_dir, path) = temp("empty.wav", &bytes);
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("no audio samples")
        );
    }
}

/// Longer than 4 GiB: the size stands in a chunk of its own, and what comes behind the samples is none.
#[test]
fn rf64_is_wav() {
    let want = voice();
    let wav = std::fs::read(VOICE).unwrap();
    for name in [b"RF64", b"BW64"] {
        let mut bytes = name.to_vec();
        bytes.extend(b"\xff\xff\xff\xffWAVEds64\x1c\0\0\0");
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend((wav.len() as u64 - 44).to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(&wav[12..40]);
        bytes.extend(b"\xff\xff\xff\xff");
        bytes.extend(&wav[44..]);
        bytes.extend(b"LIST\x04\0\0\0INFO");
        let (_dir, path) = temp("long.wav", &bytes);
        assert_eq!(read(&path).unwrap(), want);
    }
}

/// A header says three times how long a sample is. Two that agree are believed, as sox does; where none do, it says which.
#[test]
fn block_align_that_contradicts_the_bits() {
    let want = voice();
    let wav = std::fs::read(VOICE).unwrap();
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = wav.clone();
        edit(&mut bytes);
        bytes
    };
    for block in [0_u8, 1, 4, 6] {
        let bytes = with(&|bytes| bytes[32] = block);
        let (_dir, path) = temp("block.wav", &bytes);
        assert_eq!(read(&path).unwrap(), want, "blocks of {block}");
    }
    for bits in [0_u8, 12, 13, 24] {
        let bytes = with(&|bytes| bytes[34] = bits);
        let (_dir, path) = temp("bits.wav", &bytes);
        assert_eq!(read(&path).unwrap(), want, "{bits} bits");
    }
    let rate = with(&|bytes| bytes[28..32].fill(0));
    let (_dir, path) = temp("rate.wav", &rate);
    assert_eq!(read(&path).unwrap(), want, "no bytes a second");
    // 24 bits at the top of 4 bytes.
    let bytes = sox(&[VOICE, "-b", "32", "-t", "wavpcm", "-"], &[]);
    let mut bytes = bytes;
    bytes[34] = 24;
    let (_dir, path) = temp("top.wav", &bytes);
    assert_eq!(read(&path).unwrap(), want);
    // Blocks and bytes a second of one channel, of two that there are: written by hand, and often.
    for bits in ["16", "24", "32"] {
        let mut bytes = sox(&[VOICE, "-c", "2", "-b", bits, "-t", "wavpcm", "-"], &[]);
        let sample: u16 = bits.parse::<u16>().unwrap() / 8;
        bytes[28..32].copy_from_slice(&(16_000 * u32::from(sample)).to_le_bytes());
        bytes[32..34].copy_from_slice(&sample.to_le_bytes());
        let (_dir, path) = temp("channels.wav", &bytes);
        assert_eq!(read(&path).unwrap(), want, "{bits} bits in two channels");
    }
    // Of two channels, or of anything else, and there is one.
    for block in [1_u8, 3, 4, 6] {
        let bytes = with(&|bytes| {
            bytes[28..32].copy_from_slice(&(16_000 * u32::from(block)).to_le_bytes());
            bytes[32] = block;
        });
        let (_dir, path) = temp("hand.wav", &bytes);
        assert_eq!(read(&path).unwrap(), want, "blocks and seconds of {block}");
        let path = path.to_str().unwrap();
        let by_sox = sox(&[path, "-b", "16", "-t", "wavpcm", "-"], &[]);
        assert_eq!(
            by_sox[44..],
            wav[44..],
            "sox, blocks and seconds of {block}"
        );
    }
    let torn = with(&|bytes| {
        bytes[32] = 4;
        bytes[28..32].fill(0);
    });
    let (_dir, path) = temp("torn.wav", &torn);
    let error = read(&path).unwrap_err().to_string();
    for part in [
        "16 bits in 1 channels",
        "blocks of 2 bytes",
        "32000 bytes a second",
        "says 4 and 0",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// What is not read is told by its name, with what to do.
#[test]
fn other_files_are_told_by_name() {
    let told = |name: &str, bytes: &[u8]| {
        let (_dir, path) = temp("sound.bin", bytes);
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("sound.bin") && error.contains(name),
            "{name}: {error}"
        );
        error
    };
    // As sox writes them.
    for (kind, name) in [("aiff", "AIFF"), ("au", "Sun audio"), ("caf", "Core Audio")] {
        let made = std::process::Command::new("sox")
            .args([VOICE, "-t", kind, "-"])
            .output()
            .unwrap();
        if made.status.success() {
            assert!(told(name, &made.stdout).contains("ffmpeg"));
        } else {
            assert_eq!(kind, "caf", "sox needs a library for that one");
        }
    }
    let ima = sox(&[VOICE, "-e", "ima-adpcm", "-t", "wav", "-"], &[]);
    assert!(told("IMA ADPCM in WAV", &ima).contains("ffmpeg"));
    let gsm = sox(
        &[VOICE, "-r", "8000", "-e", "gsm-full-rate", "-t", "wav", "-"],
        &[],
    );
    told("GSM 6.10 in WAV", &gsm);
    // As the formats' specifications have them.
    let ebml = |kind: &str| {
        [
            b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82",
            kind.as_bytes(),
            &[0; 64],
        ]
        .concat()
    };
    let ogg = |codec: &[u8]| {
        [
            b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x13",
            codec,
            &[0; 64],
        ]
        .concat()
    };
    let files: [(&str, Vec<u8>); 16] = [
        ("Matroska", ebml("\u{88}matroska")),
        ("WebM", ebml("\u{84}webm")),
        ("MPEG-4 audio (M4A)", b"\0\0\0\x20ftypM4A \0\0\0\0".to_vec()),
        ("MPEG-4 (MP4)", b"\0\0\0\x20ftypisom\0\0\0\0".to_vec()),
        ("3GPP", b"\0\0\0\x20ftyp3gp4\0\0\0\0".to_vec()),
        ("QuickTime", b"\0\0\0\x14ftypqt  \0\0\0\0".to_vec()),
        ("AMR", b"#!AMR\n\x3c\x48".to_vec()),
        ("AMR wide band", b"#!AMR-WB\n\x24".to_vec()),
        ("Core Audio", b"caff\0\x01\0\0desc".to_vec()),
        (
            "Windows Media",
            b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9".to_vec(),
        ),
        ("AAC", b"\xff\xf1\x50\x80\x02\x1f\xfc\x21".to_vec()),
        ("Opus in OGG", ogg(b"OpusHead\x01\x01")),
        ("Speex in OGG", ogg(b"Speex   1.2")),
        ("big-endian", b"RIFX\0\0\0\x24WAVEfmt ".to_vec()),
        ("WavPack", b"wvpk\0\0\0\0".to_vec()),
        (
            "Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid".to_vec(),
        ),
    ];
    for (name, bytes) in files {
        let error = told(name, &bytes);
        assert!(
            error.contains("ffmpeg") || error.contains("git lfs pull"),
            "{error}"
        );
    }
    assert!(told("a picture", b"\xff\xd8\xff\xe0\0\x10JFIF").contains("gemmad describe"));
}
