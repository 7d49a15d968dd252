//! Answers that are decoded together: a job makes a request of what was asked, its answer gets a seat in the engine, and is told when it has
//! ended. Utterances, and sound that is written down piece by piece, do not get up meanwhile: they take whoever has a seat along.

use std::ops::ControlFlow;

use super::{Desk, Task, engine_error, tell_piece, tell_thoughts, watch, whole};
use crate::daemon::job::{Job, Rank, Work};
use crate::pipeline::{Answer, Engine, EngineError, Piece, Request, SeatId, Sitter};
use crate::report::{ErrorBody, Reply};

/// A job whose answer has a seat.
pub(super) struct Seated {
    pub(super) id: SeatId,
    pub(super) job: Job,
    pub(super) queue_ms: f64,
}

/// Whether a job may begin beside those that have seats: not before more urgent ones have ended, and beyond their number only what is more
/// urgent than all of them.
pub(super) fn may_begin(engine: &Engine, rank: Rank) -> bool {
    let urgency = rank as u8;
    match engine.seated().min() {
        None => true,
        Some(most) if engine.has_seats() => urgency <= most,
        Some(most) => urgency < most,
    }
}

impl Desk {
    /// Does what is more urgent than work of `rank`, which goes on after.
    pub(super) fn give_way(&mut self, engine: &mut Engine, rank: Rank) {
        self.begin_others(engine, |_, other| other < rank);
    }

    /// Between two parts of work of `rank` that takes long: does what is more urgent, and lets answers that are as urgent begin and go on.
    pub(super) fn take_turns(&mut self, engine: &mut Engine, rank: Rank) {
        self.heartbeat.beat();
        self.begin_others(engine, |job, other| {
            other < rank || (other == rank && job.work.is_one_answer())
        });
        engine.step();
        self.tell_ended(engine);
    }

    fn begin_others(&mut self, engine: &mut Engine, which: impl Fn(&Job, Rank) -> bool) {
        self.tell_ended(engine);
        while let Some(job) = self
            .queue
            .pop_now(|job, rank| which(job, rank) && may_begin(engine, rank))
        {
            self.run(engine, job);
            self.tell_ended(engine);
        }
    }

    /// Tells whose answers have ended; whether there were any.
    pub(super) fn tell_ended(&mut self, engine: &mut Engine) -> bool {
        let mut any = false;
        while let Some((id, answer)) = engine.take_ended() {
            let Some(at) = self.seated.iter().position(|seated| seated.id == id) else {
                continue;
            };
            let Seated { job, queue_ms, .. } = self.seated.remove(at);
            let task = Task {
                engine,
                desk: self,
                job: &job,
                queue_ms,
            };
            task.answered(told(answer));
            self.used(&job);
            self.queue.done(&job.id);
            any = true;
        }
        any
    }
}

fn told(answer: Result<Answer, EngineError>) -> Result<Option<Answer>, ErrorBody> {
    whole(answer).map_err(|error| engine_error(&error))
}

impl Task<'_> {
    /// Gives the answer to what was asked a seat; nothing where there is none to be given any more.
    pub(super) fn seat(&mut self) -> Option<SeatId> {
        let seat = self.request()?.and_then(|request| {
            let sitter = self.sitter();
            let (desk, rank) = (&mut *self.desk, self.job.rank());
            let give_way = &mut |engine: &mut Engine| desk.give_way(engine, rank);
            match self.engine.seat(&request, sitter, give_way) {
                Err(EngineError::Cancelled) => Ok(None),
                seat => seat.map(Some).map_err(|error| engine_error(&error)),
            }
        });
        match seat {
            Ok(Some(seat)) => Some(seat),
            Ok(None) => {
                self.answered(Ok(None));
                None
            }
            Err(error) => {
                self.answered(Err(error));
                None
            }
        }
    }

    /// What the engine is asked; nothing where there is nothing to ask, which has been told.
    fn request(&mut self) -> Option<Result<Request, ErrorBody>> {
        match &self.job.work {
            Work::Recognize { text, speaker } => Some(self.recognize(text, speaker)),
            Work::Worded(wording) => Some(self.worded(wording)),
            Work::Caption(caption) => self.caption(caption),
            Work::Ask(ask) => Some(self.ask(ask)),
            Work::Chat(chat) => Some(self.chat(chat)),
            Work::Describe { image, wish } => Some(self.describe(image, wish)),
            Work::Transcribe(transcribe) => self.transcribe(transcribe),
            // It is never over with one request.
            Work::Utterance(_) => None,
        }
    }

    fn sitter(&self) -> Sitter {
        let streams = match &self.job.work {
            Work::Ask(ask) => ask.streams(),
            Work::Chat(chat) => chat.stream,
            _ => false,
        };
        let asker = self.job.asker.clone().filter(|_| streams);
        let events = self.desk.events.clone();
        Sitter {
            urgency: self.job.rank() as u8,
            on_step: Box::new(watch(&self.job.ticket, &self.desk.heartbeat)),
            on_piece: Box::new(move |piece| {
                match piece {
                    Piece::Text(text) => tell_piece(&events, asker.as_ref(), text),
                    Piece::Thoughts(thoughts) => {
                        tell_thoughts(&events, asker.as_ref(), thoughts);
                    }
                }
                ControlFlow::Continue(())
            }),
        }
    }

    /// Tells the answer, or why there is none; one that was broken off is told as that.
    fn answered(&self, answer: Result<Option<Answer>, ErrorBody>) {
        let since = self.job.queued_at;
        let reply = match &self.job.work {
            Work::Caption(caption) => return self.captioned(caption, answer),
            Work::Recognize { speaker, .. } => self.recognized(speaker, answer),
            Work::Ask(ask) => self.reply(answer, since).map(|reply| Reply {
                conversation: ask.conversation.clone(),
                ..reply
            }),
            _ => self.reply(answer, since),
        };
        self.end(reply);
    }
}
