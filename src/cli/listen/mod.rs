//! `gemmad listen`: push-to-talk from a terminal, with a level meter.

mod meter;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::broker::{BrokerArgs, block_on};
use super::failure::{Failure, exit};
use super::output;
use crate::guard::harmless;
use crate::publish::mqtt::{Followed, Follower, MqttOptions};
pub(super) use meter::Meter;

/// Press the button of a microphone of the running gemmad: show how loud it is, and print what was understood
///
/// The daemon has the microphone: it is asked over MQTT, whatever the microphone's trigger is, and tells how loud it is until the
/// utterance is over. Standard output gets the answer alone: what was said, and a command as JSON. The rest goes to standard error: on a
/// terminal a meter that moves, in a pipe a line for each level. Ends with 64 if it is not clear which microphone is meant, with 65
/// if nothing was said in time or nothing was understood, with 69 if the broker, the daemon or the microphone is not there.
#[derive(Debug, clap::Args)]
pub(super) struct Listen {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The microphone [default: the only one]
    #[arg(long, value_name = "ID")]
    microphone: Option<String>,
    /// Print the event as it is published, JSON, also of what was not understood
    #[arg(long)]
    json: bool,
}

/// How long the broker may take to tell what the node is, and the daemon to answer that it listens.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

impl Listen {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.broker.mqtt()?;
        let follower =
            Follower::new(&config, "listen").map_err(|error| Failure::new(exit::CONFIG, error))?;
        let mut talk = Talk {
            follower,
            node: Node::of(&config),
        };
        let heard = block_on(talk.through(self.microphone.as_deref()));
        let event = heard.map_err(|error| Failure::new(exit::UNAVAILABLE, error))??;
        self.print(&event)
    }

    /// The answer, or why there is none.
    fn print(&self, event: &Value) -> Result<(), Failure> {
        let mut out = output::out();
        if self.json {
            writeln!(out, "{}", output::json(event)?)?;
        }
        match event["event_type"].as_str() {
            Some("transcript" | "command") if self.json => Ok(()),
            Some("transcript" | "command") => {
                if let Some(text) = event["text"].as_str() {
                    writeln!(out, "{}", harmless::line(text))?;
                }
                let one = [event["command"].clone()];
                let several = event["commands"].as_array();
                let commands = several.map_or(&one[..], Vec::as_slice);
                for command in commands.iter().filter(|command| command.is_object()) {
                    writeln!(out, "{}", output::json(command)?)?;
                }
                Ok(())
            }
            _ => {
                let reason = event["reason"].as_str().unwrap_or("no reason is told");
                Err(Failure::new(
                    exit::DATA,
                    format_args!("nothing was understood: {reason}"),
                ))
            }
        }
    }
}

/// One push-to-talk, from the connection to the event.
struct Talk {
    follower: Follower,
    node: Node,
}

impl Talk {
    /// Asks, shows how it goes on, and gives the event that it ends with.
    async fn through(&mut self, wanted: Option<&str>) -> Result<Value, Failure> {
        let found = timeout(ANSWERS_WITHIN, self.find(wanted)).await;
        let id = found.unwrap_or_else(|_| Err(self.node.silent()))?;
        let asked = timeout(ANSWERS_WITHIN, self.ask(&id)).await;
        asked.unwrap_or_else(|_| Err(self.node.deaf(&id)))?;
        let mut meter = Meter::new(&id);
        let event = self.event(&id, &mut meter).await;
        meter.clear();
        event
    }

    /// The microphone that is meant, once it is known that it can be listened to.
    async fn find(&mut self, wanted: Option<&str>) -> Result<String, Failure> {
        loop {
            self.next().await?;
            if let Some(id) = self.node.microphone(wanted)? {
                return Ok(id);
            }
        }
    }

