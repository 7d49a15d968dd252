//! Tries the broker as the daemon would use it, for `gemmad doctor`: everything that the daemon depends on, one after the other, on
//! topics that nobody listens to. Nothing is left on the broker.
//!
//! Many a broker says yes to what it does not do: it acknowledges a message that its access list forbids, or that is larger than it
//! takes. So nothing counts but what comes back.

use super::advice::{advise, read_and_write, will};
use super::client::{Loss, Message, Options};
use super::homeassistant;
use super::options::MqttOptions;
use super::session::{Passed, Session};
use super::topics::Topics;
use super::{MqttError, beside_the_daemon};
use crate::report::Info;

/// Room for a topic and a packet's head, bytes.
const HEAD_BYTES: usize = 70_000;
/// A broker's limit of whole packets has to have room for the topic, too.
const TOPIC_BYTES: usize = 1024;

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unusable {
    /// What went wrong.
    pub error: MqttError,
    /// What to do about it.
    pub advice: String,
}

/// What a broker does for the node.
#[derive(Debug)]
pub struct Probed {
    /// The node's name.
    pub node: String,
    /// What the daemon needs and the broker does not do.
    pub troubles: Vec<Unusable>,
    /// A gemmad that is connected with the node's name, and answers.
    pub occupant: Option<Occupant>,
}

/// A running gemmad with the node's name, on this board or another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Occupant {
    /// The host where it runs.
    pub host: Option<String>,
    /// When it was started.
    pub started_at: Option<String>,
    /// What it says of yet another with that name.
    pub namesake: Option<String>,
}

/// Logs in with the configured user, password and certificates, and tries what the daemon would do. `info` tells of which devices
/// it would speak. The daemon may be connected at the same time, and stays so: the name at the broker is another.
///
/// # Errors
/// The configuration cannot be used, or the broker does not let this user in.
pub async fn probe(config: &MqttOptions, info: &Info) -> Result<Probed, Unusable> {
    let largest = config.max_payload_bytes.max(config.max_image_bytes);
    let options =
        beside_the_daemon(config, "doctor", largest + HEAD_BYTES).map_err(|error| {
            let advice = match &error {
                MqttError::File { .. } => {
                    "put there what the key asks for, readable for the daemon's user, or name another file"
                }
                _ => "mend [mqtt] in gemmad.toml",
            };
            Unusable {
                error,
                advice: advice.to_owned(),
            }
        })?;
    let mut probe = Probe {
        config,
        topics: Topics::new(config),
        options,
        mark: format!("gemmad doctor {}", ulid::Ulid::generate()),
        troubles: Vec::new(),
    };
    let session = match Session::open(&probe.options).await {
        Ok(session) => session,
        Err(loss) => return Err(probe.lost(&loss)),
    };
    let occupant = match probe.all(session, info).await {
        Ok(occupant) => occupant,
        // It let us in before.
        Err(loss) => {
            let trouble = probe.lost(&loss);
            probe.troubles.push(trouble);
            None
        }
    };
    Ok(Probed {
        node: probe.topics.node,
        troubles: probe.troubles,
        occupant,
    })
}

struct Probe<'a> {
    config: &'a MqttOptions,
    topics: Topics,
    options: Options,
    /// What is said, so that it is not taken for what another said.
    mark: String,
    troubles: Vec<Unusable>,
}

