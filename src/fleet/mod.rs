//! Several boards share the work, by way of a NATS server with JetStream.
//!
//! A **source** has microphones, cameras or clients, and sends what its own model does not take; a **worker** has a model and takes
//! jobs when it is idle. Each kind of work is a stream with work-queue retention ([`names`]): the server keeps a job until a
//! worker is done with it, and gives it to another one where that worker dies.
//!
//! What a job becomes goes straight to its source, which confirms it; only then is the job taken off its stream. So a job that was
//! computed twice is answered once, and one whose answer was lost is computed again. A worker asks the source before it begins, too:
//! what was cancelled, answered or replaced meanwhile is not worked on.

mod carry;
mod connect;
mod duty;
mod error;
mod familiar;
mod job;
mod letter;
mod names;
mod options;
mod pieces;
mod roster;
mod sending;
mod source;
mod voice;
mod worker;

pub use carry::{Lost, Stage};
pub use connect::Link;
pub use error::FleetError;
pub use job::{Job, Outcome, Work, pcm};
pub use names::Kind;
pub use options::{FleetOptions, Role};
pub use roster::{Member, roster};
pub use source::Source;
pub use voice::Voice;
pub use worker::Worker;
