//! Speech that is heard while it is spoken: encoded and prefilled as it comes, so that at its end only the tail, the
//! closing text and the answer remain.

use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::milliseconds;
use super::answer::text_only;
use super::conversation::Conversation;
use super::engine::{Engine, GiveWay};
use super::error::EngineError;
use super::prefixes::Known;
use super::{Answer, AudioStream, Generation};
use crate::model::prompt::{Message, Part, Role};

/// A clip that is being heard, with the prompt around it.
///
/// The text model is causal, so prefilling what comes before the clip, then its soft tokens as they become final, gives
/// what prefilling the whole prompt at once gives.
///
/// A clone has been heard as far, and each goes on by itself: so a clip can be answered as if it had ended, and then go on.
#[derive(Clone)]
pub struct Speech {
    conversation: Conversation,
    stream: AudioStream,
    /// The soft-token id, and the ids that stand behind the clip.
    soft_id: u32,
    suffix: Vec<u32>,
}

impl Engine {
    /// Starts to hear a clip: loads the audio encoder, and prefills what stands before the clip in the prompt.
    ///
    /// `prompt` stands behind the clip in the same user turn.
    ///
    /// # Errors
    /// The checkpoint has no audio encoder, no such slice exists, or the prompt does not fit the context.
    pub fn start_speech(
        &mut self,
        system: Option<&str>,
        prompt: &str,
        matformer: Option<&str>,
    ) -> Result<Speech, EngineError> {
        self.start_speech_giving_way(system, prompt, matformer, &mut |_| {})
    }

    /// As [`Engine::start_speech`]; what is more urgent is done between two chunks of the prompt.
    ///
    /// # Errors
    /// As there.
    pub fn start_speech_giving_way(
        &mut self,
        system: Option<&str>,
        prompt: &str,
        matformer: Option<&str>,
        give_way: GiveWay<'_>,
    ) -> Result<Speech, EngineError> {
        let mut conversation = self.conversation(matformer)?;
        let stream = self.start_clip(&mut conversation.timing)?;
        let system = system.map(|text| Message::text(Role::System, text));
        let user = Message {
            role: Role::User,
            content: vec![
                Part::Audio { soft_tokens: 0 },
                Part::Text(prompt.to_owned()),
            ],
        };
        let messages: Vec<Message> = system.into_iter().chain([user]).collect();
        let mut prefix = self.render(&messages, false, &[])?;
        // The prompt has one clip, without soft tokens: it is cut where they will stand.
        let at = prefix
            .media
            .first()
            .map_or(prefix.ids.len(), |clip| clip.soft_tokens.start);
        let suffix = prefix.ids.split_off(at);
        let soft_id = self.spec().ids.media.map_or(0, |media| media.audio);
        let before = Known {
            ids: &prefix.ids,
            rows: &[],
            fixed: prefix.ids.len(),
            goes_on: false,
            calls: false,
            more_follows: true,
        };
        self.prefill_known(&mut conversation, before, give_way)?;
        Ok(Speech {
            conversation,
            stream,
            soft_id,
            suffix,
        })
    }

    /// Hears 16 kHz mono samples; soft tokens that became final go into the text model.
    ///
    /// # Errors
    /// The clip would be longer than 30 s (nothing of `samples` is then heard), the context is full, or
    /// [`EngineError::Cancelled`]: then the speech cannot go on.
    pub fn hear(&mut self, speech: &mut Speech, samples: &[f32]) -> Result<(), EngineError> {
        if (self.on_step)().is_break() {
            return Err(EngineError::Cancelled);
        }
        let start = Instant::now();
        self.audio_encoder(&mut speech.conversation.timing)?;
        let mut rows = Vec::new();
        speech.stream.push(&self.pool, samples, &mut rows)?;
        speech.conversation.timing.encode_ms += milliseconds(start);
        // At most a batch of them, so that nothing waits for long.
        self.prefill_soft_tokens(&mut speech.conversation, speech.soft_id, &rows, &mut |_| {})
    }

    /// Ends the clip and answers.
    ///
    /// # Errors
    /// The clip is shorter than one frame, or the context is full.
    pub fn finish_speech(
        &mut self,
        speech: Speech,
        generation: &Generation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, EngineError> {
        self.finish_speech_giving_way(speech, generation, on_text, &mut |_| {})
    }

    /// As [`Engine::finish_speech`]; what is more urgent is done meanwhile. The answer is the same, bit by bit.
    ///
    /// # Errors
    /// As there.
    pub fn finish_speech_giving_way(
        &mut self,
        speech: Speech,
        generation: &Generation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
        give_way: GiveWay<'_>,
    ) -> Result<Answer, EngineError> {
        let Speech {
            mut conversation,
            stream,
            soft_id,
            suffix,
        } = speech;
        let start = Instant::now();
        self.audio_encoder(&mut conversation.timing)?;
        let mut rows = Vec::new();
        stream.finish(&self.pool, self.clip_padding(), &mut rows)?;
        conversation.timing.encode_ms += milliseconds(start);
        self.prefill_soft_tokens(&mut conversation, soft_id, &rows, give_way)?;
        let hard = self.media_rows(&suffix, &[]);
        self.prefill(&mut conversation, &suffix, &hard, give_way)?;
        let mine = self.begin_answer(conversation, generation)?;
        self.decode(mine, &mut text_only(on_text), give_way)
    }

    fn prefill_soft_tokens(
        &mut self,
        conversation: &mut Conversation,
        soft_id: u32,
        rows: &[f32],
        give_way: GiveWay<'_>,
    ) -> Result<(), EngineError> {
        match rows.len() / self.spec().hidden_size {
            0 => Ok(()),
            tokens => self.prefill(conversation, &vec![soft_id; tokens], rows, give_way),
        }
    }
}

impl Speech {
    /// Bytes of keys and values that it holds so far.
    pub fn bytes(&self) -> u64 {
        self.conversation.cache.used_bytes()
    }
}
