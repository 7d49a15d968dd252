//! A picture of a camera, described.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::Task;
use crate::daemon::clock;
use crate::daemon::job::CaptionWork;
use crate::pipeline::{Answer, Media, Message, Part, PictureOptions, Request};
use crate::report::{
    CaptionEvent, Cut, ErrorBody, EventType, Name, Report, ReportTiming, SCHEMA, Wish, short,
};

impl Task<'_> {
    /// The engine's request for a picture of a camera; nothing where that was taken out of the configuration while the picture waited.
    pub(super) fn caption(&mut self, work: &CaptionWork) -> Option<Result<Request, ErrorBody>> {
        let camera = self.settings().camera(&work.camera)?;
        self.begun();
        let usual = self.settings().camera_prompt(camera);
        let encoded = &work.frame.encoded;
        Some(self.picture(encoded, &usual, camera.soft_tokens, &work.wish))
    }

    /// Tells what is seen in it.
    pub(super) fn captioned(&self, work: &CaptionWork, answer: Result<Option<Answer>, ErrorBody>) {
        let Some(camera) = self.settings().camera(&work.camera) else {
            return;
        };
        let taken = work.frame.taken_at.elapsed().unwrap_or_default();
        let since = Instant::now()
            .checked_sub(taken)
            .unwrap_or_else(Instant::now);
        let answer = answer.and_then(|answer| answer.ok_or_else(|| self.broken_off()));
        let error = answer.as_ref().err().cloned();
        let timing = answer.as_ref().map_or_else(
            |_| ReportTiming::default(),
            |answer| self.timing(&answer.timing, since),
        );
        let caption = answer
            .as_ref()
            .map_or_else(|_| String::new(), |answer| answer.text.trim().to_owned());
        let event_type = if answer.is_ok() {
            EventType::Caption
        } else {
            EventType::Failed
        };
        let (source, job_id) = (work.camera.as_str(), self.job.id.as_str());
        match &error {
            None => log::info!(source, job_id, EVENT = event_type.name(); "described a picture"),
            Some(error) => log::warn!(
                source, job_id, EVENT = event_type.name();
                "could not describe a picture: {}", error.message
            ),
        }
        if self.settings().config.log.content {
            log::debug!(source = work.camera.as_str(); "saw: {caption}");
        }
        let event = CaptionEvent {
            schema: SCHEMA,
            id: self.job.id.clone(),
            event_type,
            ts: clock::now(),
            clock_synced: clock::is_synced(),
            source: work.camera.clone(),
            short: short(&caption, Cut::AtWord),
            caption,
            trigger: work.trigger,
            motion_area: work.motion.map(|motion| motion.area),
            motion_box: work.motion.map(|motion| motion.bounds),
            frigate: work.frigate.clone(),
            frame_ts: clock::rfc3339(work.frame.taken_at),
            image_sha256: hex::encode(Sha256::digest(&work.frame.encoded)),
            reason: error.as_ref().map(|error| error.message.clone()),
            model: self.desk.model.clone(),
            matformer: answer
                .as_ref()
                .ok()
                .map(|answer| answer.matformer.clone())
                .or_else(|| self.settings().matformer.clone())
                .unwrap_or_default(),
            timing,
        };
        self.tell(Report::Caption {
            event: Box::new(event),
            image: camera
                .publish_image
                .then(|| work.frame.encoded.clone().into()),
        });
        self.end(self.reply(answer.map(Some), since));
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
