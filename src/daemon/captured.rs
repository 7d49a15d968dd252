//! What the loop does with what microphones and cameras tell.

use std::sync::Arc;
use std::time::Instant;

use ulid::Ulid;

use super::job::{
    CaptionWork, NOTHING_SAID, NOTHING_SAID_TO_BUTTON, Speaker, Ticket, Utterance, Work,
};
use super::{Daemon, reports};
use crate::media::{CameraEvent, CaptionTrigger, CaptureEvent, DeviceState, MicrophoneEvent, Sign};
use crate::pipeline::Group;
use crate::report::{ErrorBody, ErrorCode, JobUpdate, Report, Wish};

impl Daemon {
    pub(super) fn captured(&mut self, captured: CaptureEvent) {
        match captured {
            CaptureEvent::Microphone { id, event } => self.heard(id, event),
            CaptureEvent::Camera { id, event } => self.seen(id, event),
            CaptureEvent::Speaker(event) => self.spoke(event),
        }
    }

    fn heard(&mut self, id: String, event: MicrophoneEvent) {
        let Some(microphone) = self.devices.microphones.get_mut(&id) else {
            return; // it has just been taken out of the configuration
        };
        match event {
            MicrophoneEvent::State(state) => {
                if let DeviceState::Offline { reason } = &state {
                    self.record.error(&format!("{id}: {reason}"));
                }
                microphone.state = state.clone();
                self.doors.publish(&Report::MicrophoneState { id, state });
            }
            MicrophoneEvent::StopWord => {
                log::info!(source = id.as_str(); "told to be silent");
                self.silence().ok();
            }
            MicrophoneEvent::Woken {
                phrase,
                score,
                dbfs,
            } => {
                log::info!(source = id.as_str(); "woken by {phrase:?} ({score:.2})");
                self.record.queues.wake_words += 1;
                microphone.woken = Some(phrase.clone());
                microphone.dialogue.close();
                let id_of_score = id.clone();
                self.doors.publish(&Report::WakeScore {
                    id: id_of_score,
                    score,
                });
                self.woken(&id, phrase, score, dbfs);
            }
            MicrophoneEvent::SpeechStarted(sound) => {
                // At the onset, so that it overlaps with the speaking even while the worker is busy.
                self.loaded.prefetch(Group::Audio);
                let job_id = Ulid::generate().to_string();
                microphone.utterance = Some(job_id.clone());
                self.doors.publish(&Report::Speech {
                    id: id.clone(),
                    speaking: true,
                });
                let continues = self
                    .settings
                    .microphone(&id)
                    .is_some_and(|it| it.continue_s > 0);
                let begun = microphone.dialogue.begin(&job_id);
                let goes_on = begun.is_some();
                let begun = begun.unwrap_or_else(|| job_id.clone());
                let wake_word = microphone.woken.clone();
                // What another board answers is heard to its end, and not worked on.
                if self.is_left_to_others(&id, &job_id) {
                    return;
                }
                let work = Work::Utterance(Utterance {
                    speaker: Speaker::Microphone(id),
                    conversation: continues.then_some(begun),
                    wake_word,
                    goes_on,
                    sound: Arc::new(sound),
                    heard: None,
                    hearing: None,
                });
                let ticket = Arc::new(Ticket::default());
                self.push(self.job(job_id, None, work, ticket));
                self.duck();
            }
            MicrophoneEvent::SpeechEnded { counts } => {
                microphone.dialogue.end(counts);
                microphone.utterance = None;
                microphone.woken = None;
                self.doors.publish(&Report::Speech {
                    id,
                    speaking: false,
                });
                self.duck();
            }
            MicrophoneEvent::FollowTimedOut => microphone.dialogue.close(),
            MicrophoneEvent::ListenTimedOut => {
                let reason = match microphone.state {
                    DeviceState::Online if microphone.woken.take().is_some() => NOTHING_SAID,
                    DeviceState::Online => NOTHING_SAID_TO_BUTTON,
                    DeviceState::Offline { .. } | DeviceState::Off => {
                        "the microphone does not listen"
                    }
                };
                log::info!(source = id.as_str(); "{reason}");
                let job_id = microphone.utterance.clone();
                let job_id = job_id.unwrap_or_else(|| Ulid::generate().to_string());
                let report = reports::rejected_speech(
                    &job_id,
                    &id,
                    &self.settings,
                    &self.loaded.model,
                    reason.to_owned(),
                );
                // Nothing failed, so it goes past what is counted as an error.
                let online = microphone.state == DeviceState::Online;
                if matches!(&report, Report::Voice(event) if self.is_ours(event)) {
                    if online {
                        self.sign(Sign::NotUnderstood);
                    }
                    self.doors.publish(&report);
                }
            }
            MicrophoneEvent::Level(dbfs) => self.doors.publish(&Report::Level { id, dbfs }),
            MicrophoneEvent::Score(score) => {
                self.doors.publish(&Report::LiveScore { id, score });
            }
            MicrophoneEvent::Overrun => self.record.queues.audio_overruns += 1,
        }
    }

    fn seen(&mut self, id: String, event: CameraEvent) {
        let Some(camera) = self.devices.cameras.get_mut(&id) else {
            return; // it has just been taken out of the configuration
        };
        match event {
            CameraEvent::State(state) => {
                if let DeviceState::Offline { reason } = &state {
                    self.record.error(&format!("{id}: {reason}"));
                }
                camera.state = state.clone();
                self.doors.publish(&Report::CameraState { id, state });
            }
            CameraEvent::MotionStarted(_) => {
                camera.moving = true;
                if !self.monitor.degraded().is_degraded() {
                    self.loaded.prefetch(Group::Vision);
                }
                self.doors.publish(&Report::Motion { id, moving: true });
            }
            CameraEvent::MotionEnded => {
                camera.moving = false;
                self.doors.publish(&Report::Motion { id, moving: false });
            }
            CameraEvent::Frame {
                frame,
                trigger,
                motion,
                request,
            } => {
                let asked = match request.map(|number| self.devices.take_snapshot(number)) {
                    // It was cancelled, or its time is over.
                    Some(None) => return,
                    Some(asked) => asked,
                    None => None,
                };
                if trigger == CaptionTrigger::Motion && self.monitor.degraded().is_degraded() {
                    self.record.queues.dropped_captions += 1;
                    return;
                }
                let (asker, wish) = asked.map_or_else(
                    || (None, Wish::default()),
                    |asked| (Some(asked.asker), asked.wish),
                );
                let job_id = match &asker {
                    Some(asker) => asker.id.clone(),
                    None => Ulid::generate().to_string(),
                };
                let patience = self.patience(asker.as_ref().and_then(|asker| asker.timeout));
                let ticket = Arc::new(Ticket::until(Instant::now() + patience));
                let work = Work::Caption(CaptionWork {
                    camera: id,
                    frame,
                    trigger,
                    motion,
                    wish,
                    frigate: None,
                });
                self.push(self.job(job_id, asker, work, ticket));
            }
            CameraEvent::FrameFailed {
                request: number,
                reason,
            } => {
                let Some(asked) = self.devices.take_snapshot(number) else {
                    return;
                };
                let report = reports::failed_snapshot(
                    &id,
                    &self.settings,
                    &self.loaded.model,
                    reason.clone(),
                );
                self.reported(report);
                let error = ErrorBody::new(ErrorCode::Busy, format!("{id}: {reason}"));
                self.answered(JobUpdate::end(&asked.asker, Err(error)));
            }
        }
    }
}