    async fn ask(&mut self, id: &str) -> Result<(), Failure> {
        let transaction = ulid::Ulid::generate().to_string();
        if !self.follower.push_to_talk(id, &transaction) {
            return Err(self.node.lost("closed the connection"));
        }
        loop {
            let (topic, payload) = self.next().await?;
            let response: Value = serde_json::from_slice(&payload).unwrap_or_default();
            if !topic.starts_with("response/") || response["transaction"] != transaction {
                continue;
            }
            return match response["error"]["message"].as_str() {
                None => Ok(()),
                Some(message) => Err(Failure::new(exit::UNAVAILABLE, message)),
            };
        }
    }

    /// Whatever becomes of it, the daemon tells with an event: that nothing was said, too.
    async fn event(&mut self, id: &str, meter: &mut Meter) -> Result<Value, Failure> {
        let mut speaks = false;
        loop {
            let (topic, payload) = self.next().await?;
            let Some(what) = topic
                .strip_prefix("mic/")
                .and_then(|rest| rest.strip_prefix(id))
            else {
                continue;
            };
            let text = String::from_utf8_lossy(&payload);
            match what {
                "/level" => {
                    if let Ok(dbfs) = text.parse() {
                        meter.level(dbfs);
                    }
                }
                "/speech" if text == "ON" => {
                    speaks = true;
                    meter.says("speech begins");
                }
                "/speech" if std::mem::take(&mut speaks) => meter.says("speech ends"),
                // It was taken out of the configuration, and with it the topic.
                "/state" if text.is_empty() => return Err(self.node.not_there(id, "gone")),
                "/event" => {
                    // The answer may be faster than the word of the end.
                    if speaks {
                        meter.says("speech ends");
                    }
                    return serde_json::from_slice(&payload).map_err(|error| {
                        Failure::new(exit::DATA, format_args!("{topic}: {error}"))
                    });
                }
                _ => {}
            }
        }
    }

    /// The node's next message: what stands behind `BASE/NODE/`, and the payload.
    async fn next(&mut self) -> Result<(String, Vec<u8>), Failure> {
        loop {
            match self.follower.next().await {
                Followed::Connected => {}
                Followed::Lost(reason) => return Err(self.node.lost(&reason)),
                Followed::Message { topic, payload, .. } => {
                    self.node.take(&topic, &payload)?;
                    return Ok((topic, payload));
                }
            }
        }
    }
}

/// What the node tells of itself.
#[derive(Default)]
struct Node {
    broker: String,
    /// `BASE/NODE`
    name: String,
    online: bool,
    /// The microphones that are configured.
    microphones: Option<Vec<String>>,
    /// `online`, `offline` or `muted`.
    states: BTreeMap<String, String>,
}

impl Node {
    fn of(config: &MqttOptions) -> Node {
        Node {
            broker: config.url.clone(),
            name: format!("{}/{}", config.base_topic, config.node_name()),
            ..Node::default()
        }
    }

    /// Remembers what a message tells.
    ///
    /// # Errors
    /// The daemon has gone.
    fn take(&mut self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        let text = || String::from_utf8_lossy(payload).into_owned();
        match topic.split('/').collect::<Vec<_>>().as_slice() {
            ["state"] => {
                self.online = payload == b"online";
                if !self.online {
                    return Err(
                        self.unavailable("is not running: start it (systemctl start gemmad)")
                    );
                }
            }
            ["info"] => {
                let info: Value = serde_json::from_slice(payload).unwrap_or_default();
                let ids = info["microphones"].as_array().into_iter().flatten();
                let ids = ids.filter_map(|found| found["id"].as_str().map(str::to_owned));
                self.microphones = Some(ids.collect());
            }
            ["mic", id, "state"] => {
                self.states.insert((*id).to_owned(), text());
            }
            _ => {}
        }
        Ok(())
    }

