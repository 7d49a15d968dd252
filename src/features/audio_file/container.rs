//! Files that hold sound and are not read here, told by their first bytes, so that a person can convert them.

/// Bytes that are looked at.
pub(crate) const START_BYTES: usize = 128;

/// What to do with every one of them.
pub(super) const CONVERT: &str =
    "convert it first, for example with `ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav`";

/// What a file is that begins like this, and what to do; `None` for what is read here, and for what nobody knows.
///
/// Source: the signatures that each format's specification gives.
pub(crate) fn not_read(start: &[u8]) -> Option<String> {
    if start.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Some("it is a Git LFS pointer, which stands for the real file: run `git lfs pull` in its directory".to_owned());
    }
    let name = name(start)?;
    Some(match name {
        "a picture" => "it is a picture: `gemmad describe` takes those".to_owned(),
        name => format!("it is {name}, which is not read here: {CONVERT}"),
    })
}

fn name(start: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, word: &[u8]| {
        start
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(word))
    };
    let holds = |word: &[u8]| start.windows(word.len()).any(|window| window == word);
    const BEGINNINGS: [(&[u8], &str); 19] = [
        (b"#!AMR-WB", "AMR wide band"),
        (b"#!AMR", "AMR"),
        (b"#!SILK", "SILK"),
        (b"caff", "Core Audio (CAF)"),
        (
            b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
            "Windows Media (ASF, WMA)",
        ),
        (b"riff\x2e\x91\xcf\x11", "Wave64"),
        (b"RIFX", "WAV in big-endian byte order (RIFX)"),
        (b".snd", "Sun audio (AU)"),
        (b"wvpk", "WavPack"),
        (b"MAC ", "Monkey's Audio"),
        (b"TTA", "True Audio"),
        (b"ADIF", "AAC"),
        (b"MPCK", "Musepack"),
        (b"MThd", "MIDI, which holds notes and no sound"),
        (b"FLV", "Flash video"),
        (b"\0\0\x01\xba", "an MPEG program stream"),
        (b"\x89PNG", "a picture"),
        (b"\xff\xd8\xff", "a picture"),
        (b"PK\x03\x04", "a ZIP archive"),
    ];
    if let Some((_, name)) = BEGINNINGS.iter().find(|(word, _)| at(0, word)) {
        return Some(name);
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        let web = holds(b"webm");
        return Some(if web { "WebM" } else { "Matroska (MKV, MKA)" });
    }
    if at(4, b"ftyp") {
        return Some(match start.get(8..11) {
            Some(b"M4A" | b"M4B") => "MPEG-4 audio (M4A)",
            Some(b"3gp" | b"3g2") => "3GPP",
            Some(b"qt ") => "QuickTime",
            _ => "MPEG-4 (MP4)",
        });
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Some("AIFF");
    }
    if at(0, b"RIFF") && at(8, b"AVI ") {
        return Some("AVI");
    }
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return Some("a picture");
    }
    if at(0, b"OggS") {
        let codecs: [(&[u8], &str); 3] = [
            (b"OpusHead", "Opus in OGG"),
            (b"Speex   ", "Speex in OGG"),
            (b"\x80theora", "Theora in OGG"),
        ];
        let found = codecs.iter().find(|(word, _)| holds(word));
        return found.map(|(_, name)| *name);
    }
    // A frame of AAC begins as one of MP3 does, but for the two bits of the layer.
    let aac = matches!(start, [0xff, second, ..] if second & 0xf6 == 0xf0);
    aac.then_some("AAC (ADTS)")
}

/// Whether a stream that begins like this is a file of some kind rather than raw samples.
pub(crate) fn is_file(start: &[u8]) -> bool {
    const READ: [&[u8]; 3] = [b"fLaC", b"OggS", b"ID3"];
    READ.iter().any(|word| start.starts_with(word))
        || name(start).is_some_and(|name| name != "AAC (ADTS)")
}

/// What codec a format tag of WAV stands for, where it is a common one.
///
/// Source: RFC 2361 and the registrations after it.
pub(crate) fn wav_codec(tag: u16) -> Option<&'static str> {
    Some(match tag {
        0x0002 => "Microsoft ADPCM",
        0x0006 => "A-law",
        0x0007 => "mu-law",
        0x0011 => "IMA ADPCM",
        0x0022 => "TrueSpeech",
        0x0031 => "GSM 6.10",
        0x0040 | 0x0045 | 0x0064 => "G.726",
        0x0050 => "MPEG layer 2",
        0x0055 => "MP3",
        0x00ff | 0x1600 | 0x1602 | 0x1610 => "AAC",
        0x0161..=0x0163 => "Windows Media Audio",
        0x2000 => "AC-3",
        0x674f..=0x6771 => "Vorbis",
        0xf1ac => "FLAC",
        _ => return None,
    })
}
