//! What a camera saw that another program watches.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use ulid::Ulid;

use super::Daemon;
use super::job::{CaptionWork, Ticket, Work};
use super::requests::error;
use crate::media::CaptionTrigger;
use crate::report::{ErrorBody, ErrorCode, Seen, Wish};

impl Daemon {
    /// Has a picture described as if a camera here had seen it: after whoever speaks or asks, and only the newest of a camera.
    pub(super) fn seen_elsewhere(&mut self, seen: Seen) -> Result<Value, ErrorBody> {
        let Seen {
            camera,
            frame,
            prompt,
            event,
        } = seen;
        let id = camera.as_str();
        if !self.switches.is_enabled(id) || !self.switches.has_captions(id) {
            let message = format!("{id} is disabled, or its captions are off");
            return Err(error(ErrorCode::Busy, message));
        }
        if self.monitor.degraded().is_degraded() {
            self.record.queues.dropped_captions += 1;
            let message = "the board is hot or short of memory: only who asks gets an answer";
            return Err(error(ErrorCode::Busy, message));
        }
        let work = Work::Caption(CaptionWork {
            camera: id.to_owned(),
            frame,
            trigger: CaptionTrigger::Frigate,
            motion: None,
            wish: Wish {
                prompt: Some(prompt),
                ..Wish::default()
            },
            frigate: Some(event),
        });
        let ticket = Arc::new(Ticket::until(Instant::now() + self.patience(None)));
        let job = self.job(Ulid::generate().to_string(), None, work, ticket);
        self.push(job);
        Ok(json!({}))
    }
}
