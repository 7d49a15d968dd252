//! Which conversation goes on with what somebody says at a microphone.

/// Conversations by the events with which they began.
#[derive(Default)]
pub(super) struct Dialogue {
    /// Somebody may go on with this one now.
    open: Option<String>,
    /// What is being said, and the beginning of its conversation.
    now: Option<(String, String)>,
    /// The last event that counted, and the beginning of its conversation.
    last: Option<(String, String)>,
}

impl Dialogue {
    /// Somebody begins to speak, which is this event; the beginning of the conversation that it goes on.
    pub(super) fn begin(&mut self, event: &str) -> Option<String> {
        let begun = self.open.clone();
        let beginning = begun.as_deref().unwrap_or(event);
        self.now = Some((event.to_owned(), beginning.to_owned()));
        begun
    }

    /// Nobody speaks any more; a noise, which does not count, goes on nothing and ends nothing.
    pub(super) fn end(&mut self, counts: bool) {
        let now = self.now.take();
        if counts {
            self.last = now;
            self.open = None;
        }
    }

    /// Whoever was heard as this event was answered, and may go on.
    pub(super) fn answer(&mut self, event: &str) {
        let last = self.last.as_ref().filter(|(last, _)| last == event);
        let begun = last.map_or(event, |(_, begun)| begun);
        self.open = Some(begun.to_owned());
    }

    /// Nobody goes on any more.
    pub(super) fn close(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noises_neither_go_on_a_conversation_nor_end_it() {
        let mut dialogue = Dialogue::default();
        assert_eq!(dialogue.begin("a"), None);
        dialogue.end(true);
        // Something falls down before the reply, and something else behind it.
        dialogue.begin("noise");
        dialogue.end(false);
        dialogue.answer("a");
        dialogue.begin("cough");
        dialogue.end(false);
        assert_eq!(dialogue.begin("b").as_deref(), Some("a"));
        dialogue.end(true);
        dialogue.begin("noise");
        dialogue.end(false);
        dialogue.answer("b");
        assert_eq!(dialogue.begin("c").as_deref(), Some("a"));
        dialogue.end(true);
        assert_eq!(dialogue.begin("d"), None);
        dialogue.end(true);
        dialogue.answer("d");
        dialogue.close();
        assert_eq!(dialogue.begin("e"), None);
    }
}
