//! An utterance that another board writes down, and what it means at its microphone.

use std::time::Instant;

use crate::daemon::job::{Job, Utterance, Work};
use crate::daemon::reports;
use crate::daemon::worker::meant;
use crate::media::SAMPLE_RATE_HZ;
use crate::report::{ErrorBody, EventType, Reply, Report};
use crate::utterance::Progress;

/// What is known of an utterance before its sound is sent.
pub(super) struct Heard {
    seconds: f64,
    truncated: bool,
    pub(super) ended_at: Instant,
    /// It was no speech after all, or whoever spoke is gone.
    pub(super) is_gone: bool,
}

impl Heard {
    /// Of a job that is one.
    pub(super) fn of(job: &Job) -> Option<Heard> {
        let Work::Utterance(utterance) = &job.work else {
            return None;
        };
        let (samples, progress) = utterance.sound.state();
        let (truncated, ended_at) = match progress {
            Progress::Ended { truncated, at } => (truncated, at),
            _ => (false, Instant::now()),
        };
        Some(Heard {
            seconds: samples as f64 / f64::from(SAMPLE_RATE_HZ),
            truncated,
            ended_at,
            is_gone: progress == Progress::Cancelled,
        })
    }

    /// What is told everybody of what was said at a microphone.
    pub(super) fn event(
        &self,
        job: &Job,
        microphone: &str,
        utterance: &Utterance,
        result: &Result<Reply, ErrorBody>,
        model: &str,
    ) -> Report {
        let text = match result {
            Ok(reply) => reply.text.as_deref().unwrap_or_default().trim(),
            Err(_) => "",
        };
        let options = job.settings.microphone(microphone);
        let said = match (result, options) {
            (Err(error), _) => Err(error.message.as_str()),
            (Ok(reply), _) if text.is_empty() => {
                let reason = reply.details.get("reason");
                Err(reason
                    .and_then(|reason| reason.as_str())
                    .unwrap_or("nothing was said"))
            }
            (Ok(_), Some(options)) => meant(options, utterance.wake_word.as_deref(), text),
            (Ok(_), None) => Err("the microphone was taken out of the configuration"),
        };
        let reason = said.err().unwrap_or_default().to_owned();
        let mut report =
            reports::rejected_speech(&job.id, microphone, &job.settings, model, reason);
        if let Report::Voice(event) = &mut report {
            event.audio_s = self.seconds;
            event.truncated = self.truncated;
            event.wake_word.clone_from(&utterance.wake_word);
            if let Ok(reply) = result {
                event.timing = reply.timing.clone().unwrap_or_default();
                event.matformer = reply.matformer.clone().unwrap_or_default();
            }
            if let Ok(said) = said {
                event.event_type = EventType::Transcript;
                event.text = Some(said.to_owned());
                event.reason = None;
            }
            log::info!(
                source = microphone, job_id = job.id.as_str(), EVENT = event.event_type.name();
                "heard {:.1} s of speech: {}", self.seconds, event.event_type.name()
            );
        }
        report
    }
}
