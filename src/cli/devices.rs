//! `gemmad devices`: the microphones, cameras and loudspeakers of this machine, ready to paste into gemmad.toml.

use std::io::Write;

use serde::Serialize;

use super::failure::Failure;
use super::output;
use crate::capture::{
    CameraDevice, MicrophoneDevice, SpeakerDevice, cameras, microphones, speakers,
};
use crate::guard::harmless;

/// List microphones, cameras and loudspeakers, ready to paste into gemmad.toml
#[derive(Debug, clap::Args)]
pub(super) struct Devices {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` tells.
#[derive(Serialize)]
struct Report {
    microphones: Vec<MicrophoneReport>,
    cameras: Vec<CameraReport>,
    speakers: Vec<SpeakerReport>,
    /// What hinders listing.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct MicrophoneReport {
    device: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    formats: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates_hz: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct SpeakerReport {
    device: String,
    description: String,
    /// Rate, format, channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    takes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct CameraReport {
    device: String,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<String>,
    formats: Vec<FormatReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct FormatReport {
    code: String,
    understood: bool,
    sizes: Vec<String>,
}

impl Devices {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (microphones, mut problems) = match microphones() {
            Ok(microphones) => (microphones, Vec::new()),
            Err(problem) => (Vec::new(), vec![problem]),
        };
        let speakers = speakers().unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        });
        problems.dedup();
        let report = Report {
            microphones: microphones.into_iter().map(microphone_report).collect(),
            cameras: cameras().into_iter().map(camera_report).collect(),
            speakers: speakers.into_iter().map(speaker_report).collect(),
            problems,
        };
        let text = if self.json {
            output::pretty_json(&report)? + "\n"
        } else {
            report.toml()?
        };
        let mut out = output::out();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

fn microphone_report(device: MicrophoneDevice) -> MicrophoneReport {
    let (formats, problem) = match device.formats {
        Ok(formats) => (Some(formats), None),
        Err(problem) => (None, Some(problem)),
    };
    MicrophoneReport {
        device: device.name,
        description: device.description,
        rates_hz: formats.as_ref().map(|formats| formats.rates_hz),
        channels: formats.as_ref().map(|formats| formats.channels),
        formats: formats.map(|formats| formats.formats),
        problem,
    }
}

fn speaker_report(device: SpeakerDevice) -> SpeakerReport {
    let (takes, problem) = match device.takes {
        Ok(takes) => (Some(takes), None),
        Err(problem) => (None, Some(problem)),
    };
    SpeakerReport {
        device: device.name,
        description: device.description,
        takes,
        problem,
    }
}

fn camera_report(device: CameraDevice) -> CameraReport {
    let (about, problem) = match device.about {
        Ok(about) => (Some(about), None),
        Err(problem) => (None, Some(problem)),
    };
    let (card, bus, formats) = match about {
        Some(about) => (Some(about.card), Some(about.bus), about.formats),
        None => (None, None, Vec::new()),
    };
    CameraReport {
        device: device.path.display().to_string(),
        node: device.node.display().to_string(),
        card,
        bus,
        formats: formats
            .into_iter()
            .map(|format| FormatReport {
                code: format.code,
                understood: format.understood,
                sizes: format.sizes,
            })
            .collect(),
        problem,
    }
}

impl Report {
    /// Sections of gemmad.toml; what cannot be used, and what is only told, stands behind `#`.
    fn toml(&self) -> std::io::Result<String> {
        let mut text = String::new();
        for problem in &self.problems {
            line(&mut text, &format!("# {problem}"));
        }
        let usable = |m: &&MicrophoneReport| m.problem.is_none();
        for (i, microphone) in self.microphones.iter().filter(usable).enumerate() {
            if !microphone.description.is_empty() {
                line(&mut text, &format!("# {}", microphone.description));
            }
            if let (Some(formats), Some(rates), Some(channels)) = (
                &microphone.formats,
                microphone.rates_hz,
                microphone.channels,
            ) {
                let formats = formats.join(", ");
                line(
                    &mut text,
                    &format!(
                        "# {formats}; {} to {} Hz; {} to {} channels",
                        rates[0], rates[1], channels[0], channels[1]
                    ),
                );
            }
            section(&mut text, "microphone", i, &microphone.device)?;
        }
        for microphone in self.microphones.iter().filter(|m| m.problem.is_some()) {
            let problem = microphone.problem.as_deref().unwrap_or_default();
            line(&mut text, &format!("# Not usable: {problem}"));
        }
        if !self.microphones.iter().any(|m| m.problem.is_none()) {
            line(
                &mut text,
                "# No microphone can be used: plug one in; as a user who is not in the group `audio` none is shown \
                 (sudo usermod -aG audio USER, then log in again).",
            );
        }
        text.push('\n');
        let usable = |c: &&CameraReport| c.formats.iter().any(|format| format.understood);
        for (i, camera) in self.cameras.iter().filter(usable).enumerate() {
            let about = [&camera.card, &camera.bus].map(|text| text.as_deref().unwrap_or("?"));
            line(
                &mut text,
                &format!("# {} ({}), {}", about[0], about[1], camera.node),
            );
            for format in &camera.formats {
                let note = if format.understood {
                    ""
                } else {
                    " (not understood)"
                };
                let sizes = format.sizes.join(", ");
                line(&mut text, &format!("# {}{note}: {sizes}", format.code));
            }
            section(&mut text, "camera", i, &camera.device)?;
        }
        for camera in self.cameras.iter().filter(|camera| !usable(camera)) {
            let codes: Vec<&str> = camera.formats.iter().map(|f| f.code.as_str()).collect();
            let problem = camera.problem.clone().unwrap_or_else(|| {
                format!(
                    "{} gives {} only; CSI cameras need type = \"http\" (rpicam, go2rtc)",
                    camera.device,
                    codes.join(", ")
                )
            });
            line(&mut text, &format!("# Not usable: {problem}"));
        }
        if !self.cameras.iter().any(|camera| usable(&camera)) {
            line(
                &mut text,
                "# No camera can be used: plug one in, or let another program serve its pictures and use type = \"http\"; \
                 cameras belong to the group `video`.",
            );
        }
        text.push('\n');
        self.speakers_toml(&mut text)?;
        Ok(text)
    }

