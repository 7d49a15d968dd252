//! What is asked from outside: jobs for the model, switches, and questions that the loop answers itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::job::{Job, NO_COMMAND, Speaker, Ticket, Utterance, Work};
use super::queue::Cancelled;
use super::{Daemon, clock, reports};
use crate::media::{MicrophoneControl, Sign};
use crate::pipeline::{Group, PictureOptions};
use crate::report::{
    Cancel, Describe, Dictation, ErrorBody, ErrorCode, Header, JobUpdate, Origin, Payload, Picture,
    ReplyEvent, ReplyTo, Report, Request, SpokenReply,
};

/// How long a job of another board may take: so long its payload is kept at the server.
const MOST_FOR_OTHERS: Duration = Duration::from_secs(900);

/// Requests that have not ended, of every door: whose they are, and where their answers go.
#[derive(Debug, Default)]
pub(super) struct Open {
    jobs: BTreeMap<String, OpenJob>,
}

#[derive(Debug)]
struct OpenJob {
    header: Header,
    reply: ReplyTo,
    /// It waits or runs, and so may be cancelled; what the loop does itself is done before anybody could.
    admitted: bool,
    /// Its answer is told whole, though it comes in pieces.
    whole: bool,
}

impl Open {
    pub(super) fn begin(&mut self, header: &Header, reply: ReplyTo) {
        let job = OpenJob {
            header: header.clone(),
            reply,
            admitted: false,
            whole: false,
        };
        self.jobs.insert(header.id.clone(), job);
    }

    pub(super) fn admit(&mut self, header: &Header) {
        if let Some(job) = self.jobs.get_mut(&header.id) {
            job.admitted = true;
        }
    }

    /// Whoever asked does not want to be told the answer while it comes.
    fn tell_whole(&mut self, header: &Header) {
        if let Some(job) = self.jobs.get_mut(&header.id) {
            job.whole = true;
        }
    }

    /// Tells whoever asked, and forgets a job that has ended; whether it was open.
    pub(super) fn tell(&mut self, update: &JobUpdate) -> bool {
        let id = &update.header.id;
        let Some(job) = self.jobs.get(id) else {
            return false;
        };
        if !(job.whole && update.partial.is_some()) {
            job.reply.tell(update);
        }
        if update.state.has_ended() {
            self.jobs.remove(id);
        }
        true
    }

    /// Ids of the jobs that a request to cancel means: of the same asker only.
    fn meant(&self, asker: &Header, cancel: &Cancel) -> Vec<String> {
        let same_asker = |origin: &Origin| match (&asker.origin, origin) {
            (Origin::Bus { uid, .. }, Origin::Bus { uid: owner, .. }) => *uid == 0 || uid == owner,
            (asker, owner) => asker == owner,
        };
        let named = |header: &Header| match cancel {
            Cancel::Job(id) => **id == header.id,
            Cancel::Target(name) => header.transaction.as_ref() == Some(name),
        };
        self.jobs
            .values()
            .filter(|job| job.admitted && same_asker(&job.header.origin) && named(&job.header))
            .map(|job| job.header.id.clone())
            .collect()
    }
}

/// What has a device.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Microphone,
    Camera,
}

impl Source {
    fn noun(self) -> &'static str {
        match self {
            Source::Microphone => "microphone",
            Source::Camera => "camera",
        }
    }
}

pub(super) fn error(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(code, message)
}

impl Daemon {
    pub(super) async fn requested(&mut self, request: Request) {
        let Request {
            header,
            payload,
            reply,
        } = request;
        let payload = match payload {
            // Nobody waits for an answer to it.
            Payload::Rival(claim) => return self.claimed(claim),
            payload => payload,
        };
        self.requests.begin(&header, reply);
        match self.serve(&header, payload).await {
            Ok(None) => {}
            Ok(Some(details)) => {
                let reply = reports::done(details);
                self.answered(JobUpdate::end(&header, Ok(reply)));
            }
            Err(error) => self.refuse(&header, error),
        }
    }

    /// Ends a request that was never worked on.
    pub(super) fn refuse(&mut self, asker: &Header, error: ErrorBody) {
        self.record.queues.refused_requests += 1;
        self.answered(JobUpdate::end(asker, Err(error)));
    }

    /// Tells whoever asked how far a job is, and everybody that it has ended.
    pub(super) fn answered(&mut self, update: JobUpdate) {
        if let Some(timing) = update
            .reply
            .as_ref()
            .and_then(|reply| reply.timing.as_ref())
        {
            self.record.speed(timing);
        }
        if matches!(&update.error, Some(error) if error.code == ErrorCode::Timeout) {
            self.record.queues.timeouts += 1;
        }
        self.speak_on(&update);
        let was_open = self.requests.tell(&update);
        // What another board asked for is told by that one.
        let is_own = !matches!(update.header.origin, Origin::Fleet { .. });
        if was_open && is_own && update.state.has_ended() {
            self.doors.publish(&Report::JobEnded(Box::new(update)));
        }
    }

