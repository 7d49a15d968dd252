//! What the model is, for clients that ask before they use it.

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
    pub thinks: bool,
    /// Whether it can call tools.
    pub calls: bool,
    /// What a picture may become, where that can be chosen, soft tokens.
    pub soft_tokens: Vec<usize>,
    /// Its own chat template, for people; the prompt is written by this program.
    pub template: String,
}

impl ModelCard {
    /// The family in one word of small letters, as other programs name it.
    pub fn architecture(&self) -> String {
        self.family.to_lowercase().replace(' ', "")
    }
}
