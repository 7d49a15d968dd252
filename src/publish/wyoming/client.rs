//! One connection: `describe`, speech that becomes a transcript while it comes, sentences that become intents.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};

use super::Shared;
use super::framing::{self, Event, Fault, Version};
use super::info;
use super::intents;
use super::sound::Sound;
use super::turn::Turn;
use crate::guard::harmless::short;
use crate::publish::replies::Asked;
use crate::report::{Dictation, JobState, JobUpdate, Manner, Origin, Payload};
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
    /// Listens for the end, where the client leaves that to the service.
    turn: Option<Turn>,
}

/// What `transcribe` asks for.
#[derive(Default)]
struct Wanted {
    /// The language, in the prompt's words.
    language: Option<String>,
    /// Its tag, as the client has it.
    tag: Option<String>,
    /// How soon a speaker is done.
    sensitivity: Option<String>,
}

/// A client and what it has said so far.
pub(super) struct Client<R, W> {
    input: BufReader<R>,
    output: W,
    shared: Arc<Shared>,
    /// Of the protocol that the client speaks.
    version: Version,
    wanted: Wanted,
    utterance: Option<Utterance>,
    /// The speaker was done before the client said so: what it still sends of that is not heard.
    answered: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    pub(super) fn new(input: R, output: W, shared: Arc<Shared>) -> Client<R, W> {
        Client {
            input: BufReader::new(input),
            output,
            shared,
            version: Version::default(),
            wanted: Wanted::default(),
            utterance: None,
            answered: false,
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
        self.version = event.version;
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
                self.answered = false;
                self.wanted = Wanted {
                    language: known,
                    tag: tag.map(str::to_owned),
                    sensitivity: event.text("vad_sensitivity").map(str::to_owned),
                };
                Ok(())
            }
            "audio-start" => self.begin(&event),
            "audio-chunk" | "audio-stop" if self.answered => Ok(()),
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
        self.answered = false;
        let config = &self.shared.config;
        let sound = Sound::new(event, config.max_utterance_s).map_err(Ended::Refused)?;
        let language = self.wanted.language.clone();
        let usual = || config.language(None).map(str::to_owned);
        let (sender, receiver) = utterance::channel();
        let dictation = Dictation {
            sound: Arc::new(receiver),
            manner: Manner::Written(language.or_else(usual).unwrap_or_default()),
            stream: self.version >= Version::STREAMS,
        };
        let ends = config.silence_ms > 0 && self.version >= Version::ENDS_SPEECH;
        let sensitivity = self.wanted.sensitivity.as_deref();
        let turn = ends.then(|| Turn::new(config.silence_ms, sensitivity, self.shared.threshold));
        let awaited = self.ask(Payload::Dictate(dictation))?;
        self.utterance = Some(Utterance {
            sound,
            sender: Some(sender),
            awaited,
            turn,
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
            let samples = utterance.sound.samples(bytes).map_err(Ended::Refused)?;
            sender.push(&samples);
            let is_full = utterance.sound.is_full();
            if is_full && let Some(sender) = utterance.sender.take() {
                sender.end(true);
            }
            if let Some(turn) = &mut utterance.turn
                && (turn.is_over(&samples) || is_full)
            {
                self.answered = true;
                return self.transcribe().await;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Speech ended: its transcript.
    async fn transcribe(&mut self) -> Result<(), Ended> {
        let Some(mut utterance) = self.utterance.take() else {
            // Nobody spoke, as in any other sound without speech.
            return self.write_down("", false).await;
        };
        if let Some(sender) = utterance.sender.take() {
            sender.end(false);
        }
        let mut begun = false;
        loop {
            let Some(update) = self.next(&mut utterance.awaited).await? else {
                return Ok(());
            };
            // Pieces are only told to clients that know them; none is empty, and none of nothing said.
            if let Some(piece) = &update.partial {
                let piece = match begun {
                    true => piece.as_str(),
                    false => piece.trim_start(),
                };
                if !piece.is_empty() {
                    if !std::mem::replace(&mut begun, true) {
                        self.send(&Event::new("transcript-start", self.language()))
                            .await?;
                    }
                    let chunk = Event::new("transcript-chunk", json!({ "text": piece }));
                    self.send(&chunk).await?;
                }
            }
            match (update.state, &update.reply) {
                (JobState::Done, Some(reply)) => {
                    let text = reply.text.as_deref().unwrap_or_default().trim();
                    return self.write_down(text, begun).await;
                }
                (state, _) if state.has_ended() => return Err(Ended::Refused(told(&update))),
                _ => {}
            }
        }
    }

    /// The whole transcript, whether it was told in pieces or not.
    async fn write_down(&mut self, text: &str, begun: bool) -> Result<(), Ended> {
        let mut data = self.language();
        data["text"] = json!(text);
        self.send(&Event::new("transcript", data)).await?;
        match begun {
            true => self.send(&Event::new("transcript-stop", json!({}))).await,
            false => Ok(()),
        }
    }

    /// The language that was asked for, where one was.
    fn language(&self) -> Value {
        match &self.wanted.tag {
            Some(tag) => json!({ "language": tag }),
            None => json!({}),
        }
    }

    async fn recognize(&mut self, event: &Event) -> Result<(), Ended> {
        let context = event.data.get("context");
        let id = |key: &&str| context?.get(*key)?.as_str().map(str::to_owned);
        let recognize = Payload::Recognize {
            text: event.text("text").unwrap_or_default().to_owned(),
            speaker: ["satellite_id", "device_id"]
                .iter()
                .filter_map(id)
                .collect(),
        };
        let mut awaited = self.ask(recognize)?;
        let update = loop {
            match self.next(&mut awaited).await? {
                Some(update) if update.state.has_ended() => break update,
                Some(_) => {}
                None => return Ok(()),
            }
        };
        let (JobState::Done, Some(reply)) = (update.state, &update.reply) else {
            return Err(Ended::Refused(told(&update)));
        };
        for mut answer in intents::events(&reply.details, self.version) {
            // What was talked about before goes back to the client as it came.
            if let Some(context) = context {
                answer.data.insert("context".to_owned(), context.clone());
            }
            self.send(&answer).await?;
        }
        Ok(())
    }

    /// What is told next of what was asked, or nothing where the client goes before it comes.
    async fn next(&mut self, asked: &mut Asked) -> Result<Option<JobUpdate>, Ended> {
        let gone = async {
            // Whoever says more before the answer is still there; what it says is read after.
            match self.input.fill_buf().await {
                Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
                _ => {}
            }
        };
        let update = tokio::select! {
            update = asked.next() => update,
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
