//! A picture of a camera, described.

use std::time::Instant;

use super::Task;
use crate::daemon::job::CaptionWork;
use crate::daemon::{reports, scene};
use crate::pipeline::{Answer, Media, Message, Part, PictureOptions, Request};
use crate::report::{ErrorBody, Name, Wish};

impl Task<'_> {
    /// The engine's request for a picture of a camera; nothing where that was taken out of the configuration while the picture waited.
    pub(super) fn caption(&mut self, work: &CaptionWork) -> Option<Result<Request, ErrorBody>> {
        let camera = self.settings().camera(&work.camera)?;
        self.begun();
        let usual = self.settings().camera_prompt(camera);
        let encoded = &work.frame.encoded;
        let request = self.picture(encoded, &usual, camera.soft_tokens, &work.wish);
        let config = &self.settings().config;
        if work.frigate.is_none() || !config.frigate.structured {
            return Some(request);
        }
        let shape = scene::grammar(config);
        Some(request.and_then(|mut request| {
            request.generation.grammar = Some(shape?);
            request.generation.max_tokens = request.generation.max_tokens.max(scene::LEAST_TOKENS);
            Ok(request)
        }))
    }

    /// Tells what is seen in it.
    pub(super) fn captioned(&self, work: &CaptionWork, answer: Result<Option<Answer>, ErrorBody>) {
        let taken = work.frame.taken_at.elapsed().unwrap_or_default();
        let since = Instant::now()
            .checked_sub(taken)
            .unwrap_or_else(Instant::now);
        let reply = self.reply(answer, since);
        self.tell(reports::caption(self.job, work, &reply, &self.desk.model));
        self.end(reply);
    }

    /// The engine's request for a picture file, as `usual` and with `soft_tokens` where nothing else is wished.
    pub(super) fn picture(
        &self,
        encoded: &[u8],
        usual: &str,
        soft_tokens: Option<usize>,
        wish: &Wish,
    ) -> Result<Request, ErrorBody> {
        let settings = std::sync::Arc::clone(&self.job.settings);
        let options = PictureOptions {
            soft_tokens: wish.soft_tokens.or(soft_tokens),
            ..PictureOptions::default()
        };
        let image = Media::image(encoded, &settings.config.limits.image, options)
            .map_err(super::invalid_image)?;
        let limit = settings.max_tokens;
        let prompt = wish.prompt.clone().unwrap_or_else(|| usual.to_owned());
        Ok(Request {
            messages: Message::user(vec![Part::Media(image), Part::Text(prompt)]),
            matformer: self.slice(wish.matformer.as_ref()),
            thinking: None,
            conversation: None,
            generation: self
                .engine
                .most_likely(wish.max_tokens.map_or(limit, |asked| asked.min(limit))),
        })
    }

    /// The slice that was asked for, or the usual one.
    pub(super) fn slice(&self, asked: Option<&Name>) -> Option<String> {
        let asked = asked.map(|name| name.to_string());
        asked.or_else(|| self.settings().matformer.clone())
    }
}
