//! What is asked from outside: jobs for the model, switches, and questions that the loop answers itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::job::{Job, Speaker, Ticket, Utterance, Work};
use super::queue::Cancelled;
use super::{Daemon, reports};
use crate::media::{CameraControl, MicrophoneControl};
use crate::pipeline::Group;
use crate::report::{
    Action, CancelRequest, Describe, Dictation, ErrorBody, ErrorCode, JobState, JobUpdate, Origin,
    Report, Request,
};

/// Jobs that have not ended, so that they can be cancelled by the name that the asker gave them.
#[derive(Debug, Default)]
pub(super) struct Open {
    jobs: BTreeMap<String, (Origin, Option<String>)>,
}

impl Open {
    fn begin(&mut self, request: &Request) {
        let asker = (request.origin.clone(), request.transaction.clone());
        self.jobs.insert(request.id.clone(), asker);
    }

    /// Forgets a job that has ended.
    pub(super) fn updated(&mut self, update: &JobUpdate) {
        if matches!(
            update.state,
            JobState::Done | JobState::Failed | JobState::Cancelled
        ) {
            self.jobs.remove(&update.id);
        }
    }

    /// Ids of the jobs that a request to cancel means: of the same asker only.
    fn meant(&self, request: &Request, cancel: &CancelRequest) -> Vec<String> {
        let same_asker = |origin: &Origin| match (&request.origin, origin) {
            (Origin::Bus { uid, .. }, Origin::Bus { uid: owner, .. }) => *uid == 0 || uid == owner,
            (asker, owner) => asker == owner,
        };
        let named = |id: &String, transaction: &Option<String>| {
            cancel.job.as_ref() == Some(id)
                || (cancel.target.is_some() && cancel.target == *transaction)
        };
        self.jobs
            .iter()
            .filter(|(id, (origin, transaction))| same_asker(origin) && named(id, transaction))
            .map(|(id, _)| id.clone())
            .collect()
    }
}

fn error(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody {
        code,
        message: message.into(),
    }
}

/// An answer of no token is no answer.
fn check_max_tokens(asked: Option<usize>) -> Result<(), ErrorBody> {
    match asked {
        Some(0) => Err(error(
            ErrorCode::Invalid,
            "max_tokens 0: ask for 1 or more, or leave it out",
        )),
        _ => Ok(()),
    }
}

impl Daemon {
    pub(super) async fn requested(&mut self, request: Request) {
        match self.serve(&request).await {
            Ok(None) => {}
            Ok(Some(details)) => {
                let report = reports::done(&request, details);
                self.reported(report);
            }
            Err(error) => {
                self.record.queues.refused_requests += 1;
                self.reported(request.update(JobState::Failed, Err(error)));
            }
        }
    }

    /// `None` where the answer comes later.
    async fn serve(&mut self, request: &Request) -> Result<Option<serde_json::Value>, ErrorBody> {
        match &request.action {
            Action::Ask(ask) => {
                check_max_tokens(ask.max_tokens)?;
                self.check_prompt(&ask.prompt)?;
                if let Some(system) = &ask.system {
                    self.check_prompt(system)?;
                }
                let work = Work::Ask {
                    request: request.clone(),
                    ask: ask.clone(),
                };
                self.admit(request, work, ask.timeout_ms);
            }
            Action::Transcribe(transcribe) => {
                check_max_tokens(transcribe.max_tokens)?;
                if transcribe.audio.is_none() {
                    return Err(error(
                        ErrorCode::Invalid,
                        "audio is missing: attach a WAV, FLAC, OGG or MP3",
                    ));
                }
                let work = Work::Transcribe {
                    request: request.clone(),
                    transcribe: transcribe.clone(),
                };
                self.admit(request, work, transcribe.timeout_ms);
            }
            Action::Describe(describe) => self.describe(request, describe)?,
            Action::Dictate(dictation) => self.dictate(request, dictation),
            Action::Recognize { text } => {
                self.check_prompt(text)?;
                if self.settings.commands.is_none() {
                    return Err(error(
                        ErrorCode::NotFound,
                        "no command is configured: add [[command]] blocks to gemmad.toml",
                    ));
                }
                let work = Work::Recognize {
                    request: request.clone(),
                    text: text.clone(),
                };
                self.admit(request, work, None);
            }
            Action::Cancel(cancel) => return self.cancel(request, cancel).map(Some),
            Action::Reload => {
                return match self.reload().await {
                    Ok(restart) => Ok(Some(json!({ "needs_restart": restart }))),
                    Err(message) => {
                        self.record.error(&message);
                        log::error!("the old configuration stays: {message}");
                        Err(error(ErrorCode::Invalid, message))
                    }
                };
            }
            Action::Stats => {
                let state = if self.vigil.degraded().is_degraded() {
                    "degraded"
                } else {
                    "ready"
                };
                let health = serde_json::to_value(self.health(state));
                return health
                    .map(Some)
                    .map_err(|e| error(ErrorCode::Failed, e.to_string()));
            }
            Action::Listen { id } => {
                if self.switches.is_muted(id) {
                    return Err(error(
                        ErrorCode::Busy,
                        format!("microphone {id:?} is muted: unmute it first"),
                    ));
                }
                self.need(
                    self.devices
                        .control_microphone(id, MicrophoneControl::Listen),
                    "microphone",
                    id,
                )?;
                return Ok(Some(json!({})));
            }
            Action::Mute { .. }
            | Action::Enable { .. }
            | Action::Captions { .. }
            | Action::Matformer(_)
            | Action::MaxTokens(_) => return self.switch(&request.action).map(Some),
        }
        Ok(None)
    }

