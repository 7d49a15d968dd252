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
        let stream = self.start_clip(false, &mut conversation.timing)?;
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
        let frames = self.encode_more(&mut speech.stream, samples, &mut rows)?;
        speech.conversation.timing.encode_ms += milliseconds(start);
        let start = Instant::now();
        let ids = vec![speech.soft_id; rows.len() / self.spec().hidden_size];
        if ids.is_empty() {
            return Ok(());
        }
        // At most a batch of them, so that nothing waits for long.
        self.prefill(&mut speech.conversation, &ids, &rows, &mut |_| {})?;
        if let Some(frames) = frames {
            self.batches.read(frames, start.elapsed());
        }
        Ok(())
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
        let (mut soft, frames) = (Vec::new(), stream.waiting_frames());
        let encoding = Instant::now();
        stream.finish(&self.pool, self.clip_padding(), &mut soft)?;
        self.batches.encoded(frames, encoding.elapsed());
        conversation.timing.encode_ms += milliseconds(start);
        // With the text behind it: the weights are read once for both.
        let mut ids = vec![soft_id; soft.len() / self.spec().hidden_size];
        ids.extend(suffix);
        let rows = self.media_rows(&ids, &soft);
        self.prefill(&mut conversation, &ids, &rows, give_way)?;
        let mine = self.begin_answer(conversation, generation)?;
        self.decode(mine, &mut text_only(on_text), give_way)
    }
}

impl Speech {
    /// Bytes of keys and values that it holds so far.
    pub fn bytes(&self) -> u64 {
        self.conversation.cache.used_bytes()
    }
}
