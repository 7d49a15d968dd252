//! Answers that are decoded together: a pass takes tokens of several, each with keys and values, a sampler, a grammar and guesses of its own,
//! and reads the weights once. What comes of each is, bit by bit, what would have come of it alone.

use std::time::{Duration, Instant};

use super::answer::OnPiece;
use super::answering::Answering;
use super::engine::{Engine, GiveWay};
use super::error::EngineError;
use super::seats::{MAX_ANSWERS, OnStep, Seat, SeatId, Sitter};
use super::{Answer, FinishReason, Request};
use crate::model::decoder::Lane;

impl Engine {
    /// Begins to answer a request: its prompt is taken, and its first token chosen. [`Engine::step`] decodes it, together with others, and
    /// [`Engine::take_ended`] gives the answer. More urgent work is done meanwhile, and answers that are as urgent go on.
    ///
    /// # Errors
    /// As [`Engine::answer`], before its first token.
    pub fn seat(
        &mut self,
        request: &Request,
        sitter: Sitter,
        give_way: GiveWay<'_>,
    ) -> Result<SeatId, EngineError> {
        let answering = self.begin(request, give_way)?;
        self.seats.given += 1;
        let id = SeatId(self.seats.given);
        let mut seat = Seat {
            id,
            sitter,
            answering,
        };
        let start = Instant::now();
        let read = self.read_seat(&mut seat);
        let planned =
            read.and_then(|()| self.plan_pass(&mut seat.answering, self.seats.taken.len()));
        seat.answering.add_time(start);
        match planned {
            Ok(()) if seat.answering.next.is_some() => self.seats.taken.push(seat),
            planned => self.leave(seat, planned),
        }
        Ok(id)
    }

    /// One pass of the answers that have seats: of the most urgent, and of those that can share it. Nothing where there are none.
    pub fn step(&mut self) {
        // Whoever has a seat is told of it there.
        self.pass_together(None).ok();
    }

    /// How urgent the answers are that have seats.
    pub fn seated(&self) -> impl Iterator<Item = u8> {
        self.seats.taken.iter().map(|seat| seat.sitter.urgency)
    }

    /// So many answers are decoded together from now on, at most; those that have begun go on.
    pub fn set_answers(&mut self, answers: usize) {
        self.options.answers = answers.clamp(1, MAX_ANSWERS);
    }

    /// Whether one more may have a seat beside them.
    pub fn has_seats(&self) -> bool {
        self.seats.taken.len() < self.options.answers
    }

    /// An answer that has ended, the first one first.
    pub fn take_ended(&mut self) -> Option<(SeatId, Result<Answer, EngineError>)> {
        let ended = &mut self.seats.ended;
        (!ended.is_empty()).then(|| ended.remove(0))
    }

