//! A job's way to another board and back: what is told of it, as the worker would have told it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::errand::{errand, sentence};
use super::heard::{self, Meaning};
use crate::daemon::event::{Event, Told, WorkerNote};
use crate::daemon::hearing::{self, Understood, both};
use crate::daemon::job::{Job, Speaker, Ticket, Utterance, Work};
use crate::daemon::{reports, wording};
use crate::fleet::{self, Lost, Outcome, Source, Stage, Voice};
use crate::media::SAMPLE_RATE_HZ;
use crate::report::{ErrorBody, ErrorCode, Header, JobState, JobUpdate, Origin, Reply, Report};
use crate::utterance::Progress;

/// A job that goes to other boards, and what is told of it here.
pub(super) struct Trip<'a> {
    pub(super) source: &'a Source,
    pub(super) job: &'a Job,
    pub(super) events: &'a mpsc::Sender<Event>,
}

/// What came back: the answer, or why there is none, and the model that was asked.
struct Back {
    result: Result<Reply, ErrorBody>,
    model: String,
}

impl Back {
    fn failed(error: ErrorBody) -> Back {
        Back {
            result: Err(error),
            model: String::new(),
        }
    }

    /// Its time as it was for this board, to which what it is about happened at `since`: the way there and back is time that it waited.
    fn as_here(&mut self, since: Instant) {
        let timing = self.result.as_mut().ok();
        if let Some(timing) = timing.and_then(|reply| reply.timing.as_mut()) {
            timing.latency_ms = since.elapsed().as_secs_f64() * 1e3;
            let worked = timing.load_ms + timing.encode_ms + timing.prefill_ms + timing.decode_ms;
            timing.queue_ms = (timing.latency_ms - worked).max(0.0);
        }
    }
}