    /// `None` where the answer comes later.
    async fn serve(
        &mut self,
        header: &Header,
        payload: Payload,
    ) -> Result<Option<serde_json::Value>, ErrorBody> {
        match payload {
            Payload::Ask(ask) => {
                self.check_prompt(&ask.prompt)?;
                if let Some(system) = &ask.system {
                    self.check_prompt(system)?;
                }
                self.check_soft_tokens(ask.soft_tokens)?;
                if ask.speak {
                    self.speak(header)?;
                    if !ask.stream {
                        self.requests.tell_whole(header);
                    }
                }
                self.admit(header, Work::Ask(ask));
            }
            Payload::Chat(mut chat) => {
                // What comes from another board is as that one has it.
                if header.origin == Origin::Http
                    && let Some(tools) = &mut chat.tools
                {
                    tools.closed_names = self.settings.config.http.closed_names;
                }
                self.admit_guest(header, Work::Chat(chat));
            }
            Payload::Transcribe(transcribe) if header.origin == Origin::Http => {
                self.admit_guest(header, Work::Transcribe(transcribe));
            }
            Payload::Transcribe(transcribe) => {
                self.admit(header, Work::Transcribe(transcribe));
            }
            Payload::Describe(describe) => self.describe(header, describe)?,
            Payload::Seen(seen) => return self.seen_elsewhere(*seen).map(Some),
            Payload::Dictate(dictation) => self.dictate(header, dictation),
            Payload::Recognize { text, speaker } => {
                self.check_prompt(&text)?;
                if self.settings.commands.is_none() {
                    return Err(error(ErrorCode::NotFound, NO_COMMAND));
                }
                self.admit(header, Work::Recognize { text, speaker });
            }
            // Its length was looked at where it was said.
            Payload::Worded(wording) => self.admit(header, Work::Worded(wording)),
            Payload::Cancel(cancel) => return self.cancel(header, &cancel).map(Some),
            Payload::Reload => self.reload(Some(header.clone())).await,
            Payload::Forget => {
                self.forget_answers(None).await.ok();
                return Ok(Some(json!({})));
            }
            Payload::Stats => {
                let state = if self.monitor.degraded().is_degraded() {
                    "degraded"
                } else {
                    "ready"
                };
                let health = serde_json::to_value(self.health(state));
                return health
                    .map(Some)
                    .map_err(|e| error(ErrorCode::Failed, e.to_string()));
            }
            Payload::Listen { id } => {
                if self.switches.is_muted(&id) {
                    return Err(error(
                        ErrorCode::Busy,
                        format!("microphone {id:?} is muted: unmute it first"),
                    ));
                }
                // Whoever presses the button wants to be heard.
                self.silence().ok();
                self.need(
                    self.devices
                        .control_microphone(&id, MicrophoneControl::Listen),
                    Source::Microphone,
                    &id,
                )?;
                self.sign(Sign::Listening);
                return Ok(Some(json!({})));
            }
            Payload::Names(names) => return self.named(names.map(|names| *names)).map(Some),
            Payload::Replied(reply) => return self.replied(reply).map(Some),
            // It was taken out before.
            Payload::Rival(_) => {}
            Payload::Say(say) => self.say(header, say)?,
            Payload::Silence => return self.silence().map(Some),
            Payload::Set(switch) => return self.switch(&switch).map(Some),
        }
        Ok(None)
    }

    /// Tells everybody what was answered to somebody at a microphone.
    fn replied(&mut self, reply: SpokenReply) -> Result<serde_json::Value, ErrorBody> {
        self.check_prompt(&reply.text)?;
        let is_known = self.settings.microphone(&reply.microphone).is_some();
        self.need(is_known, Source::Microphone, &reply.microphone)?;
        self.doors.publish(&Report::Replied(Box::new(ReplyEvent {
            id: reply.id.as_deref().cloned(),
            ts: clock::now(),
            source: (*reply.microphone).clone(),
            text: reply.text,
        })));
        Ok(json!({}))
    }

    pub(super) fn need(&self, known: bool, what: Source, id: &str) -> Result<(), ErrorBody> {
        let noun = what.noun();
        if known {
            Ok(())
        } else if self.is_opening(what, id) {
            let message = format!("{noun} {id:?} is being opened: ask again in a moment");
            Err(error(ErrorCode::Busy, message))
        } else {
            let message = format!("there is no {noun} {id:?}: it is not configured");
            Err(error(ErrorCode::NotFound, message))
        }
    }

    /// Whether it is configured, and waits for its device to be free.
    fn is_opening(&self, what: Source, id: &str) -> bool {
        let is_configured = match what {
            Source::Microphone => self.settings.microphone(id).is_some(),
            Source::Camera => self.settings.camera(id).is_some(),
        };
        is_configured && self.devices.is_closing()
    }

    /// Whether it can be switched: what waits for its device is opened as it is switched then.
    pub(super) fn need_switch(&self, what: Source, id: &str) -> Result<(), ErrorBody> {
        let runs = match what {
            Source::Microphone => self.devices.microphones.contains_key(id),
            Source::Camera => self.devices.cameras.contains_key(id),
        };
        self.need(runs || self.is_opening(what, id), what, id)
    }

