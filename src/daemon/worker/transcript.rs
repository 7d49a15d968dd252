//! Sound of any length as text: cut at pauses, told piece by piece.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Task, engine_error, invalid_audio};
use crate::features::speech_check::SpeechCheck;
use crate::media::{AudioClip, SAMPLE_RATE_HZ};
use crate::pipeline::{Answer, Media, Message, Part, Pieces, Request};
use crate::report::{ErrorBody, ErrorCode, Reply, ReportTiming, Transcribe};

impl Task<'_> {
    /// Writes down sound of any length; the reply's details have `duration_s` and `pieces`.
    pub(super) fn transcribe_pieces(&mut self, transcribe: &Transcribe) {
        let since = self.job.queued_at;
        let reply = self.pieces(transcribe, since);
        self.end(reply);
    }

    fn pieces(&mut self, transcribe: &Transcribe, since: Instant) -> Result<Reply, ErrorBody> {
        let settings = Arc::clone(&self.job.settings);
        let limits = &settings.config.limits.audio;
        let mut sound = Pieces::new(&transcribe.audio.0, limits).map_err(invalid_audio)?;
        let mut timing = ReportTiming {
            queue_ms: self.queue_ms,
            ..ReportTiming::default()
        };
        let (mut text, mut pieces, mut samples) = (String::new(), Vec::new(), 0);
        let mut begun = false;
        while let Some(piece) = sound.take().map_err(invalid_audio)? {
            if !std::mem::replace(&mut begun, true) {
                self.begun();
            }
            self.desk.take_turns(self.engine, self.job.rank());
            if self.job.ticket.is_over() {
                return Err(self.broken_off());
            }
            let start_s = seconds(samples);
            samples += piece.len();
            let speech = SpeechCheck::holds_speech(&settings.config.speech, &piece);
            let mut said = String::new();
            if speech {
                let clip = Media::Clip(AudioClip {
                    samples: piece,
                    sample_rate_hz: SAMPLE_RATE_HZ,
                });
                let request = self.transcript(transcribe, clip)?;
                let answer = self.answer(&request).map_err(|e| engine_error(&e))?;
                let answer = answer.ok_or_else(|| self.broken_off())?;
                said = answer.text.trim().to_owned();
                self.add(&mut timing, &answer);
                let space = if text.is_empty() || said.is_empty() {
                    ""
                } else {
                    " "
                };
                self.piece(&format!("{space}{said}"));
                text.push_str(space);
                text.push_str(&said);
            }
            pieces.push(json!({
                "start_s": start_s, "end_s": seconds(samples), "text": said, "speech": speech,
            }));
        }
        timing.latency_ms = since.elapsed().as_secs_f64() * 1e3;
        timing.tps = match timing.decode_ms {
            0.0 => 0.0,
            decode_ms => timing.tokens as f64 * 1e3 / decode_ms,
        };
        let details = json!({ "duration_s": seconds(samples), "pieces": pieces });
        Ok(Reply {
            text: Some(text),
            timing: Some(timing),
            details: match details {
                Value::Object(details) => details,
                _ => serde_json::Map::new(),
            },
            ..Reply::default()
        })
    }

    fn add(&self, timing: &mut ReportTiming, answer: &Answer) {
        let more = &answer.timing;
        timing.load_ms += more.load_ms;
        timing.encode_ms += more.encode_ms;
        timing.prefill_ms += more.prefill_ms;
        timing.decode_ms += more.decode_ms;
        timing.prompt_tokens += more.prompt_tokens;
        timing.cached_tokens += more.cached_tokens;
        timing.tokens += more.tokens;
        timing.passes += more.passes;
    }

    /// The engine's request for a clip of at most 30 s.
    pub(super) fn transcript(
        &self,
        transcribe: &Transcribe,
        clip: Media,
    ) -> Result<Request, ErrorBody> {
        let settings = Arc::clone(&self.job.settings);
        let language = transcribe.language.as_ref();
        let language = language.map_or("English", |name| name.as_str());
        let tasks = &settings.config.tasks;
        let prompt = match &transcribe.into {
            None => tasks.transcribe(language),
            Some(target) => tasks.translate(language, target),
        };
        let prompt =
            prompt.map_err(|error| ErrorBody::new(ErrorCode::Failed, error.to_string()))?;
        let limit = settings.max_tokens;
        let max_tokens = transcribe
            .max_tokens
            .map_or(limit, |asked| asked.min(limit));
        Ok(Request {
            messages: Message::user(vec![Part::Media(clip), Part::Text(prompt)]),
            matformer: self.slice(transcribe.matformer.as_ref()),
            thinking: None,
            conversation: None,
            generation: self.engine.most_likely(max_tokens),
        })
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE_HZ)
}
