//! Everything that the daemon's loop reacts to.

use std::sync::Arc;

use super::DaemonError;
use super::demands::{check_cameras, check_slices};
use crate::config::Config;
use crate::media::CaptureEvent;
use crate::pipeline::{
    EarlierAnswers, Engine, EngineError, GroupMemory, GuessCounts, PictureSpec, Residency,
    RowCounts,
};
use crate::report::{JobUpdate, ModelCard, Report, Request};

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A microphone or a camera.
    Captured(CaptureEvent),
    /// Somebody asks for something.
    Requested(Box<Request>),
    /// The worker has something to tell.
    Told(Told),
    /// Microphones and cameras that a reload took out have let go of their devices, or are left.
    Closed,
    /// The worker tells about itself.
    Worker(WorkerNote),
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGHUP.
    Reload,
    /// A second has passed.
    Tick,
}

/// What is told, and to whom.
#[derive(Debug)]
pub(super) enum Told {
    /// Everybody.
    All(Report),
    /// Whoever asked.
    Asker(Box<JobUpdate>),
}

/// What the worker tells about itself.
#[derive(Debug)]
pub(super) enum WorkerNote {
    /// The model is open.
    Loaded(Box<Loaded>),
    /// The model cannot be opened; the worker has ended.
    OpenFailed(EngineError),
    /// Memory of each parameter group changed; how many rows of per-layer embeddings have been needed, and what came of guesses.
    Memory(Vec<GroupMemory>, RowCounts, Vec<GuessCounts>),
    /// An utterance that has paused is answered as if it had ended.
    AnswersEarly,
    /// Somebody went on: such an answer is thrown away.
    ThrewAway,
}

/// What is known of the model once it is open.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// Its name: that of its directory.
    pub(super) model: String,
    /// What clients are told of it.
    pub(super) card: Arc<ModelCard>,
    /// `bf16` for a checkpoint, the recipe of a pack.
    pub(super) quantisation: String,
    /// The slices that it serves.
    pub(super) slices: Vec<String>,
    /// How it sees pictures, if it does.
    pub(super) pictures: Option<PictureSpec>,
    pub(super) isa: String,
    pub(super) threads: usize,
    /// Memory of each parameter group at the start.
    pub(super) memory: Vec<GroupMemory>,
    /// To begin to read a tower while the worker is busy.
    pub(super) residency: Arc<Residency>,
    /// To have forgotten what a microphone or camera was answered.
    pub(super) earlier: EarlierAnswers,
}

impl Loaded {
    /// Whether the model does what a configuration asks of it.
    pub(super) fn check(&self, config: &Config) -> Result<(), DaemonError> {
        check_slices(&config.matformer, &self.slices)?;
        match &self.pictures {
            Some(pictures) => check_cameras(&config.camera, pictures),
            None => Ok(()),
        }
    }

    pub(super) fn of(engine: &Engine) -> Loaded {
        let name = engine
            .dir()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let model = name.trim_end_matches(".pack").to_owned();
        Loaded {
            card: Arc::new(ModelCard {
                name: model.clone(),
                ..engine.card()
            }),
            model,
            quantisation: engine.quantization(),
            slices: engine.slice_names(),
            pictures: engine.spec().pictures.clone(),
            isa: engine.isa_name(),
            threads: engine.threads(),
            memory: engine.memory(),
            residency: Arc::clone(engine.residency()),
            earlier: engine.earlier_answers(),
        }
    }
}