    /// The microphone that is meant; `None` while not enough is known.
    ///
    /// # Errors
    /// There is none of that name, not exactly one, or it does not listen.
    fn microphone(&self, wanted: Option<&str>) -> Result<Option<String>, Failure> {
        let (true, Some(known)) = (self.online, &self.microphones) else {
            return Ok(None);
        };
        let ids = known.join(", ");
        let usage = |message: String| Err(Failure::new(exit::USAGE, message));
        let id = match (wanted, known.as_slice()) {
            (_, []) => {
                return Err(self.unavailable(
                    "has no microphone: `gemmad devices` prints sections for gemmad.toml",
                ));
            }
            (Some(id), _) if known.iter().any(|found| found == id) => id,
            (Some(id), _) => return usage(format!("--microphone {id}: {} has {ids}", self.name)),
            (None, [only]) => only,
            (None, _) => return usage(format!("which microphone? --microphone ID, of {ids}")),
        };
        match self.states.get(id).map(String::as_str) {
            None => Ok(None),
            Some("online") => Ok(Some(id.to_owned())),
            Some(state) => Err(self.not_there(id, state)),
        }
    }

    fn unavailable(&self, what: &str) -> Failure {
        let (name, broker) = (&self.name, &self.broker);
        Failure::new(
            exit::UNAVAILABLE,
            format_args!("gemmad ({name} on {broker}) {what}"),
        )
    }

    fn not_there(&self, id: &str, state: &str) -> Failure {
        let mend = match state {
            "muted" => format!(
                "publish OFF on {}/mic/{id}/mute/set to unmute it",
                self.name
            ),
            _ => "`gemmad doctor` tells why".to_owned(),
        };
        Failure::new(
            exit::UNAVAILABLE,
            format_args!("the microphone {id} is {state}: {mend}"),
        )
    }

    /// Nothing that was published tells of a daemon that is ready.
    fn silent(&self) -> Failure {
        self.unavailable("tells nothing: is it running, with this node's name and this broker, and may this user read its topics?")
    }

    /// The daemon does not answer.
    fn deaf(&self, id: &str) -> Failure {
        self.unavailable(&format!(
            "does not answer: may this user write mic/{id}/listen at the broker?"
        ))
    }

    fn lost(&self, reason: &str) -> Failure {
        Failure::new(
            exit::UNAVAILABLE,
            format_args!("the broker {} {reason}", self.broker),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_microphone_is_meant_or_why_none_is() {
        let mut node = Node {
            name: "gemmad/pi".to_owned(),
            ..Node::default()
        };
        assert_eq!(node.microphone(None).unwrap(), None);
        node.take("state", b"online").unwrap();
        node.take(
            "info",
            br#"{"microphones": [{"id": "hall"}, {"id": "attic"}]}"#,
        )
        .unwrap();
        let refused = |node: &Node, id| node.microphone(id).unwrap_err().in_words();
        assert!(refused(&node, None).contains("hall, attic"));
        assert!(refused(&node, Some("cellar")).contains("cellar: gemmad/pi has hall, attic"));
        assert_eq!(
            node.microphone(Some("hall")).unwrap(),
            None,
            "its state is not known"
        );
        node.take("mic/hall/state", b"muted").unwrap();
        assert!(
            refused(&node, Some("hall"))
                .contains("hall is muted: publish OFF on gemmad/pi/mic/hall/mute/set")
        );
        node.take("mic/hall/state", b"offline").unwrap();
        assert!(refused(&node, Some("hall")).contains("hall is offline: `gemmad doctor`"));
        node.take("mic/hall/state", b"online").unwrap();
        assert_eq!(node.microphone(Some("hall")).unwrap().unwrap(), "hall");
        node.take("info", br#"{"microphones": [{"id": "hall"}]}"#)
            .unwrap();
        assert_eq!(node.microphone(None).unwrap().unwrap(), "hall");
        node.take("info", br#"{"microphones": []}"#).unwrap();
        assert!(refused(&node, None).contains("no microphone"));
        assert!(
            node.take("state", b"offline")
                .unwrap_err()
                .in_words()
                .contains("not running")
        );
    }
}
