//! Whether a device can be used, for `gemmad doctor`, `gemmad setup` and `gemmad wake`: opened as the daemon opens it, and read.

use std::time::{Duration, Instant};

use super::level::{Meter, rms_dbfs};
use super::options::{CameraOptions, MicrophoneOptions};
use super::speech::{Gate, Segmenter, SpeechEvent};
use super::supervise::Unavailable;
use crate::features::image::ImageLimits;
use crate::media::{SAMPLE_RATE_HZ, VideoFrame};

/// Longest that a device is tried.
const TRIED_FOR: Duration = Duration::from_secs(10);
/// How often it is asked.
const WAIT: Duration = Duration::from_millis(100);
/// Pictures that are asked for, where they are damaged.
const MAX_PICTURES: u32 = 5;
/// From one of them to the next: small cameras have to draw breath.
const PAUSE: Duration = Duration::from_millis(500);
/// How much sound is heard: half a second.
const HEARD_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 2;

/// Opens a microphone and listens for half a second; the level (RMS) of what it gives, dB full scale: minus infinity for
/// digital silence.
///
/// # Errors
/// It cannot be opened, or gives nothing; why, and what to do.
pub fn try_microphone(config: &MicrophoneOptions) -> Result<f32, String> {
    let told = |Unavailable(reason)| reason;
    let mut sound = super::open_sound(config).map_err(told)?;
    let mut samples = Vec::new();
    let begun = Instant::now();
    while samples.len() < HEARD_SAMPLES {
        if begun.elapsed() >= TRIED_FOR {
            return Err(gives_none(config));
        }
        sound.read(WAIT, &mut samples).map_err(told)?;
    }
    Ok(rms_dbfs(&samples))
}

/// Opens a microphone and waits until somebody has said something: what was said, 16 kHz mono, and nothing where nobody speaks in time.
/// `level` is told meanwhile how loud it is, dB full scale.
///
/// # Errors
/// It cannot be opened, or gives nothing any more; why, and what to do.
pub fn hear_once(
    config: &MicrophoneOptions,
    level: &mut dyn FnMut(f32),
) -> Result<Vec<f32>, String> {
    let told = |Unavailable(reason)| reason;
    let mut sound = super::open_sound(config).map_err(told)?;
    let mut segmenter = Segmenter::new(&config.speech, Gate::PushToTalk);
    segmenter.listen();
    let (mut meter, mut samples, mut said) = (Meter::default(), Vec::new(), Vec::new());
    let mut over = false;
    let mut heard_at = Instant::now();
    while !over {
        samples.clear();
        if sound.read(WAIT, &mut samples).map_err(told)?.any {
            heard_at = Instant::now();
        } else if heard_at.elapsed() >= TRIED_FOR {
            return Err(gives_none(config));
        }
        if let Some(dbfs) = meter.push(&samples) {
            level(dbfs);
        }
        segmenter.push(&samples, &mut |event| match event {
            SpeechEvent::Started | SpeechEvent::Paused => {}
            SpeechEvent::Samples(samples) if !over => said.extend(samples),
            SpeechEvent::Samples(_) => {}
            SpeechEvent::Ended { .. }
            | SpeechEvent::ListenTimedOut
            | SpeechEvent::FollowTimedOut => over = true,
            // It was no speech: what was asked for may still come.
            SpeechEvent::Cancelled => said.clear(),
        });
    }
    Ok(said)
}

/// Opens a microphone and gives `heard` what it gives, 16 kHz mono, until that says false.
///
/// # Errors
/// It cannot be opened, or gives nothing any more; why, and what to do.
pub fn hear_all(
    config: &MicrophoneOptions,
    heard: &mut dyn FnMut(&[f32]) -> bool,
) -> Result<(), String> {
    let told = |Unavailable(reason)| reason;
    let mut sound = super::open_sound(config).map_err(told)?;
    let mut samples = Vec::new();
    let mut heard_at = Instant::now();
    loop {
        samples.clear();
        if sound.read(WAIT, &mut samples).map_err(told)?.any {
            heard_at = Instant::now();
        } else if heard_at.elapsed() >= TRIED_FOR {
            return Err(gives_none(config));
        }
        if !heard(&samples) {
            return Ok(());
        }
    }
}

fn gives_none(config: &MicrophoneOptions) -> String {
    format!(
        "{} is open and gives no sound: unplug it and plug it in again",
        config.source()
    )
}

/// Opens a camera and takes one picture.
///
/// # Errors
/// It cannot be opened, or gives no picture that can be read; why, and what to do.
pub fn try_camera(config: &CameraOptions, limits: &ImageLimits) -> Result<VideoFrame, String> {
    let told = |Unavailable(reason)| reason;
    let mut source = config.open(limits).map_err(told)?;
    let mut reason = "gives no picture".to_owned();
    let begun = Instant::now();
    let mut pictures = 0;
    while begun.elapsed() < TRIED_FOR {
        let Some(picture) = source.next(WAIT, true).map_err(told)? else {
            continue;
        };
        match picture.overview(limits) {
            Ok(overview) => {
                let frame = picture.into_frame(overview.picture_px);
                return frame.map_err(|error| format!("{}: {error}", config.source()));
            }
            // Cameras give a damaged frame now and then.
            Err(error) => reason = error.to_string(),
        }
        pictures += 1;
        if pictures == MAX_PICTURES {
            break;
        }
        let resumes = Instant::now() + PAUSE;
        loop {
            let left = resumes.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Of a device frames are taken all the while, so that it gives a new one then.
            source.next(left, false).map_err(told)?;
        }
    }
    Err(format!("{}: {reason}", config.source()))
}
