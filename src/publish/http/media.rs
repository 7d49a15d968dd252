//! Pictures and sounds in requests: as base64, and nothing else. What is an address is not fetched.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::fault::Fault;
use crate::report::Attachment;
use crate::report::chat::Said;

/// Padded or not: both are sent.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of base64, line ends left out; `at` is where it stands in the request.
pub(super) fn base64(text: &str, at: &str) -> Result<Attachment, Fault> {
    let lines = |c: char| matches!(c, '\n' | '\r');
    let decoded = match text.contains(lines) {
        true => LENIENT.decode(text.replace(lines, "")),
        false => LENIENT.decode(text),
    };
    match decoded {
        Ok(bytes) if bytes.is_empty() => Err(Fault::invalid(at, format!("{at} is empty"))),
        Ok(bytes) => Ok(Attachment(bytes.into())),
        Err(error) => Err(Fault::invalid(
            at,
            format!("{at} is not base64 (RFC 4648): {error}"),
        )),
    }
}

/// A picture of a `data:` address.
pub(super) fn picture(url: &str, at: &str) -> Result<Said, Fault> {
    let Some(data) = url
        .get(..5)
        .filter(|scheme| scheme.eq_ignore_ascii_case("data:"))
    else {
        let message = format!(
            "{at} is no data: address; nothing is fetched here: send the picture itself, as data:image/jpeg;base64,..."
        );
        return Err(Fault::invalid(at, message));
    };
    let (kind, data) = url[data.len()..]
        .split_once(',')
        .ok_or_else(|| Fault::invalid(at, format!("{at} has no comma in front of its data")))?;
    if !kind.to_ascii_lowercase().ends_with(";base64") {
        return Err(Fault::invalid(
            at,
            format!("{at} is not in base64: write data:image/jpeg;base64,..."),
        ));
    }
    base64(data, at).map(Said::Picture)
}

/// A picture or a sound, by its first bytes: Ollama's clients put both into one list.
pub(super) fn either(text: &str, at: &str) -> Result<Said, Fault> {
    // Some send what a browser gave them.
    let data = match text.split_once(";base64,") {
        Some((kind, data)) if kind.starts_with("data:") => data,
        _ => text,
    };
    let bytes = base64(data, at)?;
    Ok(if is_sound(&bytes.0) {
        Said::Sound(bytes)
    } else {
        Said::Picture(bytes)
    })
}

/// Whether a file begins as sounds do.
fn is_sound(bytes: &[u8]) -> bool {
    let wav = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE");
    let mp3 = matches!(bytes, [0xff, second, ..] if second & 0xe6 == 0xe2);
    wav || mp3
        || [&b"fLaC"[..], b"OggS", b"ID3"]
            .iter()
            .any(|start| bytes.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_with_the_request_or_not_at_all() {
        let bytes = Said::Picture(Attachment(b"foob"[..].into()));
        // RFC 4648, section 10.
        for good in [
            "data:image/jpeg;base64,Zm9vYg==",
            "DATA:image/png;charset=x;BASE64,Zm9vYg",
            "data:;base64,Zm9v\r\nYg==",
        ] {
            assert_eq!(picture(good, "at"), Ok(bytes.clone()), "{good}");
        }
        for bad in [
            "http://192.168.1.1/a.jpg",
            "https://x",
            "file:///etc/passwd",
            "/etc/passwd",
            "",
            "data:",
            "data:image/png,x",
            "data:image/png;base64,",
            "data:image/png;base64,####",
            "data:image/png;base64,Zm9vY",
        ] {
            assert!(
                picture(bad, "messages[0].content[1].image_url.url").is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn sounds_and_pictures_are_told_apart() {
        for (start, sound) in [
            (&b"RIFF\0\0\0\0WAVEfmt "[..], true),
            (b"RIFF\0\0\0\0WEBPVP8 ", false),
            (b"\xff\xfb\x90\0", true),
            (b"\xff\xd8\xff\xe0", false),
            (b"\x89PNG", false),
            (b"ID3\x04", true),
            (b"OggS", true),
            (b"fLaC", true),
        ] {
            assert_eq!(is_sound(start), sound, "{start:?}");
        }
    }
}
