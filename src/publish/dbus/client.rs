//! The other end of the bus: a caller of the daemon that runs, for people at a terminal.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;

use futures_util::StreamExt;
use serde_json::{Map, Value};
use zbus::fdo::DBusProxy;
use zbus::message::Flags;
use zbus::names::BusName;
use zbus::{
    Connection, DynamicType, Fd, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant,
    Variant, fdo,
};

use super::options::DbusOptions;
use super::payload::sealed;
use super::values::{json, text};
use super::{DbusError, NAME, ROOT, builder, bus_itself, connect, source_path};
use crate::report::{AskFields, Attachment};

const MANAGER: &str = "org.gemmad1.Manager";
const JOB: &str = "org.gemmad1.Job";
const MICROPHONE: &str = "org.gemmad1.Microphone";
const EVENTS: &str = "org.gemmad1.Events";
const BUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Why the daemon gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No bus, or it went away.
    #[error(transparent)]
    Bus(#[from] DbusError),
    /// Nobody has its name.
    #[error("no gemmad is on the bus \"{bus}\": start it (systemctl start gemmad)")]
    NotRunning {
        /// As configured.
        bus: String,
    },
    /// The daemon ended while it was waited for.
    #[error("the running gemmad went away: ask again once it is back (systemctl status gemmad)")]
    Gone,
    /// The bus does not let this user call it.
    #[error(
        "this user may not call the running gemmad: join its group (sudo usermod -aG gemmad USER, then log in again), or use sudo"
    )]
    NotPermitted,
    /// In the daemon's words.
    #[error("{0}")]
    Refused(String),
}

/// A caller of the daemon, from one question to its answer: the connection is not to lie idle.
pub struct Client {
    connection: Connection,
    messages: MessageStream,
    bus: String,
}

/// What a caller is told meanwhile.
enum Told {
    Partial { job: String, text: String },
    Finished { job: String },
    Event { source: String, event: Value },
    Other,
}

impl Client {
    /// Connects to the daemon of a configuration.
    ///
    /// # Errors
    /// There is no bus, or no daemon on it. None is started for it.
    pub async fn connect(config: &DbusOptions) -> Result<Client, CallError> {
        let connection = connect(config, builder(config)).await?;
        let client = Client {
            messages: MessageStream::from(&connection),
            bus: config.bus.clone(),
            connection,
        };
        let bus = bus_itself(&client.connection).await;
        let bus = bus.map_err(|error| client.failed(&error))?;
        // Before it is asked for, so that its going is not missed.
        let goes = MatchRule::builder()
            .sender(BUS)
            .interface(BUS)
            .member("NameOwnerChanged")
            .arg(0, NAME);
        client.hear(&bus, goes.build()).await?;
        let name = BusName::try_from(NAME).map_err(|error| client.failed(&error))?;
        let owned = bus.name_has_owner(name).await;
        // Calling a name that nobody has would start the service.
        match owned.map_err(|error| client.failed(&error.into()))? {
            true => Ok(client),
            false => Err(CallError::NotRunning {
                bus: config.bus.clone(),
            }),
        }
    }

    /// The manager's properties, by their names.
    ///
    /// # Errors
    /// The daemon is gone, or does not let this user read them.
    pub async fn about(&self) -> Result<Map<String, Value>, CallError> {
        let all = self.call(ROOT, PROPERTIES, "GetAll", &MANAGER).await?;
        self.read(&all)
    }