impl Trip<'_> {
    /// Sends the job, and tells what it becomes.
    pub(super) async fn make(&self) {
        if let Work::Utterance(utterance) = &self.job.work {
            return self.utterance(utterance).await;
        }
        let back = match errand(self.job) {
            Ok(errand) => self.send(&errand, None).await,
            Err(error) => Some(Back::failed(error)),
        };
        let Some(mut back) = back else {
            let replaced = Event::Worker(WorkerNote::Replaced);
            self.events.send(replaced).await.ok();
            return;
        };
        back.as_here(started(self.job));
        let Back { result, model } = back;
        let result = match &self.job.work {
            Work::Recognize { speaker, .. } => self.recognized(speaker, result),
            Work::Ask(ask) => result.map(|reply| Reply {
                conversation: ask.conversation.clone(),
                ..reply
            }),
            _ => result,
        };
        if let Work::Caption(work) = &self.job.work {
            let caption = reports::caption(self.job, work, &result, &model);
            self.tell(Told::All(caption)).await;
        }
        self.end(result).await;
    }

    /// Sends what is said, while it is where a worker hears it.
    async fn utterance(&self, utterance: &Utterance) {
        let mut voice = Voice::of(&utterance.sound);
        let back = match errand(self.job) {
            Ok(errand) => self.send(&errand, Some(&mut voice)).await,
            Err(error) => Some(Back::failed(error)),
        };
        let (said, progress) = voice.said();
        let seconds = said.len() as f64 / f64::from(SAMPLE_RATE_HZ);
        let (truncated, ended_at) = match progress {
            Progress::Ended { truncated, at } => (truncated, at),
            _ => (false, Instant::now()),
        };
        let Some(mut back) = back else {
            return;
        };
        if progress == Progress::Cancelled {
            const WHY: &str = "whoever spoke is gone";
            self.job.ticket.cancel(WHY);
            let gone = ErrorBody::new(ErrorCode::Cancelled, WHY);
            return self.end(Err(gone)).await;
        }
        back.as_here(ended_at);
        if let Speaker::Microphone(id) = &utterance.speaker {
            let (understood, model) = self.understand(id, utterance, ended_at, &back).await;
            let length = (seconds, truncated);
            let told = reports::heard(self.job, id, utterance, length, understood, &model);
            self.tell(Told::All(told)).await;
        }
        self.end(back.result).await;
    }

    /// What an answer means at a microphone; what was written down may be asked about once more.
    async fn understand(
        &self,
        microphone: &str,
        utterance: &Utterance,
        ended_at: Instant,
        back: &Back,
    ) -> (Understood, String) {
        let model = back.model.clone();
        let rejected = |error: &ErrorBody| {
            log::warn!(source = microphone; "cannot answer to speech: {}", error.message);
            heard::rejected(self.job, error.message.clone())
        };
        let reply = match &back.result {
            Ok(reply) => reply,
            Err(error) => return (rejected(error), model),
        };
        let (commands, said) = match heard::meaning(self.job, microphone, utterance, reply) {
            Meaning::Known(understood) => return (understood, model),
            Meaning::MayBe(commands, said) => (commands, said),
        };
        let here = self.job.settings.area_of_microphone(commands, microphone);
        let errand = sentence(self.job, wording::of_sentence(commands, &said, here));
        let Some(mut second) = self.send(&errand, None).await else {
            return (heard::rejected(self.job, String::new()), model);
        };
        second.as_here(ended_at);
        let model = second.model;
        match second.result {
            Ok(second) => {
                let read = heard::read(commands, &second, here);
                let first = reply.timing.clone().unwrap_or_default();
                let timing = both(&first, second.timing.unwrap_or_default());
                let slice = second.matformer.unwrap_or_default();
                let understood = Understood::taken_for(read, Some(said), slice, timing);
                (understood, model)
            }
            Err(error) => (rejected(&error), model),
        }
    }

    /// Which command a sentence is, told in the reply's details.
    fn recognized(
        &self,
        speaker: &[String],
        result: Result<Reply, ErrorBody>,
    ) -> Result<Reply, ErrorBody> {
        let Some(commands) = &self.job.settings.commands else {
            return result;
        };
        result.map(|reply| Reply {
            details: hearing::details(heard::read(commands, &reply, commands.area_of(speaker))),
            matformer: reply.matformer,
            timing: reply.timing,
            ..Reply::default()
        })
    }

    /// What a job becomes at another board, its pieces told while they come; nothing where a newer picture has taken its place. `voice`
    /// is what is being said.
    async fn send(&self, errand: &fleet::Job, voice: Option<&mut Voice<'_>>) -> Option<Back> {
        let (ticket, asker) = (&self.job.ticket, &self.job.asker);
        if let Some(words) = self.source.refuses(&errand.work) {
            return Some(Back::failed(ErrorBody::new(ErrorCode::Invalid, words)));
        }
        let is_over = || {
            // The time of speech begins with its end.
            if let Work::Utterance(utterance) = &self.job.work
                && let Progress::Ended { at, .. } = utterance.sound.state().1
            {
                ticket.set_deadline(at + self.job.patience());
            }
            ticket.is_over()
        };
        let (sender, mut updates) = mpsc::unbounded_channel();
        let carrying = async move {
            let tell = move |stage: Stage<'_>| {
                let mut update = asker
                    .as_ref()
                    .map(|asker| JobUpdate::new(asker, JobState::Running));
                match stage {
                    Stage::Taken(worker) => {
                        log::debug!(target: "fleet", "{worker} has job {}", errand.id);
                    }
                    Stage::Piece(text) => {
                        if let Some(update) = &mut update {
                            update.partial = Some(text.to_owned());
                        }
                    }
                    Stage::Thoughts(thoughts) => {
                        update = update.filter(|update| update.header.origin.reads_thoughts());
                        if let Some(update) = &mut update {
                            update.thoughts = Some(thoughts.to_owned());
                        }
                    }
                }
                sender.send(update).ok();
            };
            self.source
                .carry_voice(errand, voice, &is_over, &tell)
                .await
        };
        let telling = async {
            while let Some(update) = updates.recv().await {
                if let Some(update) = update {
                    self.tell(Told::Asker(Box::new(update))).await;
                }
            }
        };
        let (carried, ()) = tokio::join!(carrying, telling);
        match carried {
            Ok(Outcome {
                worker,
                model,
                result,
            }) => {
                if let Err(error) = &result {
                    log::warn!(target: "fleet", "job {} at {worker}: {}", errand.id, error.message);
                }
                Some(Back { result, model })
            }
            Err(Lost::Replaced) => None,
            Err(lost) => Some(Back::failed(why(&lost, ticket))),
        }
    }

    /// Tells how the job ended: whoever asked, and everybody of one that is poison.
    async fn end(&self, result: Result<Reply, ErrorBody>) {
        if let Some(asker) = &self.job.asker {
            let update = JobUpdate::end(asker, result);
            self.tell(Told::Asker(Box::new(update))).await;
        } else if let Err(error) = result
            && error.code == ErrorCode::Poison
        {
            let update = JobUpdate::end(&nobody(self.job), Err(error));
            self.tell(Told::All(Report::JobEnded(Box::new(update))))
                .await;
        }
    }

    async fn tell(&self, told: Told) {
        self.events.send(Event::Told(told)).await.ok();
    }
}

/// When what a job is about happened.
fn started(job: &Job) -> Instant {
    match &job.work {
        Work::Caption(work) => {
            let taken = work.frame.taken_at.elapsed().unwrap_or_default();
            Instant::now()
                .checked_sub(taken)
                .unwrap_or_else(Instant::now)
        }
        _ => job.queued_at,
    }
}

/// Why a job has not come back.
fn why(lost: &Lost, ticket: &Arc<Ticket>) -> ErrorBody {
    match lost {
        Lost::Full(words) => ErrorBody::new(ErrorCode::QueueFull, words),
        _ if ticket.is_cancelled() => {
            let why = ticket.cancelled().unwrap_or_default();
            ErrorBody::new(ErrorCode::Cancelled, why)
        }
        Lost::Over(place) => ErrorBody::new(
            ErrorCode::Timeout,
            format!(
                "it was not done in time ({place}): add a worker, or raise timeout_ms or [queue] deadline_s"
            ),
        ),
        Lost::Replaced => ErrorBody::new(ErrorCode::Cancelled, "a newer picture came"),
    }
}

/// In the place of whoever asked, for what nobody asked for.
fn nobody(job: &Job) -> Header {
    Header {
        id: job.id.clone(),
        origin: Origin::Fleet { unasked: true },
        transaction: None,
        kind: match &job.work {
            Work::Caption(_) => "describe",
            _ => "transcribe",
        },
        timeout: None,
    }
}
