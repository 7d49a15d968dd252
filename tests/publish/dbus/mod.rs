//! org.gemmad1 on a dbus-daemon of its own, called by libdbus, busctl and gdbus; the test stands in the daemon's place.

mod faults;
mod inputs;
mod jobs;
mod objects;
mod policy;
mod service;

use gemmad::media::CaptionTrigger;
use gemmad::report::{CaptionEvent, EventType, Report, ReportTiming, VoiceEvent};

pub(crate) const ROOT: &str = "/org/gemmad1";
pub(crate) const MANAGER: &str = "org.gemmad1.Manager";
pub(crate) const JOB: &str = "org.gemmad1.Job";

pub(crate) fn voice(text: &str) -> Report {
    Report::Voice(Box::new(VoiceEvent {
        schema: 1,
        id: "01JDEXAMPLE".to_owned(),
        event_type: EventType::Transcript,
        ts: "2026-11-24T12:00:01+01:00".to_owned(),
        clock_synced: true,
        source: "front-room".to_owned(),
        wake_word: None,
        conversation: None,
        language: "English".to_owned(),
        text: Some(text.to_owned()),
        command: None,
        commands: Vec::new(),
        confidence: None,
        audio_s: 1.5,
        truncated: false,
        reason: None,
        model: "tiny".to_owned(),
        matformer: "e4b".to_owned(),
        timing: ReportTiming::default(),
    }))
}

pub(crate) fn caption(text: &str, image: Option<&[u8]>) -> Report {
    let event = Box::new(CaptionEvent {
        schema: 1,
        id: "01JDEXAMPLE".to_owned(),
        event_type: EventType::Caption,
        ts: "2026-11-24T12:00:01+01:00".to_owned(),
        clock_synced: true,
        source: "porch".to_owned(),
        caption: text.to_owned(),
        short: text.to_owned(),
        trigger: CaptionTrigger::Motion,
        motion_area: Some(0.25),
        motion_box: Some([0.0, 0.0, 0.5, 0.5]),
        frigate: None,
        scene: None,
        frame_ts: "2026-11-24T12:00:00+01:00".to_owned(),
        image_sha256: String::new(),
        reason: None,
        model: "tiny".to_owned(),
        matformer: "e4b".to_owned(),
        timing: ReportTiming::default(),
    });
    Report::Caption {
        event,
        image: image.map(Into::into),
    }
}

/// The error's name without the prefix, and what it says.
pub(crate) fn error<T: std::fmt::Debug>(result: Result<T, (String, String)>) -> (String, String) {
    let (name, message) = result.unwrap_err();
    (
        name.strip_prefix("org.gemmad1.Error.")
            .unwrap_or(&name)
            .to_owned(),
        message,
    )
}
