//! One connection: `describe`, speech that becomes a transcript while it comes, sentences that become intents.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};

use super::Shared;
use super::framing::{self, Event, Fault};
use super::info;
use super::sound::Sound;
use crate::guard::harmless::short;
use crate::publish::replies::Asked;
use crate::report::{Dictation, JobState, JobUpdate, Origin, Payload};
use crate::utterance;

/// Bytes of sound that are decoded together.
const PIECE_BYTES: usize = 65_536;

/// Why a client is let go.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("a client sent or took nothing for wyoming.idle_timeout_s, {0} s")]
    Idle(u32),
    #[error("a client's request was refused: {0}")]
    Refused(String),
}

/// Speech that comes.
struct Utterance {
    sound: Sound,
    /// `None` once it was cut at the longest length.
    sender: Option<utterance::Sender>,
    awaited: Asked,
}

/// A client and what it has said so far.
pub(super) struct Client<R, W> {
    input: BufReader<R>,
    output: W,
    shared: Arc<Shared>,
    /// The language that `transcribe` named, in the prompt's words.
    language: Option<String>,
    utterance: Option<Utterance>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    pub(super) fn new(input: R, output: W, shared: Arc<Shared>) -> Client<R, W> {
        Client {
            input: BufReader::new(input),
            output,
            shared,
            language: None,
            utterance: None,
        }
    }

    /// Until the client goes.
    ///
    /// # Errors
    /// Why it was let go. It is told where it can be told.
    pub(super) async fn serve(&mut self) -> Result<(), Ended> {
        let result = self.events().await;
        self.utterance = None;
        if let Err(ended) = &result {
            let event = Event::new(
                "error",
                json!({ "text": ended.to_string(), "code": "refused" }),
            );
            self.send(&event).await.ok();
        }
        result
    }

    /// Ends the connection of a client that was told why it is let go.
    pub(super) async fn let_go(mut self) {
        framing::let_go(&mut self.input, &mut self.output).await;
    }

    async fn events(&mut self) -> Result<(), Ended> {
        let idle_s = self.shared.config.idle_timeout_s;
        let limit = self.shared.config.max_event_bytes;
        loop {
            let event = framing::read(&mut self.input, limit);
            let wait = Duration::from_secs(idle_s.into());
            let event = tokio::time::timeout(wait, event)
                .await
                .map_err(|_| Ended::Idle(idle_s))??;
            match event {
                Some(event) => self.react(event).await?,
                None => return Ok(()),
            }
        }
    }

    async fn react(&mut self, event: Event) -> Result<(), Ended> {
        match event.kind.as_str() {
            "describe" => {
                let info = info::describe(&self.shared.info(), &self.shared.config);
                self.send(&Event::new("info", info)).await
            }
            "ping" => {
                let pong = json!({ "text": event.text("text") });
                self.send(&Event::new("pong", pong)).await
            }
            "transcribe" => {
                let tag = event.text("language");
                let known = self.shared.config.language(tag).map(str::to_owned);
                if known.is_none() {
                    let languages: Vec<&String> = self.shared.config.languages.keys().collect();
                    return Err(Ended::Refused(format!(
                        "the language {:?} is none of wyoming.languages, {languages:?}",
                        short(tag.unwrap_or_default())
                    )));
                }
                self.language = known;
                Ok(())
            }
            "audio-start" => self.begin(&event),
            "audio-chunk" => self.hear(&event).await,
            "audio-stop" => self.transcribe().await,
            // Home Assistant asks for intents by the sentence's transcript.
            "recognize" | "transcript" => self.recognize(&event).await,
            // Newer clients say more; what is not known is not minded.
            _ => Ok(()),
        }
    }

    /// Asks the daemon for something.
    fn ask(&self, payload: Payload) -> Result<Asked, Ended> {
        let busy = || Ended::Refused("the daemon has too much to do: ask again later".to_owned());
        Asked::new(&self.shared.requests, Origin::Wyoming, payload).ok_or_else(busy)
    }

    /// Speech begins: the model is made ready while it comes.
    fn begin(&mut self, event: &Event) -> Result<(), Ended> {
        self.utterance = None;
        let longest_s = self.shared.config.max_utterance_s;
        let sound = Sound::new(event, longest_s).map_err(Ended::Refused)?;
        let language = self.language.clone();
        let usual = || self.shared.config.language(None).map(str::to_owned);
        let (sender, receiver) = utterance::channel();
        let dictation = Dictation {
            sound: Arc::new(receiver),
            language: language.or_else(usual).unwrap_or_default(),
        };
        let awaited = self.ask(Payload::Dictate(dictation))?;
        self.utterance = Some(Utterance {
            sound,
            sender: Some(sender),
            awaited,
        });
        Ok(())
    }

