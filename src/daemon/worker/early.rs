//! An utterance that has paused, answered as if it had ended: told when it has, thrown away where its speaker goes on.
//!
//! What was heard goes on by itself in a copy, so nothing has to be taken back. The copy hears what is not a whole piece yet, as an
//! utterance that is over has it heard: its answer is the one that the utterance would have got then, bit by bit.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::utterance::Spoken;
use super::{Task, tell, watch};
use crate::daemon::event::WorkerNote;
use crate::daemon::hearing::{Early, Hearing, Outcome, Understood};
use crate::daemon::job::{Job, PIECE_SAMPLES, Utterance};
use crate::pipeline::{EngineError, Lessons, Speech};
use crate::report::EventType;
use crate::utterance::Progress;

impl Task<'_> {
    /// Answers to an utterance that has paused, where it still has. Given is what has been made of the utterance, with that answer; nothing
    /// where it has ended with it.
    pub(super) fn answer_early(
        &mut self,
        utterance: &Utterance,
        mut hearing: Box<Hearing>,
    ) -> Option<Box<Hearing>> {
        let rest = utterance.sound.rest();
        let Some(rest) = rest.filter(|rest| rest.len() < PIECE_SAMPLES) else {
            return Some(hearing);
        };
        if hearing.early.take().is_some() {
            self.threw_away();
        }
        tell(&self.desk.events, WorkerNote::AnswersEarly);
        let spoken = Spoken {
            samples: hearing.samples + rest.len(),
            truncated: false,
            ended_at: Instant::now(),
        };
        let holds = while_it_holds(self.job, utterance, rest.len());
        let mut step = watch(&self.job.ticket, &self.desk.heartbeat);
        let usual = self.engine.swap_on_step(Box::new(move || match holds() {
            true => step(),
            false => ControlFlow::Break(()),
        }));
        let held = self.engine.hold_lessons(Some(Lessons::new()));
        let outcome = self.as_if_over(utterance, hearing.speech.clone(), &rest, spoken.ended_at);
        let lessons = self.engine.hold_lessons(held).unwrap_or_default();
        drop(self.engine.swap_on_step(usual));
        if self.job.ticket.is_over() {
            self.give_up(utterance, spoken, EngineError::Cancelled);
            return None;
        }
        if !while_it_holds(self.job, utterance, rest.len())() {
            self.threw_away();
            return Some(hearing);
        }
        if let Ok(Outcome::Understood(understood)) = &outcome
            && self.is_certain(understood)
        {
            self.engine.learn(lessons);
            self.tell_outcome(utterance, outcome, spoken);
            return None;
        }
        hearing.early = Some(Early {
            rest: rest.len(),
            outcome,
            lessons,
        });
        Some(hearing)
    }

    /// Notes that somebody went on after an answer was begun.
    pub(super) fn threw_away(&self) {
        tell(&self.desk.events, WorkerNote::ThrewAway);
    }

    fn as_if_over(
        &mut self,
        utterance: &Utterance,
        mut speech: Speech,
        rest: &[f32],
        ended_at: Instant,
    ) -> Result<Outcome, EngineError> {
        if !rest.is_empty() {
            self.engine.hear(&mut speech, rest)?;
        }
        self.outcome(utterance, speech, ended_at)
    }

    /// Whether it is a command that nobody waits for the end of.
    fn is_certain(&self, understood: &Understood) -> bool {
        let commands = &self.settings().config.commands;
        let confidence = understood.confidence.unwrap_or_default();
        commands.publish_early
            && understood.event_type == EventType::Command
            && confidence >= commands.early_confidence
    }
}

/// Whether nothing more has been said. Where the utterance has ended meanwhile, its deadline has begun.
fn while_it_holds(job: &Job, utterance: &Utterance, rest: usize) -> impl Fn() -> bool + use<> {
    let (ticket, patience) = (Arc::clone(&job.ticket), job.patience());
    let sound = Arc::clone(&utterance.sound);
    move || match sound.state() {
        (waiting, Progress::Paused) => waiting == rest,
        (waiting, Progress::Ended { at, .. }) => {
            ticket.set_deadline(at + patience);
            waiting == rest
        }
        (_, Progress::Speaking | Progress::Cancelled) => false,
    }
}
