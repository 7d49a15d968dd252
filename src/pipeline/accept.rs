//! What there is to object to in a request, before any work is done.

use super::dialogue::written;
use super::engine::Engine;
use super::error::EngineError;
use super::{Media, Request, Timing};
use crate::model::decoder::TextError;
use crate::model::prompt;

impl Engine {
    /// Looks whether a request can be answered, as far as that shows before a sound is heard: its slice, its grammar, its pictures' size,
    /// and whether the context has room for it.
    ///
    /// # Errors
    /// As [`Engine::answer`].
    pub fn accepts(&mut self, request: &Request) -> Result<(), EngineError> {
        self.slice(request.matformer.as_deref())?;
        let thinking = request.thinking == Some(true);
        let generation = &request.generation;
        self.check(thinking, generation.offered())?;
        generation.sampling.check()?;
        let messages = written(&request.messages, |media| self.place(media))?;
        let rendered = self.render(&messages, thinking, generation.offered())?;
        let needed = rendered.ids.len();
        let context = self.options.context;
        if needed > context {
            return Err(EngineError::Text(TextError::ContextFull {
                needed,
                used: 0,
                context,
                limit: self.spec().max_context,
            }));
        }
        // Of what the context has room for, a grammar is not too large to be made.
        if let Some(grammar) = self.answer_grammar(generation)? {
            self.constraint(&grammar)?;
        }
        Ok(())
    }

    /// A medium's place in the prompt; how many soft tokens a sound becomes shows when it is heard.
    fn place(&mut self, media: &Media) -> Result<prompt::Part, EngineError> {
        let mut timing = Timing::default();
        match media {
            Media::Again(media) => self.place(media),
            Media::Image(image, asked) => {
                if let Some(pictures) = &self.spec().pictures {
                    asked.check(pictures)?;
                }
                let options = asked.or(self.encoders.pictures);
                let encoder = self.encoders.vision(&self.checkpoint, &mut timing)?;
                let size = encoder.input_size(options, image.width_px, image.height_px)?;
                let soft_tokens = encoder.soft_tokens(size);
                Ok(prompt::Part::Image { soft_tokens })
            }
            Media::Clip(_) => {
                self.audio_encoder(&mut timing)?;
                Ok(prompt::Part::Audio { soft_tokens: 0 })
            }
        }
    }
}
