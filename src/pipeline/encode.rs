//! Pictures and clips to soft tokens, as a request needs them.

use std::sync::Arc;
use std::time::Instant;

use super::answer::milliseconds;
use super::batches::FRAME_MS;
use super::engine::{Engine, GiveWay};
use super::error::EngineError;
use super::kept_media::Encoded;
use super::{AudioStream, Media, SoftTokenPadding, Timing};
use crate::media::SAMPLE_RATE_HZ;
use crate::model::decoder::TextError;
use crate::model::encoder::AudioEncoder;
use crate::model::prompt::Part;

impl Engine {
    /// The soft tokens `[tokens, text width]` of a medium that nothing is asked about: to compare encoders.
    ///
    /// # Errors
    /// The checkpoint has no such encoder, or the medium cannot be encoded.
    pub fn soft_tokens(&mut self, media: &Media) -> Result<Vec<f32>, EngineError> {
        let mut rows = Vec::new();
        self.encode(media, &mut rows, &mut Timing::default(), &mut |_| {})?;
        Ok(rows)
    }

    /// Appends a medium's soft tokens to `rows` and gives its place in the prompt; gives way between its parts.
    pub(super) fn encode(
        &mut self,
        media: &Media,
        rows: &mut Vec<f32>,
        timing: &mut Timing,
        give_way: GiveWay<'_>,
    ) -> Result<Part, EngineError> {
        match media {
            Media::Again(media) => self.encode_again(media, rows, timing, give_way),
            Media::Image(image, asked) => {
                if let Some(pictures) = &self.spec().pictures {
                    asked.check(pictures)?;
                }
                let options = asked.or(self.encoders.pictures);
                let encoder = self.encoders.vision(&self.checkpoint, timing)?;
                // Before a picture of that size is made, and looked at for nothing.
                let size = encoder.input_size(options, image.width_px, image.height_px)?;
                self.check_room(rows.len() / self.spec().hidden_size + encoder.soft_tokens(size))?;
                let mut start = Instant::now();
                let [width_px, height_px] = size;
                let resized = image.resized(width_px, height_px, encoder.resampling());
                let pool = Arc::clone(&self.pool);
                let mut broken_off = (self.on_step)().is_break();
                let tokens = encoder.encode(&pool, &resized.pixels, size, &mut || {
                    broken_off |= (self.on_step)().is_break();
                    if !broken_off {
                        start += self.pause(give_way);
                    }
                })?;
                if broken_off {
                    return Err(EngineError::Cancelled);
                }
                rows.extend_from_slice(&tokens);
                timing.encode_ms += milliseconds(start);
                Ok(Part::Image {
                    soft_tokens: tokens.len() / self.spec().hidden_size,
                })
            }
            Media::Clip(clip) => {
                let mut stream = self.start_clip(true, timing)?;
                let pool = Arc::clone(&self.pool);
                let mut start = Instant::now();
                for second in clip.samples.chunks(SAMPLE_RATE_HZ as usize) {
                    if (self.on_step)().is_break() {
                        return Err(EngineError::Cancelled);
                    }
                    start += self.pause(give_way);
                    self.encode_more(&mut stream, second, rows)?;
                }
                let soft_tokens = stream.finish(&pool, self.clip_padding(), rows)?;
                timing.encode_ms += milliseconds(start);
                Ok(Part::Audio { soft_tokens })
            }
        }
    }

    /// A medium that may have been encoded before, and may come again.
    fn encode_again(
        &mut self,
        media: &Media,
        rows: &mut Vec<f32>,
        timing: &mut Timing,
        give_way: GiveWay<'_>,
    ) -> Result<Part, EngineError> {
        let Some(key) = self.kept_media.key(media, self.encoders.pictures) else {
            return self.encode(media, rows, timing, give_way);
        };
        let known = rows.len();
        if let Some(kept) = self.kept_media.get(key) {
            self.check_room((known + kept.rows.len()) / self.spec().hidden_size)?;
            // It has the embeddings of the marks around the soft tokens.
            match media.bare() {
                Media::Clip(_) => drop(self.audio_encoder(timing)?),
                _ => drop(self.encoders.vision(&self.checkpoint, timing)?),
            }
            rows.extend_from_slice(&kept.rows);
            return Ok(kept.part);
        }
        let part = self.encode(media, rows, timing, give_way)?;
        let encoded = Encoded {
            rows: rows[known..].into(),
            part: part.clone(),
        };
        self.kept_media.keep(key, encoded);
        Ok(part)
    }

    /// Whether the context has room for so many soft tokens of a request.
    fn check_room(&self, needed: usize) -> Result<(), TextError> {
        let context = self.options.context;
        if needed <= context {
            return Ok(());
        }
        Err(TextError::ContextFull {
            needed,
            used: 0,
            context,
            limit: self.spec().max_context,
        })
    }

    /// A clip of which nothing has been heard yet; whether it is there as a `whole`.
    pub(super) fn start_clip(
        &mut self,
        whole: bool,
        timing: &mut Timing,
    ) -> Result<AudioStream, EngineError> {
        let batch_frames = self.batches.frames(whole);
        let encoder = self.audio_encoder(timing)?;
        Ok(AudioStream::new(encoder, batch_frames))
    }

    /// Encodes more of a clip. The frames that a batch had, where one was encoded.
    pub(super) fn encode_more(
        &mut self,
        stream: &mut AudioStream,
        samples: &[f32],
        rows: &mut Vec<f32>,
    ) -> Result<Option<usize>, EngineError> {
        let start = Instant::now();
        let batches = stream.push(&self.pool, samples, rows)?;
        // Of several the first may have been read from flash.
        let frames = (batches == 1).then(|| stream.batch_frames());
        if let Some(frames) = frames {
            self.batches.encoded(frames, start.elapsed());
        }
        Ok(frames)
    }

    /// Sound that is encoded together while it is spoken, milliseconds: as it is configured, or by what batches have taken so far.
    pub fn audio_batch_ms(&self) -> usize {
        self.batches.frames(false) * FRAME_MS
    }

    /// The audio encoder, loaded now if it was not.
    pub(super) fn audio_encoder(
        &mut self,
        timing: &mut Timing,
    ) -> Result<Arc<dyn AudioEncoder>, EngineError> {
        self.encoders.audio(&self.checkpoint, &self.pool, timing)
    }

    /// Soft tokens that each clip is filled up to.
    pub(super) fn clip_padding(&self) -> usize {
        let audio = self.spec().audio.as_ref();
        match self.options.encoders.soft_token_padding.unwrap_or_default() {
            SoftTokenPadding::Reference => audio
                .and_then(|audio| audio.padded_soft_tokens)
                .unwrap_or(0),
            SoftTokenPadding::None => 0,
        }
    }
}