    /// One pass of `mine`, if it is given, and of answers that can share it.
    ///
    /// # Errors
    /// Those of `mine`; whoever has a seat gets the own.
    pub(super) fn pass_together(
        &mut self,
        mut mine: Option<(&mut Answering, OnPiece<'_>)>,
    ) -> Result<(), EngineError> {
        let mut seats = std::mem::take(&mut self.seats.taken);
        self.seats.passes += 1;

        let result = match &mut mine {
            Some((mine, on_piece)) if seats.is_empty() => self.pass_of_one(mine, on_piece),
            mine => self.pass_of_several(mine, &mut seats),
        };
        // Nothing was seated meanwhile: no work was given way to.
        self.seats.taken = seats;
        result
    }

    fn pass_of_one(
        &mut self,
        mine: &mut Answering,
        on_piece: OnPiece<'_>,
    ) -> Result<(), EngineError> {
        let start = Instant::now();
        self.pass_alone(mine)?;
        let pass = &mine.writing.pass;
        let (tokens, is_plain) = (pass.tokens(), pass.is_plain());
        self.read_on(mine, on_piece)?;
        if is_plain && tokens > 0 {
            self.guesser.passed(tokens, start.elapsed());
        }
        self.plan_pass(mine, 0)?;
        mine.add_time(start);
        Ok(())
    }

    fn pass_of_several(
        &mut self,
        mine: &mut Option<(&mut Answering, OnPiece<'_>)>,
        seats: &mut Vec<Seat>,
    ) -> Result<(), EngineError> {
        let start = Instant::now();
        let mut riders: Vec<Rider<'_>> = seats.iter_mut().map(Rider::of).collect();
        if let Some((answering, on_piece)) = mine {
            riders.push(Rider {
                id: None,
                urgency: self.urgency,
                answering,
                on_step: None,
                on_piece: &mut **on_piece,
            });
        }
        // The most urgent one goes, and with it whoever has its slice; of equals the one that has waited longest.
        riders.sort_by_key(|rider| (rider.urgency, rider.answering.served));
        let Some(first) = riders.first() else {
            return Ok(());
        };
        let slice = first.answering.conversation.slice.clone();
        let goes_along = |rider: &Rider<'_>| rider.answering.conversation.slice == slice;
        let (mut riders, mut waiting): (Vec<_>, Vec<_>) = riders.into_iter().partition(goes_along);
        let chunk = self.options.prefill_chunk.clamp(1, self.options.context);
        let room = MAX_ANSWERS.min(chunk);
        let most = room.min(self.options.answers).min(riders.len());
        waiting.extend(riders.split_off(most));
        waiting.iter_mut().for_each(Rider::wait);

        let mut failed = match &mut riders[..] {
            [rider] => self.pass_of_rider(rider).err(),
            riders => self.pass_of_riders(riders, room).err(),
        }
        .map(|error| vec![(riders[0].id, error)])
        .unwrap_or_default();
        let (mut tokens, mut is_plain) = (0, failed.is_empty());
        let mut served: Vec<&mut Rider<'_>> = Vec::with_capacity(riders.len());
        for rider in &mut riders {
            if rider.answering.next.is_some() || failed.iter().any(|(id, _)| *id == rider.id) {
                continue;
            }
            rider.answering.served = self.seats.passes;
            let pass = &rider.answering.writing.pass;
            tokens += pass.tokens();
            is_plain &= pass.is_plain();
            let read = rider.with_hook(self, |engine, answering, on_piece| {
                engine.read_on(answering, on_piece)
            });
            match read {
                Ok(()) => served.push(rider),
                Err(error) => failed.push((rider.id, error)),
            }
        }
        if is_plain {
            self.guesser.passed(tokens, start.elapsed());
        }
        let beside = served.len().saturating_sub(1);
        for rider in served {
            let planned = self.plan_pass(rider.answering, beside);
            failed.extend(planned.err().map(|error| (rider.id, error)));
            rider.answering.add_time(start);
        }
        let mut error_of = |id: Option<SeatId>| {
            let at = failed.iter().position(|(failed, _)| *failed == id)?;
            Some(failed.remove(at).1)
        };
        let gone = seats.extract_if(.., |seat| seat.answering.next.is_none());
        for seat in gone.collect::<Vec<_>>() {
            let result = error_of(Some(seat.id)).map_or(Ok(()), Err);
            self.leave(seat, result);
        }
        error_of(None).map_or(Ok(()), Err)
    }

    fn pass_of_rider(&mut self, rider: &mut Rider<'_>) -> Result<(), EngineError> {
        rider.with_hook(self, |engine, answering, _| engine.pass_alone(answering))
    }

    /// One pass of several answers, in `room` tokens: one of each, and what is left for what has to follow and for guesses, those of the
    /// first one first. A failure is the first one's; the others are as they were.
    fn pass_of_riders(&mut self, riders: &mut [Rider<'_>], room: usize) -> Result<(), EngineError> {
        let (mut left, mut ids) = (room - riders.len(), Vec::with_capacity(room));
        let slice = riders[0].answering.conversation.slice.clone();
        let mut lanes = Vec::with_capacity(riders.len());
        for rider in &mut *riders {
            let Answering {
                conversation,
                writing,
                next: Some(pass),
                ..
            } = &mut *rider.answering
            else {
                continue;
            };
            let guesses = pass.share(ids.len(), 1 + left);
            self.guesser.cut(&mut writing.open, guesses);
            left -= pass.tokens() - 1;
            ids.extend_from_slice(pass.ids());
            lanes.push(Lane {
                cache: &mut conversation.cache,
                tokens: pass.tokens(),
            });
        }
        let on_step = &mut self.on_step;
        self.multiplied = 0..0;
        let taken = self
            .decoder
            .take_together(&self.pool, &mut lanes, &ids, &slice, &mut || {
                on_step().is_break();
            });
        if let Err(error) = taken {
            riders[0].answering.next = None;
            return Err(error.into());
        }
        for rider in riders {
            if let Some(pass) = rider.answering.next.take() {
                rider.answering.passed(pass);
            }
        }
        Ok(())
    }

    fn read_seat(&mut self, seat: &mut Seat) -> Result<(), EngineError> {
        Rider::of(seat).with_hook(self, |engine, answering, on_piece| {
            engine.read_on(answering, on_piece)
        })
    }

    fn leave(&mut self, mut seat: Seat, result: Result<(), EngineError>) {
        let answer = result.and_then(|()| {
            let on_piece = &mut *seat.sitter.on_piece;
            self.end_answer(seat.answering, on_piece)
        });
        self.seats.ended.push((seat.id, answer));
    }

    /// Between two parts of a prompt: lets more urgent work be done, whose answers come to their end, and gives those that are as urgent
    /// a pass, so that a long prompt holds up nobody. Tells how long that took.
    pub(super) fn pause(&mut self, give_way: GiveWay<'_>) -> Duration {
        let (start, mine) = (Instant::now(), self.urgency);
        if self.seated().any(|urgency| urgency == mine) {
            self.step();
        }
        give_way(self);
        while self.seated().any(|urgency| urgency < mine) {
            self.step();
            give_way(self);
        }
        start.elapsed()
    }

    /// Works on something as urgent as that from now on, the least first, and gives what it was before.
    pub fn swap_urgency(&mut self, urgency: u8) -> u8 {
        std::mem::replace(&mut self.urgency, urgency)
    }
}

/// An answer that goes along in a pass.
struct Rider<'a> {
    /// Its seat; `None` where it has none.
    id: Option<SeatId>,
    urgency: u8,
    answering: &'a mut Answering,
    /// `None` where the engine's is the one.
    on_step: Option<&'a mut OnStep>,
    on_piece: OnPiece<'a>,
}

impl<'a> Rider<'a> {
    fn of(seat: &'a mut Seat) -> Rider<'a> {
        Rider {
            id: Some(seat.id),
            urgency: seat.sitter.urgency,
            answering: &mut seat.answering,
            on_step: Some(&mut seat.sitter.on_step),
            on_piece: &mut *seat.sitter.on_piece,
        }
    }

    /// Looks whether it is broken off while others take a pass.
    fn wait(&mut self) {
        if (self.on_step.as_mut()).is_some_and(|on_step| on_step().is_break()) {
            self.answering.writing.finish = Some(FinishReason::Cancelled);
            self.answering.next = None;
        }
    }

    /// Does something with the answer while its hook is the engine's.
    fn with_hook(
        &mut self,
        engine: &mut Engine,
        does: impl FnOnce(&mut Engine, &mut Answering, OnPiece<'_>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut swap = |engine: &mut Engine| {
            if let Some(on_step) = &mut self.on_step {
                std::mem::swap(&mut engine.on_step, *on_step);
            }
        };
        swap(engine);
        let done = does(engine, self.answering, self.on_piece);
        swap(engine);
        done
    }
}
