//! Everything that the daemon's loop reacts to.

use std::sync::Arc;

use super::DaemonError;
use super::demands::{check_cameras, check_slices};
use crate::config::Config;
use crate::media::CaptureEvent;
use crate::pipeline::{
    EarlierAnswers, Engine, EngineError, Group, GroupMemory, GuessCounts, PictureSpec, Residency,
    RowCounts,
};
use crate::report::{Ability, JobUpdate, ModelCard, Report, Request};

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
    /// The time is over to settle which board answers: the microphone, and the number of the wake word.
    Settled(String, u64),
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
    /// A picture that waited at the fleet has been replaced by a newer one.
    Replaced,
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
    /// To begin to read a tower while the worker is busy; absent where other boards have the models.
    pub(super) residency: Option<Arc<Residency>>,
    /// To have forgotten what a microphone or camera was answered.
    pub(super) earlier: EarlierAnswers,
}

impl Loaded {
    /// Whether the model does what a configuration asks of it.
    pub(super) fn check(&self, config: &Config) -> Result<(), DaemonError> {
        if self.residency.is_none() {
            return Ok(()); // what other boards have shows when they are asked
        }
        check_slices(&config.matformer, &self.slices)?;
        match &self.pictures {
            Some(pictures) => check_cameras(&config.camera, pictures),
            None => Ok(()),
        }
    }

    /// Begins to read a tower that will be needed.
    pub(super) fn prefetch(&self, group: Group) {
        if let Some(residency) = &self.residency {
            residency.prefetch(group);
        }
    }

    /// Of a board that has no model: other boards of the fleet do its work. `thinks` tells whether one of them can.
    pub(super) fn elsewhere(thinks: Ability) -> Loaded {
        const NAME: &str = "fleet";
        Loaded {
            model: NAME.to_owned(),
            card: Arc::new(ModelCard {
                name: NAME.to_owned(),
                sees: true,
                hears: true,
                calls: true,
                thinks,
                ..ModelCard::default()
            }),
            quantisation: "of other boards".to_owned(),
            slices: Vec::new(),
            pictures: None,
            isa: String::new(),
            threads: 0,
            memory: Vec::new(),
            residency: None,
            earlier: EarlierAnswers::default(),
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
            residency: Some(Arc::clone(engine.residency())),
            earlier: engine.earlier_answers(),
        }
    }
}