    /// One loudspeaker may be configured: the first that converts what it is given, and the others to choose from.
    fn speakers_toml(&self, text: &mut String) -> std::io::Result<()> {
        let usable = |speaker: &&SpeakerReport| speaker.problem.is_none();
        let mut others: Vec<&SpeakerReport> = self.speakers.iter().filter(usable).collect();
        let plug = others
            .iter()
            .position(|it| it.device.starts_with("plughw:"));
        if others.is_empty() {
            line(
                text,
                "# No loudspeaker can be used: plug one in; loudspeakers belong to the group `audio`.",
            );
        } else {
            let first = others.remove(plug.unwrap_or(0));
            about(text, first);
            line(text, "[speaker]");
            line(text, &format!("device = {}", output::json(&first.device)?));
        }
        for other in others {
            about(text, other);
            line(
                text,
                &format!("# device = {}", output::json(&other.device)?),
            );
        }
        for speaker in &self.speakers {
            if let Some(problem) = &speaker.problem {
                line(text, &format!("# Not usable: {problem}"));
            }
        }
        Ok(())
    }
}

fn about(text: &mut String, speaker: &SpeakerReport) {
    let takes = speaker.takes.as_deref().unwrap_or_default();
    let told = [speaker.description.as_str(), takes];
    let told: Vec<&str> = told.into_iter().filter(|it| !it.is_empty()).collect();
    line(text, &format!("# {}", told.join("; ")));
}

fn section(text: &mut String, kind: &str, index: usize, device: &str) -> std::io::Result<()> {
    let id = if index == 0 {
        kind.to_owned()
    } else {
        format!("{kind}-{}", index + 1)
    };
    line(text, &format!("[[{kind}]]"));
    line(text, &format!("id = \"{id}\""));
    // A string of JSON is one of TOML, and its escapes are the same.
    line(text, &format!("device = {}", output::json(&device)?));
    text.push('\n');
    Ok(())
}

/// What devices call themselves comes from outside.
fn line(text: &mut String, content: &str) {
    text.push_str(&harmless::line(content));
    text.push('\n');
}