    fn need(&self, known: bool, what: &str, id: &str) -> Result<(), ErrorBody> {
        let message = || format!("there is no {what} {id:?}: it is not configured");
        known
            .then_some(())
            .ok_or_else(|| error(ErrorCode::NotFound, message()))
    }

    fn check_prompt(&self, prompt: &str) -> Result<(), ErrorBody> {
        let (limit, length) = (
            self.settings.config.queue.max_prompt_chars,
            prompt.chars().count(),
        );
        if length > limit {
            let message = format!(
                "the prompt has {length} characters; [queue] max_prompt_chars allows {limit}"
            );
            return Err(error(ErrorCode::TooLarge, message));
        }
        Ok(())
    }

    pub(super) fn job(&self, id: String, work: Work, ticket: Arc<Ticket>) -> Job {
        Job {
            id,
            work,
            settings: Arc::clone(&self.settings),
            ticket,
            queued_at: Instant::now(),
        }
    }

    /// How long a job may take: what was asked for, within what is configured.
    pub(super) fn patience(&self, asked_ms: Option<u64>) -> Duration {
        let most = Duration::from_secs(self.settings.config.queue.deadline_s.into());
        asked_ms.map_or(most, |asked| Duration::from_millis(asked).min(most))
    }

    fn admit(&mut self, request: &Request, work: Work, timeout_ms: Option<u64>) {
        self.requests.begin(request);
        let ticket = Arc::new(Ticket::until(Instant::now() + self.patience(timeout_ms)));
        self.push(self.job(request.id.clone(), work, ticket));
    }

    /// Speech of a client: like that of a microphone, the model listens while it comes.
    fn dictate(&mut self, request: &Request, dictation: &Dictation) {
        self.loaded.residency.prefetch(Group::Audio);
        let work = Work::Utterance(Utterance {
            speaker: Speaker::Client {
                request: Box::new(request.clone()),
                language: dictation.language.clone(),
            },
            sound: Arc::clone(&dictation.sound),
            heard: None,
            hearing: None,
        });
        self.requests.begin(request);
        // Its end is not known yet; who speaks slower than this is given up, and holds up nobody until then.
        let longest_s = 2 * u64::from(self.settings.config.wyoming.max_utterance_s);
        let deadline = Instant::now() + Duration::from_secs(longest_s) + self.patience(None);
        let job = self.job(request.id.clone(), work, Arc::new(Ticket::until(deadline)));
        self.push(job);
    }

    fn describe(&mut self, request: &Request, describe: &Describe) -> Result<(), ErrorBody> {
        check_max_tokens(describe.max_tokens)?;
        if let Some(prompt) = &describe.prompt {
            self.check_prompt(prompt)?;
        }
        if describe.image.is_some() {
            let work = Work::Describe {
                request: request.clone(),
                describe: describe.clone(),
            };
            self.admit(request, work, describe.timeout_ms);
            return Ok(());
        }
        let only = || self.devices.only_camera().map(str::to_owned);
        let camera = describe.camera.clone().or_else(only).ok_or_else(|| {
            error(
                ErrorCode::Invalid,
                "which camera? Name one, or attach an image",
            )
        })?;
        let limit = self.settings.config.queue.jobs;
        if self.devices.waiting_snapshots() >= limit {
            return Err(error(
                ErrorCode::QueueFull,
                format!("{limit} pictures are waited for already: ask again later"),
            ));
        }
        let known = self
            .devices
            .snapshot(&camera, request.clone(), describe.clone());
        self.need(known, "camera", &camera)?;
        self.requests.begin(request);
        Ok(())
    }