    async fn hear(&mut self, event: &Event) -> Result<(), Ended> {
        // Its chunks say their format, too, so `audio-start` may be missing.
        if self.utterance.is_none() {
            self.begin(event)?;
        }
        let Some(utterance) = &mut self.utterance else {
            return Ok(());
        };
        // It may have been refused, or its time may be over.
        if let Some(update) = utterance.awaited.try_end() {
            return Err(Ended::Refused(told(&update)));
        }
        // A whole clip may come at once: it is decoded piece by piece, others' turn between, and nothing beyond what is heard.
        for bytes in event.payload.chunks(PIECE_BYTES) {
            let Some(sender) = &utterance.sender else {
                break;
            };
            sender.push(&utterance.sound.samples(bytes).map_err(Ended::Refused)?);
            if utterance.sound.is_full()
                && let Some(sender) = utterance.sender.take()
            {
                sender.end(true);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Speech ended: its transcript.
    async fn transcribe(&mut self) -> Result<(), Ended> {
        let Some(mut utterance) = self.utterance.take() else {
            // Nobody spoke, as in any other sound without speech.
            return self.write_down("").await;
        };
        if let Some(sender) = utterance.sender.take() {
            sender.end(false);
        }
        let Some(update) = self.answer(utterance.awaited).await? else {
            return Ok(());
        };
        match (update.state, &update.reply) {
            (JobState::Done, Some(reply)) => {
                let text = reply.text.as_deref().unwrap_or_default().trim();
                self.write_down(text).await
            }
            _ => Err(Ended::Refused(told(&update))),
        }
    }

    async fn write_down(&mut self, text: &str) -> Result<(), Ended> {
        self.send(&Event::new("transcript", json!({ "text": text })))
            .await
    }

    async fn recognize(&mut self, event: &Event) -> Result<(), Ended> {
        let text = event.text("text").unwrap_or_default().to_owned();
        let awaited = self.ask(Payload::Recognize { text })?;
        let Some(update) = self.answer(awaited).await? else {
            return Ok(());
        };
        let (JobState::Done, Some(reply)) = (update.state, &update.reply) else {
            return Err(Ended::Refused(told(&update)));
        };
        let mut data = match reply.details.get("command") {
            Some(command) => {
                let slots = command.get("slots").and_then(Value::as_object);
                let entity = |(name, value)| json!({ "name": name, "value": value });
                let entities: Vec<Value> = slots.into_iter().flatten().map(entity).collect();
                json!({ "name": command.get("name"), "entities": entities })
            }
            None => json!({ "text": reply.details.get("reason") }),
        };
        // What was talked about before goes back to the client as it came.
        if let Some(context) = event.data.get("context") {
            data["context"] = context.clone();
        }
        let kind = match data.get("name") {
            Some(_) => "intent",
            None => "not-recognized",
        };
        self.send(&Event::new(kind, data)).await
    }

    /// The answer, or nothing where the client goes before it comes.
    async fn answer(&mut self, mut asked: Asked) -> Result<Option<JobUpdate>, Ended> {
        let gone = async {
            // Whoever says more before the answer is still there; what it says is read after.
            match self.input.fill_buf().await {
                Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
                _ => {}
            }
        };
        let update = tokio::select! {
            update = asked.end() => update,
            () = gone => return Ok(None),
        };
        // The daemon drops the way back only where it ends itself.
        update
            .map(Some)
            .ok_or_else(|| Ended::Refused("the daemon is stopping".to_owned()))
    }

    async fn send(&mut self, event: &Event) -> Result<(), Ended> {
        let idle_s = self.shared.config.idle_timeout_s;
        let sent = framing::write(&mut self.output, event);
        tokio::time::timeout(Duration::from_secs(idle_s.into()), sent)
            .await
            .map_err(|_| Ended::Idle(idle_s))??;
        Ok(())
    }
}

/// Why there is no answer.
fn told(update: &JobUpdate) -> String {
    match &update.error {
        Some(error) => error.message.clone(),
        None => "there was no answer".to_owned(),
    }
}
