//! What the model is, for clients that ask before they use it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// What is known of the model that runs, and does not change while it does.
#[derive(Clone, Debug, Default)]
pub struct ModelCard {
    /// Its name: that of its directory.
    pub name: String,
    /// Its family, for people: `Gemma 4`.
    pub family: String,
    /// How its weights are stored.
    pub quantisation: String,
    /// Its slices, the whole model first.
    pub slices: Vec<String>,
    /// Tokens of context, prompt and answer together.
    pub context: usize,
    /// Width of the text model.
    pub width: usize,
    /// Layers of the text model.
    pub layers: usize,
    /// Tokens of its vocabulary.
    pub vocabulary: usize,
    /// Parameters, of all groups.
    pub parameters: u64,
    /// Bytes of its weights.
    pub bytes: u64,
    /// When its weights were written.
    pub modified: Option<SystemTime>,
    /// SHA-256 of its list of files or, of a checkpoint as published, of its config.json; hexadecimal.
    pub digest: String,
    /// Whether it takes pictures.
    pub sees: bool,
    /// Whether it takes sound.
    pub hears: bool,
    /// Whether it can think before it answers.
    pub thinks: Ability,
    /// Whether it can call tools.
    pub calls: bool,
    /// What a picture may become, where that can be chosen, soft tokens.
    pub soft_tokens: Vec<usize>,
    /// Its own chat template, for people; the prompt is written by this program.
    pub template: String,
}

/// Whether a model can do something. On a board without one, that changes with the boards that work for it.
#[derive(Clone)]
pub struct Ability(Arc<dyn Fn() -> bool + Send + Sync>);

impl Ability {
    /// As it is told by `can`, whenever somebody wants to know.
    pub fn of(can: impl Fn() -> bool + Send + Sync + 'static) -> Ability {
        Ability(Arc::new(can))
    }

    /// Whether it can do it now.
    pub fn can(&self) -> bool {
        (self.0)()
    }
}

impl From<bool> for Ability {
    fn from(can: bool) -> Ability {
        Ability::of(move || can)
    }
}

impl Default for Ability {
    fn default() -> Ability {
        false.into()
    }
}

impl fmt::Debug for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.can().fmt(f)
    }
}

impl ModelCard {
    /// The family in one word of small letters, as other programs name it.
    pub fn architecture(&self) -> String {
        self.family.to_lowercase().replace(' ', "")
    }
}