    pub(super) fn check_prompt(&self, prompt: &str) -> Result<(), ErrorBody> {
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

    fn check_soft_tokens(&self, asked: Option<usize>) -> Result<(), ErrorBody> {
        let (Some(soft_tokens), Some(spec)) = (asked, &self.loaded.pictures) else {
            return Ok(());
        };
        PictureOptions::of_soft_tokens(soft_tokens)
            .check(spec)
            .map_err(|misfit| error(ErrorCode::Invalid, misfit.to_string()))
    }

    pub(super) fn job(
        &self,
        id: String,
        asker: Option<Header>,
        work: Work,
        ticket: Arc<Ticket>,
    ) -> Job {
        Job {
            id,
            asker,
            work,
            settings: Arc::clone(&self.settings),
            ticket,
            queued_at: Instant::now(),
        }
    }

    /// How long a job may take: what was asked for, within what is configured.
    pub(super) fn patience(&self, asked: Option<Duration>) -> Duration {
        let most = Duration::from_secs(self.settings.config.queue.deadline_s.into());
        asked.map_or(most, |asked| asked.min(most))
    }

    fn admit(&mut self, asker: &Header, work: Work) {
        let patience = match (&asker.origin, asker.timeout) {
            // Its source ends it, and may give it longer than this board gives its own.
            (Origin::Fleet { .. }, Some(asked)) => asked.min(MOST_FOR_OTHERS),
            _ => self.patience(asker.timeout),
        };
        self.admit_until(asker, work, Instant::now() + patience);
    }

    /// Takes in what a program asks for over HTTP: it waits longer than people do, and says itself how long.
    fn admit_guest(&mut self, asker: &Header, work: Work) {
        let most = Duration::from_secs(self.settings.config.http.deadline_s.into());
        let patience = asker.timeout.map_or(most, |asked| asked.min(most));
        self.admit_until(asker, work, Instant::now() + patience);
    }

    fn admit_until(&mut self, asker: &Header, work: Work, deadline: Instant) {
        self.requests.admit(asker);
        let ticket = Arc::new(Ticket::until(deadline));
        self.push(self.job(asker.id.clone(), Some(asker.clone()), work, ticket));
    }

    /// Speech of a client: like that of a microphone, the model listens while it comes.
    fn dictate(&mut self, asker: &Header, dictation: Dictation) {
        self.loaded.prefetch(Group::Audio);
        let work = Work::Utterance(Utterance {
            wake_word: None,
            goes_on: false,
            conversation: None,
            speaker: Speaker::Client {
                manner: dictation.manner,
                stream: dictation.stream,
            },
            sound: dictation.sound,
            heard: None,
            hearing: None,
        });
        // Its end is not known yet; who speaks slower than this is given up, and holds up nobody until then.
        let longest_s = 2 * u64::from(self.settings.config.wyoming.max_utterance_s);
        let deadline = Instant::now() + Duration::from_secs(longest_s) + self.patience(None);
        self.admit_until(asker, work, deadline);
    }

    fn describe(&mut self, asker: &Header, describe: Describe) -> Result<(), ErrorBody> {
        let wish = describe.wish;
        if let Some(prompt) = &wish.prompt {
            self.check_prompt(prompt)?;
        }
        self.check_soft_tokens(wish.soft_tokens)?;
        let camera = match describe.picture {
            Picture::Camera(camera) => camera,
            Picture::Attached(image) => {
                self.admit(asker, Work::Describe { image, wish });
                return Ok(());
            }
        };
        let limit = self.settings.config.queue.jobs;
        if self.devices.waiting_snapshots() >= limit {
            return Err(error(
                ErrorCode::QueueFull,
                format!("{limit} pictures are waited for already: ask again later"),
            ));
        }
        let known = self.devices.snapshot(&camera, asker.clone(), wish);
        self.need(known, Source::Camera, &camera)?;
        self.requests.admit(asker);
        Ok(())
    }

    fn cancel(&mut self, asker: &Header, cancel: &Cancel) -> Result<serde_json::Value, ErrorBody> {
        const WHY: &str = "it was cancelled";
        let meant = self.requests.meant(asker, cancel);
        if meant.is_empty() {
            let (Cancel::Job(name) | Cancel::Target(name)) = cancel;
            let message = format!("there is no job {name:?} that could be cancelled");
            return Err(error(ErrorCode::NotFound, message));
        }
        for id in &meant {
            let asked = match self.queue.cancel(id, WHY) {
                Cancelled::Running => None,
                Cancelled::Waiting(job) => job.asker,
                // The speaker tells its end.
                Cancelled::Unknown if self.devices.silence(id) => None,
                Cancelled::Unknown => self.devices.cancel_snapshot(id),
            };
            if let Some(asked) = asked {
                let cancelled = error(ErrorCode::Cancelled, WHY);
                self.answered(JobUpdate::end(&asked, Err(cancelled)));
            }
        }
        Ok(json!({ "cancelled": meant }))
    }
}
