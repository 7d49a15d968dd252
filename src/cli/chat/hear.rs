//! A microphone of this machine, for one utterance.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::interrupt::Interrupt;
use crate::capture::Microphone;
use crate::capture::options::{MicrophoneOptions, Trigger};
use crate::cli::failure::{Failure, exit};
use crate::cli::listen::Meter;
use crate::media::{
    AudioClip, CaptureEvent, DeviceState, MicrophoneControl, MicrophoneEvent, SAMPLE_RATE_HZ,
};

/// How often Ctrl-C is looked for.
const WAIT: Duration = Duration::from_millis(100);

/// The microphone that is meant, of those that are configured.
///
/// # Errors
/// There is none of that name, or not exactly one.
pub(super) fn choose<'a>(
    wanted: Option<&str>,
    configured: &'a [MicrophoneOptions],
) -> Result<&'a MicrophoneOptions, Failure> {
    let ids: Vec<&str> = configured.iter().map(|found| found.id.as_str()).collect();
    let ids = ids.join(", ");
    let usage = |message: String| Err(Failure::new(exit::USAGE, message));
    match (wanted, configured) {
        (_, []) => usage(
            "no microphone is configured: `gemmad devices` prints sections for gemmad.toml"
                .to_owned(),
        ),
        (None, [only]) => Ok(only),
        (None, _) => usage(format!("which microphone? /listen with one of {ids}")),
        (Some(id), _) => match configured.iter().find(|found| found.id == id) {
            Some(found) => Ok(found),
            None => usage(format!("there is no microphone {id}, but {ids}")),
        },
    }
}

/// What is said next; `None` where Ctrl-C came first.
///
/// # Errors
/// The microphone cannot be used, or nothing was said in time.
pub(super) fn hear(
    options: MicrophoneOptions,
    interrupt: &Interrupt,
) -> Result<Option<AudioClip>, Failure> {
    let mut meter = Meter::new(&options.id);
    let (tell, events) = channel();
    // Whatever is said counts from the first sample on; push-to-talk tells how loud it is, and when nothing came.
    let options = MicrophoneOptions {
        trigger: Trigger::Voice,
        ..options
    };
    let events_to = Box::new(move |event| tell.send(event).is_ok());
    let microphone = Microphone::start(options, false, Arc::default(), events_to)
        .map_err(|error| Failure::new(exit::UNAVAILABLE, format_args!("cannot listen: {error}")))?;
    let heard = utterance(&microphone, &events, &mut meter, interrupt);
    microphone.stop();
    meter.clear();
    heard
}

fn utterance(
    microphone: &Microphone,
    events: &Receiver<CaptureEvent>,
    meter: &mut Meter,
    interrupt: &Interrupt,
) -> Result<Option<AudioClip>, Failure> {
    let mut speech = None;
    loop {
        let event = match events.recv_timeout(WAIT) {
            Ok(CaptureEvent::Microphone { event, .. }) => event,
            Ok(CaptureEvent::Camera { .. } | CaptureEvent::Speaker(_)) => continue,
            Err(RecvTimeoutError::Timeout) if interrupt.is_pressed() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(
                    exit::UNAVAILABLE,
                    "the microphone's thread ended",
                ));
            }
        };
        if interrupt.is_pressed() {
            return Ok(None);
        }
        match event {
            MicrophoneEvent::State(DeviceState::Online) => {
                microphone.control(MicrophoneControl::Listen);
            }
            MicrophoneEvent::State(DeviceState::Offline { reason }) => {
                return Err(Failure::new(exit::UNAVAILABLE, reason));
            }
            MicrophoneEvent::ListenTimedOut => {
                return Err(Failure::new(exit::DATA, "nothing was said"));
            }
            MicrophoneEvent::Level(dbfs) => meter.level(dbfs),
            MicrophoneEvent::SpeechStarted(sound) => {
                meter.says("speech begins");
                speech = Some(sound);
            }
            MicrophoneEvent::SpeechEnded { .. } => {
                meter.says("speech ends");
                let samples = speech.take().map(|sound| sound.take(usize::MAX));
                // Of a sound that was none nothing is left, and what is said next still counts.
                if let Some(samples) = samples.filter(|samples| !samples.is_empty()) {
                    return Ok(Some(AudioClip {
                        samples,
                        sample_rate_hz: SAMPLE_RATE_HZ,
                    }));
                }
            }
            MicrophoneEvent::State(DeviceState::Off)
            | MicrophoneEvent::Woken { .. }
            | MicrophoneEvent::StopWord
            | MicrophoneEvent::Score(_)
            | MicrophoneEvent::FollowTimedOut
            | MicrophoneEvent::Overrun => {}
        }
    }
}
