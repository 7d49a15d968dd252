//! What was said and when, as subtitles: SubRip and WebVTT.

/// A stretch of sound, and what was said in it.
pub(super) struct Segment {
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    pub(super) text: String,
    /// Whether somebody spoke at all.
    pub(super) speech: bool,
}

fn time(seconds: f64, point: char) -> String {
    let ms = (seconds * 1e3).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!(
        "{:02}:{:02}:{:02}{point}{ms:03}",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

/// An arrow within a text would end it.
fn line(text: &str) -> String {
    text.replace("-->", "->").replace(['\n', '\r'], " ")
}

/// SubRip.
pub(super) fn srt(segments: &[Segment]) -> String {
    let mut text = String::new();
    for (at, said) in spoken(segments).enumerate() {
        let (start, end) = (time(said.start_s, ','), time(said.end_s, ','));
        text.push_str(&format!(
            "{}\n{start} --> {end}\n{}\n\n",
            at + 1,
            line(&said.text)
        ));
    }
    text
}

/// WebVTT.
pub(super) fn vtt(segments: &[Segment]) -> String {
    let mut text = "WEBVTT\n\n".to_owned();
    for said in spoken(segments) {
        let (start, end) = (time(said.start_s, '.'), time(said.end_s, '.'));
        text.push_str(&format!("{start} --> {end}\n{}\n\n", line(&said.text)));
    }
    text
}

fn spoken(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| !segment.text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtitles_are_written_as_players_read_them() {
        let segment = |start_s, end_s, text: &str| Segment {
            start_s,
            end_s,
            text: text.to_owned(),
            speech: !text.is_empty(),
        };
        let said = [
            segment(0.0, 27.25, "hello --> there"),
            segment(27.25, 40.0, ""),
            segment(3661.5, 3662.0009, "bye\nbye"),
        ];
        assert_eq!(
            srt(&said),
            "1\n00:00:00,000 --> 00:00:27,250\nhello -> there\n\n2\n01:01:01,500 --> 01:01:02,001\nbye bye\n\n"
        );
        assert_eq!(
            vtt(&said[..1]),
            "WEBVTT\n\n00:00:00.000 --> 00:00:27.250\nhello -> there\n\n"
        );
    }
}
