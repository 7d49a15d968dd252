//! Microphones and cameras: those that are configured, tried, and whether the device nodes may be opened at all.

use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::Finding;
use crate::capture::options::{CameraOptions, CameraType, MicrophoneOptions};
use crate::capture::{try_camera, try_microphone, try_speaker};
use crate::config::Config;
use crate::features::image::ImageLimits;
use crate::media::VideoFrame;

/// Listens for a moment. A device that is taken is no fault while a daemon is `running`.
pub(in crate::cli) fn microphone(microphone: &MicrophoneOptions, running: bool) -> Finding {
    let id = &microphone.id;
    match try_microphone(microphone) {
        Ok(level) if level == f32::NEG_INFINITY => Finding::warning(
            "microphone",
            format!("{id}: {} gives digital silence", microphone.device),
            "is it switched off, or muted in the mixer (alsamixer, F4)? is it the right device (gemmad devices)?",
        ),
        Ok(level) => Finding::ok(
            "microphone",
            format!(
                "{id}: {} gives sound ({level:.0} dB full scale)",
                microphone.device
            ),
        ),
        Err(reason) => unusable("microphone", id, &reason, running),
    }
}

/// Loads the models of its wake words, where it has some.
pub(super) fn wake_words(microphone: &MicrophoneOptions) -> Option<Finding> {
    let id = &microphone.id;
    match microphone.wake_words() {
        Ok(words) if words.is_empty() => None,
        Ok(words) => Some(Finding::ok(
            "wake words",
            format!("{id} is woken by {}", words.join(", ")),
        )),
        Err(reason) => Some(Finding::failing(
            "wake words",
            reason,
            "docs/wake.md says where there are models",
        )),
    }
}

/// Opens the speaker's device, without a sound. One that is taken is no fault while a daemon is `running`.
pub(super) fn speaker(device: &str, running: bool) -> Finding {
    match try_speaker(device) {
        Ok(how) => Finding::ok("speaker", format!("{device} takes sound ({how})")),
        Err(reason) if reason.contains("another program") => {
            unusable("speaker", device, &reason, running)
        }
        Err(reason) => Finding::failing("speaker", reason, "`gemmad devices` lists what there is"),
    }
}

/// Takes a picture. A device that is taken is no fault while a daemon is `running`.
pub(super) fn camera(camera: &CameraOptions, limits: &ImageLimits, running: bool) -> Finding {
    match try_camera(camera, limits) {
        Ok(picture) => gives_pictures(camera, &picture),
        Err(reason) => gives_no_picture(camera, &reason, running),
    }
}

/// That it works.
pub(in crate::cli) fn gives_pictures(camera: &CameraOptions, picture: &VideoFrame) -> Finding {
    let (width, height) = (picture.width_px, picture.height_px);
    let found = format!(
        "{}: {} gives pictures of {width} x {height}",
        camera.id,
        camera.source()
    );
    Finding::ok("camera", found)
}

/// Why it does not.
pub(in crate::cli) fn gives_no_picture(
    camera: &CameraOptions,
    reason: &str,
    running: bool,
) -> Finding {
    let id = &camera.id;
    match camera.advice() {
        None => unusable("camera", id, reason, running),
        Some(advice) => Finding::failing("camera", format!("{id}: {reason}"), advice),
    }
}

/// A device that cannot be opened; the reason itself says what to do about most troubles.
fn unusable(check: &'static str, id: &str, reason: &str, running: bool) -> Finding {
    let found = format!("{id}: {reason}");
    match reason.contains("another program") {
        true if running => Finding::warning(
            check,
            found,
            "it is probably the running gemmad that has it; stop that to try the device (systemctl stop gemmad)",
        ),
        true => Finding::failing(
            check,
            found,
            "end the other program, or let it share the device",
        ),
        false => Finding::failing(
            check,
            found,
            "`gemmad devices` shows what there is and what it gives",
        ),
    }
}

/// Whether this user may open the sound cards and cameras that there are.
pub(super) fn permissions(config: Option<&Config>) -> Vec<Finding> {
    let sounds = |config: &Config| !config.microphone.is_empty() || config.speaker.device.is_some();
    let sounds = config.is_some_and(sounds);
    let v4l2 = |camera: &CameraOptions| matches!(camera.kind, CameraType::V4l2(_));
    let cameras = config.is_some_and(|config| config.camera.iter().any(v4l2));
    // ALSA's PCMs are pcmC0D0c and pcmC0D0p, V4L2's nodes video0.
    let pcms = |name: &str| name.starts_with("pcm");
    let videos = |name: &str| name.starts_with("video");
    vec![
        of_nodes("sound cards", "audio", sounds, &nodes("/dev/snd", &pcms)),
        of_nodes("video devices", "video", cameras, &nodes("/dev", &videos)),
    ]
}

fn nodes(directory: &str, fits: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn of_nodes(check: &'static str, group: &str, wanted: bool, nodes: &[PathBuf]) -> Finding {
    let denied =
        |node: &&PathBuf| access(node.as_path(), Access::READ_OK | Access::WRITE_OK).is_err();
    let Some(first) = nodes.iter().find(denied) else {
        return Finding::ok(
            check,
            match nodes.len() {
                0 => "none is plugged in".to_owned(),
                n => format!("this user may open all {n}"),
            },
        );
    };
    let found = format!("this user may not open {}", first.display());
    let advice = format!(
        "add the user to the group `{group}` (sudo usermod -aG {group} USER, then log in again); the service has SupplementaryGroups="
    );
    match wanted {
        true => Finding::failing(check, found, advice),
        false => Finding::warning(check, found, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_device_that_the_running_daemon_has_is_no_fault() {
        let taken = "ALSA device `hall` is held by another program (PipeWire, …)";
        let state = |reason, running| unusable("microphone", "hall", reason, running).state;
        assert_eq!(state(taken, true), State::Warning);
        assert_eq!(state(taken, false), State::Failing);
        assert_eq!(
            state("ALSA device `hall` does not exist", true),
            State::Failing
        );
    }
}