    /// Asks, gives the answer as it comes, and at its end all that is known of it: the keys of a reply ([`crate::report::Reply`]).
    /// `None` where `interrupted` ended the job first.
    ///
    /// # Errors
    /// The daemon refuses it, cannot answer, or goes.
    pub async fn ask(
        &mut self,
        ask: AskFields,
        on_text: &mut dyn FnMut(&str),
        interrupted: impl Future<Output = ()>,
    ) -> Result<Option<Map<String, Value>>, CallError> {
        let prompt = text(&ask.prompt);
        let options = options(ask).map_err(|error| CallError::Refused(error.to_string()))?;
        let asked = self.call(ROOT, MANAGER, "Ask", &(prompt, options)).await?;
        let job: OwnedObjectPath = self.body(&asked)?;
        let mut interrupted = pin!(interrupted);
        let mut is_cancelled = false;
        let mut told = String::new();
        loop {
            tokio::select! {
                message = self.messages.next() => match self.told(message)? {
                    Told::Partial { job: of, text } if of == job.as_str() => {
                        on_text(&text);
                        told += &text;
                    }
                    Told::Finished { job: of } if of == job.as_str() => break,
                    _ => {}
                },
                () = &mut interrupted, if !is_cancelled => {
                    is_cancelled = true;
                    self.cancel(&job).await?;
                }
            }
        }
        match self.call(job.as_str(), JOB, "Result", &()).await {
            Ok(result) => {
                let reply = self.read(&result)?;
                let whole = reply
                    .get("text")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                // The daemon drops pieces of an answer for a bus that is too slow, and never its end.
                match whole.strip_prefix(&told) {
                    Some("") => {}
                    Some(rest) => on_text(rest),
                    None => on_text(&format!("\n{whole}")),
                }
                Ok(Some(reply))
            }
            Err(CallError::Refused(_)) if is_cancelled => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Push-to-talk: presses the button of a microphone and gives the event that it ends with, as MQTT has it
    /// ([`crate::report::VoiceEvent`]). `None` where `interrupted` came first; the daemon listens on.
    ///
    /// # Errors
    /// The daemon refuses it, does not know the microphone, or goes.
    pub async fn listen(
        &mut self,
        microphone: &str,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Option<Value>, CallError> {
        let bus = bus_itself(&self.connection).await;
        let bus = bus.map_err(|error| self.failed(&error))?;
        let events = MatchRule::builder().sender(NAME).interface(EVENTS);
        self.hear(&bus, events.build()).await?;
        let path = source_path("mic", microphone);
        let options = HashMap::<&str, Variant<'_>>::new();
        let asked = self.call(&path, MICROPHONE, "Listen", &options).await?;
        let job: OwnedObjectPath = self.body(&asked)?;
        let mut interrupted = pin!(interrupted);
        loop {
            tokio::select! {
                message = self.messages.next() => match self.told(message)? {
                    // It listens now, or says why not.
                    Told::Finished { job: of } if of == job.as_str() => {
                        self.call(job.as_str(), JOB, "Result", &()).await?;
                    }
                    Told::Event { source, event } if source == microphone => return Ok(Some(event)),
                    _ => {}
                },
                () = &mut interrupted => return Ok(None),
            }
        }
    }

    /// Has the bus pass on what is told to everybody.
    async fn hear(
        &self,
        bus: &DBusProxy<'_>,
        rule: zbus::Result<MatchRule<'_>>,
    ) -> Result<(), CallError> {
        let rule = rule.map_err(|error| self.failed(&error))?;
        let added = bus.add_match_rule(rule).await;
        added.map_err(|error| self.failed(&error.into()))
    }

    /// Ends a job, and does not wait: what comes meanwhile has to be read.
    async fn cancel(&self, job: &OwnedObjectPath) -> Result<(), CallError> {
        let cancel = Message::method_call(job.as_str(), "Cancel")
            .destination(NAME)
            .interface(JOB)
            .with_flags(Flags::NO_REPLY_EXPECTED)
            .build(&());
        let cancel = cancel.map_err(|error| self.failed(&error))?;
        let sent = self.connection.send(&cancel).await;
        sent.map_err(|error| self.failed(&error))
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, CallError>
    where
        B: serde::Serialize + DynamicType,
    {
        let called = self
            .connection
            .call_method(Some(NAME), path, Some(interface), method, body)
            .await;
        called.map_err(|error| self.failed(&error))
    }

    /// What a message tells.
    fn told(&self, message: Option<zbus::Result<Message>>) -> Result<Told, CallError> {
        let message = message.ok_or(CallError::Gone)?;
        let message = message.map_err(|error| self.failed(&error))?;
        let header = message.header();
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else {
            return Ok(Told::Other);
        };
        let job = || header.path().map_or_else(String::new, ToString::to_string);
        Ok(match (interface.as_str(), member.as_str()) {
            (JOB, "Partial") => Told::Partial {
                job: job(),
                text: self.body(&message)?,
            },
            (JOB, "Finished") => Told::Finished { job: job() },
            (EVENTS, "Transcript" | "Command" | "Rejected") => {
                let (source, event): (String, HashMap<String, OwnedVariant>) =
                    self.body(&message)?;
                Told::Event {
                    source,
                    event: Value::Object(object(&event)),
                }
            }
            (BUS, "NameOwnerChanged") => {
                let (name, _, owner): (String, String, String) = self.body(&message)?;
                match name == NAME && owner.is_empty() {
                    true => return Err(CallError::Gone),
                    false => Told::Other,
                }
            }
            _ => Told::Other,
        })
    }

    /// A reply that is an `a{sv}`.
    fn read(&self, reply: &Message) -> Result<Map<String, Value>, CallError> {
        let reply: HashMap<String, OwnedVariant> = self.body(reply)?;
        Ok(object(&reply))
    }

    fn body<T>(&self, message: &Message) -> Result<T, CallError>
    where
        T: serde::de::DeserializeOwned + zbus::Type,
    {
        let body = message.body();
        body.deserialize().map_err(|error| self.failed(&error))
    }

    /// What an error of the bus, or one that came over it, means to people.
    fn failed(&self, error: &zbus::Error) -> CallError {
        match error {
            zbus::Error::MethodError(name, message, _)
                if name.as_str().starts_with("org.gemmad1.Error.") =>
            {
                CallError::Refused(message.clone().unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error) => match &**error {
                fdo::Error::AccessDenied(_) => CallError::NotPermitted,
                fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::NoReply(_)
                | fdo::Error::Disconnected(_) => CallError::Gone,
                fdo::Error::UnknownObject(message) => CallError::Refused(message.clone()),
                _ => self.lost(error),
            },
            other => self.lost(other),
        }
    }

    fn lost(&self, error: &dyn std::fmt::Display) -> CallError {
        CallError::Bus(DbusError::Lost {
            bus: self.bus.clone(),
            reason: error.to_string(),
        })
    }
}

fn object(dict: &HashMap<String, OwnedVariant>) -> Map<String, Value> {
    let entries = dict.iter();
    entries
        .map(|(key, value)| (key.clone(), json(value)))
        .collect()
}

/// What is asked, as the options of `Ask`; files go as memory that nobody can change.
fn options(ask: AskFields) -> std::io::Result<HashMap<&'static str, Variant<'static>>> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).into();
    let file = |file: Attachment| sealed(&file.0).map(|fd| Variant::Fd(Fd::from(fd)));
    let given: [(&str, Option<Variant<'static>>); 15] = [
        ("system", ask.system.map(|system| text(&system).into())),
        ("schema", ask.schema.map(|schema| schema.to_string().into())),
        ("choices", ask.choices.map(Variant::from)),
        ("matformer", ask.matformer.map(|name| text(&name).into())),
        ("max_tokens", ask.max_tokens.map(count)),
        ("temperature", ask.temperature.map(|t| f64::from(t).into())),
        ("seed", ask.seed.map(Variant::from)),
        ("thinking", ask.thinking.map(Variant::from)),
        ("stream", ask.stream.then(|| true.into())),
        ("speak", ask.speak.then(|| true.into())),
        ("conversation", ask.conversation.map(Variant::from)),
        ("timeout_ms", ask.timeout_ms.map(Variant::from)),
        ("image", ask.image.map(file).transpose()?),
        ("soft_tokens", ask.soft_tokens.map(count)),
        ("audio", ask.audio.map(file).transpose()?),
    ];
    let given = given.into_iter();
    Ok(given
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::dbus::manager::ask_options;

    #[test]
    fn what_is_asked_is_what_the_daemon_reads() {
        let asked = AskFields {
            prompt: "What is that?".to_owned(),
            system: Some("Be brief.".to_owned()),
            schema: Some(serde_json::json!({"type": "object"})),
            choices: Some(vec!["cat".to_owned(), "dog".to_owned()]),
            matformer: Some("half".to_owned()),
            max_tokens: Some(9),
            temperature: Some(0.5),
            seed: Some(u64::MAX),
            thinking: Some(false),
            stream: true,
            speak: true,
            conversation: Some("c".to_owned()),
            timeout_ms: Some(70_000),
            image: None,
            soft_tokens: Some(280),
            audio: None,
        };
        let read = |asked: AskFields| {
            let given = options(asked).unwrap().into_iter();
            let given = given
                .map(|(name, value)| (name.to_owned(), OwnedVariant::try_from(value).unwrap()));
            ask_options("What is that?".to_owned(), given.collect(), 1000).unwrap()
        };
        assert_eq!(read(asked.clone()).0, asked);
        let with_files = AskFields {
            image: Some(Attachment(b"picture"[..].into())),
            audio: Some(Attachment(b"sound"[..].into())),
            ..asked
        };
        let (_, image, audio) = read(with_files);
        for (fd, wanted) in [(image, "picture"), (audio, "sound")] {
            let file = std::fs::File::from(fd.unwrap());
            assert_eq!(std::io::read_to_string(file).unwrap(), wanted);
        }
    }
}