impl Probe<'_> {
    async fn all(&mut self, mut session: Session, info: &Info) -> Result<Option<Occupant>, Loss> {
        if !self.own_topics(&mut session).await? {
            return Ok(None);
        }
        let occupant = self.occupant(&mut session).await?;
        if self.config.discovery {
            session = self.discovery(session).await?;
        }
        session = self.sizes(session, info).await?;
        let keeps = self.retained(session).await?;
        self.last_will(keeps).await?;
        Ok(occupant)
    }

    /// Whether a small message passes on the node's topics: without that nothing else is worth trying.
    async fn own_topics(&mut self, session: &mut Session) -> Result<bool, Loss> {
        let topic = self.topics.of("doctor");
        let mut topics = vec![topic.clone()];
        topics.extend(self.told_by_a_daemon());
        let passed = match session.subscribe(topics).await {
            Ok(0) => session.pass(self.message(&topic, self.mark.len())).await,
            Ok(_) => {
                self.trouble(format!("does not let this user read {topic}"), self.allow());
                return Ok(false);
            }
            Err(loss) => Err(loss),
        };
        let told = match passed {
            Ok(passed) if passed.whole() => return Ok(true),
            Ok(Passed { came: false, .. }) => {
                format!("does not pass on what is published on {topic}")
            }
            Ok(_) => "passes messages on, but does not acknowledge them".to_owned(),
            // A broker may answer to what it does not allow by hanging up.
            Err(Loss::Closed(reason)) => {
                format!("let this user in and {}", Loss::Closed(reason))
            }
            Err(loss) => return Err(loss),
        };
        // Whether it is QoS 1 that it does not do, or anything.
        let advice = if self.passes_without_qos(&topic).await {
            self.trouble(
                "does not take messages with QoS 1".to_owned(),
                "let it: gemmad has to know what arrived (mosquitto: max_qos 1 or 2)".to_owned(),
            );
            return Ok(false);
        } else {
            self.allow()
        };
        self.trouble(told, advice);
        Ok(false)
    }

    async fn passes_without_qos(&self, topic: &str) -> bool {
        let tried = async {
            let mut session = Session::open(&self.options).await?;
            session.subscribe(vec![topic.to_owned()]).await?;
            let message = Message {
                acknowledged: false,
                ..self.message(topic, self.mark.len())
            };
            let passed = session.pass(message).await?;
            session.close().await;
            Ok::<_, Loss>(passed.came)
        };
        tried.await.unwrap_or(false)
    }

    /// Whether Home Assistant can be told of devices: an empty message, which is what takes a device back, of one that never was.
    async fn discovery(&mut self, mut session: Session) -> Result<Session, Loss> {
        let topic = self
            .topics
            .discovery(&format!("{}_doctor", self.topics.device()));
        let prefix = &self.config.discovery_prefix;
        let nothing = self.message(&topic, 0);
        let passed = match session.subscribe(vec![topic.clone()]).await {
            Ok(0) => session.pass(nothing).await,
            Ok(_) => Ok(Passed::default()),
            Err(loss) => Err(loss),
        };
        if passed.as_ref().is_ok_and(|passed| passed.came) {
            return Ok(session);
        }
        self.trouble(
            format!(
                "does not give back what is published on {topic}: this user may not write there, so that Home Assistant does not find \
                 this board, or not read there"
            ),
            format!(
                "allow this user `{}` and `topic read {}` in the broker's access list, or set mqtt.discovery to false",
                read_and_write(&format!("{prefix}/device/#")),
                self.topics.birth()
            ),
        );
        self.again(session, &passed).await
    }

    /// Whether messages pass that are as large as those of the daemon can be.
    async fn sizes(&mut self, mut session: Session, info: &Info) -> Result<Session, Loss> {
        let topic = self.topics.of("doctor");
        let mut fitting = None;
        let sizes = self.largest(info);
        let most = sizes.last().map_or(0, |(bytes, ..)| bytes + TOPIC_BYTES);
        for (bytes, what, key) in sizes {
            let passed = session.pass(self.message(&topic, bytes)).await;
            if passed.as_ref().is_ok_and(|passed| passed.came) {
                fitting = Some(bytes);
                continue;
            }
            let does = match &passed {
                Ok(_) => "drops",
                Err(_) => "closes the connection at",
            };
            let but = fitting.map_or_else(String::new, |bytes| {
                format!("; one of {bytes} bytes passes")
            });
            let or = key.map_or_else(String::new, |key| format!(", or lower {key}"));
            self.trouble(
                format!("{does} a message of {bytes} bytes, as large as {what} can be{but}"),
                format!(
                    "let it take packets of {most} bytes (mosquitto: message_size_limit, max_packet_size){or}"
                ),
            );
            return self.again(session, &passed).await;
        }
        Ok(session)
    }

    /// Sizes of what is published, smallest first: bytes, what it is, which key bounds it.
    fn largest(&self, info: &Info) -> Vec<(usize, &'static str, Option<&'static str>)> {
        let mut sizes = vec![(
            self.config.max_payload_bytes,
            "an answer",
            Some("mqtt.max_payload_bytes"),
        )];
        if self.config.discovery {
            let devices = homeassistant::devices(&self.topics, info);
            let bytes = devices
                .values()
                .map(|device| serde_json::to_vec(device).map_or(0, |json| json.len()));
            sizes.push((
                bytes.max().unwrap_or(0),
                "what Home Assistant is told of this node",
                None,
            ));
        }
        if !info.cameras.is_empty() && self.config.max_image_bytes > 0 {
            let bytes = self.config.max_image_bytes;
            sizes.push((bytes, "a picture", Some("mqtt.max_image_bytes")));
        }
        sizes.sort_by_key(|(bytes, ..)| *bytes);
        sizes
    }

    /// Whether the broker keeps the last message of a topic, as every state of the node has to be.
    async fn retained(&mut self, mut session: Session) -> Result<bool, Loss> {
        let topic = self.topics.of("doctor");
        let message = Message {
            retain: true,
            ..self.message(&topic, self.mark.len())
        };
        let passed = session.pass(message).await;
        let keeps = match &passed {
            Ok(_) => {
                session.subscribe(vec![topic.clone()]).await?;
                session.wait_retained(&topic).await?
            }
            Err(_) => false,
        };
        if !keeps {
            self.trouble(
                "does not keep retained messages".to_owned(),
                "let it: Home Assistant reads states and devices from them after a restart (mosquitto: retain_available true)".to_owned(),
            );
        }
        session.close().await;
        Ok(keeps)
    }

    /// Whether it takes a last will as the daemon has it, if it keeps anything; that connection takes back what was left before.
    async fn last_will(&mut self, keeps: bool) -> Result<(), Loss> {
        let topic = self.topics.of("doctor");
        let will_message = Message {
            retain: true,
            ..self.message(&topic, self.mark.len())
        };
        self.options.will = keeps.then_some(will_message);
        let opened = Session::open(&self.options).await;
        self.options.will = None;
        let mut session = match opened {
            Ok(session) => session,
            Err(loss) => {
                self.trouble(
                    format!("does not take a last will: it {loss}"),
                    will(&self.topics),
                );
                Session::open(&self.options).await?
            }
        };
        let nothing = Message {
            retain: true,
            ..self.message(&topic, 0)
        };
        session.subscribe(vec![topic]).await?;
        let cleared = session.pass(nothing).await;
        session.close().await;
        // Where nothing is kept, nothing has to be taken back, and hanging up is no news.
        if keeps { cleared.map(|_| ()) } else { Ok(()) }
    }

    /// Topics on which a daemon tells of itself.
    fn told_by_a_daemon(&self) -> Vec<String> {
        vec![
            self.topics.availability(),
            self.topics.instance(),
            self.topics.of("response/stats"),
        ]
    }

    /// The gemmad that is connected with the node's name. That the broker keeps `online` proves nothing: it may have gone down
    /// together with the daemon. Whoever answers is there.
    async fn occupant(&self, session: &mut Session) -> Result<Option<Occupant>, Loss> {
        if session.retained(&self.topics.availability()) != Some(b"online") {
            return Ok(None);
        }
        let answer_topic = self.topics.of("response/stats");
        let question = serde_json::json!({ "transaction": self.mark }).to_string();
        let message = Message {
            payload: question.into_bytes(),
            ..self.message(&self.topics.of("request/stats"), 0)
        };
        let json = |payload: &[u8]| serde_json::from_slice::<serde_json::Value>(payload).ok();
        let ours = |topic: &str, payload: &[u8]| {
            topic == answer_topic
                && json(payload).is_some_and(|answer| answer["transaction"] == self.mark.as_str())
        };
        let Some(answer) = session.ask(message, ours).await? else {
            return Ok(None);
        };
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let answer = json(&answer).unwrap_or_default();
        let instance = session.retained(&self.topics.instance());
        let instance = instance.and_then(json).unwrap_or_default();
        Ok(Some(Occupant {
            host: text(&instance["host"]),
            started_at: text(&instance["started_at"]),
            namesake: text(&answer["data"]["details"]["mqtt"]["namesake"]),
        }))
    }

    /// The session, or another where that one ended.
    async fn again(
        &self,
        session: Session,
        passed: &Result<Passed, Loss>,
    ) -> Result<Session, Loss> {
        if passed.is_ok() {
            return Ok(session);
        }
        let mut session = Session::open(&self.options).await?;
        session.subscribe(vec![self.topics.of("doctor")]).await?;
        Ok(session)
    }

    /// A message with QoS 1 that begins with the mark, as far as it has room.
    fn message(&self, topic: &str, bytes: usize) -> Message {
        let mut payload = self.mark.clone().into_bytes();
        payload.resize(bytes, b' ');
        Message {
            topic: topic.to_owned(),
            payload,
            retain: false,
            acknowledged: true,
        }
    }

    fn allow(&self) -> String {
        format!(
            "allow this user `{}` in the broker's access list",
            read_and_write(&self.topics.of("#"))
        )
    }

    fn trouble(&mut self, reason: String, advice: String) {
        let error = MqttError::Broker {
            broker: self.config.url.clone(),
            reason,
        };
        self.troubles.push(Unusable { error, advice });
    }

    fn lost(&self, loss: &Loss) -> Unusable {
        Unusable {
            error: MqttError::Broker {
                broker: self.config.url.clone(),
                reason: loss.to_string(),
            },
            advice: advise(loss, self.config, &self.options.client_id),
        }
    }
}
