//! Who has a seat: answers that are decoded together, and those that have ended.

use std::ops::ControlFlow;

use super::Answer;
use super::answer::Piece;
use super::answering::Answering;
use super::error::EngineError;

/// Answers that are decoded together at most, and tokens of the pass that they share, guesses included: beyond these, reading the weights
/// is no longer what a pass waits for.
pub const MAX_ANSWERS: usize = 8;

/// See [`Engine::on_step`](super::Engine::on_step).
pub type OnStep = Box<dyn FnMut() -> ControlFlow<()> + Send>;

/// See [`Sitter`].
pub type OnSeatPiece = Box<dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send>;

/// Whom an answer with a seat is for.
pub struct Sitter {
    /// How urgent it is, the least first.
    pub urgency: u8,
    /// As [`Engine::on_step`](super::Engine::on_step), for this answer alone. Where others share a pass, it is broken off behind it.
    pub on_step: OnStep,
    /// Gets the answer as it comes, and may end it.
    pub on_piece: OnSeatPiece,
}

/// Which answer it is, of those that have or had a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatId(pub(super) u64);

pub(super) struct Seat {
    pub(super) id: SeatId,
    pub(super) sitter: Sitter,
    pub(super) answering: Answering,
}

/// Answers on their way, and those that have ended.
#[derive(Default)]
pub(super) struct Seats {
    pub(super) taken: Vec<Seat>,
    pub(super) ended: Vec<(SeatId, Result<Answer, EngineError>)>,
    pub(super) given: u64,
    /// Passes so far.
    pub(super) passes: u64,
}