    fn cancel(
        &mut self,
        request: &Request,
        cancel: &CancelRequest,
    ) -> Result<serde_json::Value, ErrorBody> {
        let meant = self.requests.meant(request, cancel);
        if meant.is_empty() {
            let name = cancel.job.as_ref().or(cancel.target.as_ref());
            let message = match name {
                Some(name) => format!("there is no job {name:?} that could be cancelled"),
                None => "name the job, or as target the transaction, to cancel".to_owned(),
            };
            return Err(error(ErrorCode::NotFound, message));
        }
        for id in &meant {
            let cancelled = || Err(error(ErrorCode::Cancelled, "it was cancelled"));
            match self.queue.cancel(id) {
                Cancelled::Running => {}
                Cancelled::Waiting(job) => {
                    if let Some(asked) = job.work.request() {
                        self.reported(asked.update(JobState::Cancelled, cancelled()));
                    }
                }
                Cancelled::Unknown => {
                    if let Some(asked) = self.devices.cancel_snapshot(id) {
                        self.reported(asked.update(JobState::Cancelled, cancelled()));
                    }
                }
            }
        }
        Ok(json!({ "cancelled": meant }))
    }

    /// Changes a switch, keeps it, and tells everybody. One that stands as it is wanted is left alone, and nobody is told.
    fn switch(&mut self, action: &Action) -> Result<serde_json::Value, ErrorBody> {
        if self.stands(action)? {
            return Ok(json!({ "unchanged": true }));
        }
        let report = match action {
            Action::Mute { id, muted } => {
                self.devices
                    .control_microphone(id, MicrophoneControl::Mute(*muted));
                self.switches.muted.insert(id.clone(), *muted);
                None // its state follows when the device is closed or open
            }
            Action::Enable { id, enabled } => {
                self.devices
                    .control_camera(id, CameraControl::Enable(*enabled));
                self.switches.enabled.insert(id.clone(), *enabled);
                None
            }
            Action::Captions { id, enabled } => {
                self.devices
                    .control_camera(id, CameraControl::Captions(*enabled));
                self.switches.captions.insert(id.clone(), *enabled);
                Some(Report::Captions {
                    id: id.clone(),
                    enabled: *enabled,
                })
            }
            Action::Matformer(name) => {
                self.switches.matformer = Some(name.clone());
                Some(Report::Matformer(name.clone()))
            }
            Action::MaxTokens(tokens) => {
                self.switches.max_tokens = Some(*tokens);
                Some(Report::MaxTokens(*tokens))
            }
            _ => None,
        };
        let kept = self.keeping.changed();
        if kept {
            self.state_file.save(&self.switches);
        }
        let degraded = self.vigil.degraded().is_degraded();
        self.settings = Arc::new(self.settings.for_board(&self.switches, degraded));
        // What could not be written yet is told with the next tick, which writes it.
        if let Some(report) = report.filter(|_| kept) {
            self.sinks.publish(&report);
        }
        Ok(json!({}))
    }

    /// Whether a switch stands as it is wanted; an error where there is none, or no such value.
    fn stands(&self, action: &Action) -> Result<bool, ErrorBody> {
        let switches = &self.switches;
        Ok(match action {
            Action::Mute { id, muted } => {
                self.need(self.devices.ears.contains_key(id), "microphone", id)?;
                switches.is_muted(id) == *muted
            }
            Action::Enable { id, enabled } => {
                self.need(self.devices.eyes.contains_key(id), "camera", id)?;
                switches.is_enabled(id) == *enabled
            }
            Action::Captions { id, enabled } => {
                self.need(self.devices.eyes.contains_key(id), "camera", id)?;
                switches.has_captions(id) == *enabled
            }
            Action::Matformer(name) => {
                if !self.loaded.slices.contains(name) {
                    let slices = self.loaded.slices.join(", ");
                    let message = format!("the model has no slice {name:?}; it has {slices}");
                    return Err(error(ErrorCode::NotFound, message));
                }
                let configured = self.settings.config.matformer.slice.as_ref();
                let usual = (switches.matformer.as_ref())
                    .or(configured)
                    .or(self.loaded.slices.first());
                usual == Some(name)
            }
            Action::MaxTokens(tokens) => {
                let limit = self.settings.config.queue.max_tokens;
                if *tokens == 0 || *tokens > limit {
                    let message = format!(
                        "max_tokens {tokens}: it must be 1 to {limit} ([queue] max_tokens)"
                    );
                    return Err(error(ErrorCode::Invalid, message));
                }
                switches.max_tokens.unwrap_or(limit) == *tokens
            }
            _ => false,
        })
    }
}
