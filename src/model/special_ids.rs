//! Token ids that a model's config.json gives a meaning.

/// Token ids that `config.json` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Starts every prompt.
    pub bos: u32,
    /// Any of these ends an answer.
    pub eos: Vec<u32>,
    /// Ids around and inside media; `None` in a text-only checkpoint.
    pub media: Option<MediaIds>,
}

/// Ids around and inside media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaIds {
    /// `<start_of_image>`
    pub boi: u32,
    /// `<end_of_image>`
    pub eoi: u32,
    /// `<image_soft_token>`
    pub image: u32,
    /// `<start_of_audio>`
    pub boa: u32,
    /// `<end_of_audio>`
    pub eoa: u32,
    /// `<audio_soft_token>`
    pub audio: u32,
}

impl MediaIds {
    /// All of them.
    pub fn all(&self) -> [u32; 6] {
        [
            self.boi, self.eoi, self.image, self.boa, self.eoa, self.audio,
        ]
    }
}
