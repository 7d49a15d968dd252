//! `gemmad watch`: what a running daemon hears, sees, answers and needs, as it comes.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::broker::{BrokerArgs, block_on};
use super::failure::{Failure, exit};
use super::output::{on_terminal, out};
use crate::guard::harmless;
use crate::publish::mqtt::{Followed, Follower};

/// Watch a running gemmad over MQTT: what is heard and seen, its answers, memory and queue
///
/// On a terminal the last line shows how it is; in a pipe there is a line for each change. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    #[command(flatten)]
    broker: BrokerArgs,
}

impl Watch {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut follower = Follower::new(&self.broker.mqtt()?, "watch")
            .map_err(|error| Failure::new(exit::CONFIG, error))?;
        let mut screen = Screen::new();
        block_on(async {
            loop {
                let followed = follower.next().await;
                screen.show(followed)?;
            }
        })
        .map_err(|error| Failure::new(exit::UNAVAILABLE, error))?
    }
}

/// A terminal whose last line is the state, or a pipe.
struct Screen {
    /// The line of a terminal.
    state: Option<ProgressBar>,
    health: String,
    lost: bool,
}

impl Screen {
    fn new() -> Screen {
        let bar = || {
            let style = ProgressStyle::with_template("{wide_msg}");
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        Screen {
            state: on_terminal().then(bar),
            health: String::new(),
            lost: false,
        }
    }

    fn show(&mut self, followed: Followed) -> Result<(), Failure> {
        match followed {
            Followed::Connected => {
                self.lost = false;
                self.state("connected to the broker")
            }
            Followed::Lost(reason) => {
                let first = !std::mem::replace(&mut self.lost, true);
                match first {
                    true => self.line(&format!("the broker {reason}; trying again")),
                    false => Ok(()),
                }
            }
            Followed::Message {
                topic,
                payload,
                retained,
            } => {
                let value = serde_json::from_slice(&payload).unwrap_or_default();
                if topic == "health" {
                    let told = health(&value);
                    if told != self.health {
                        self.state(&told)?;
                        self.health = told;
                    }
                    return Ok(());
                }
                // States of before are in Home Assistant; here it is told what happens.
                match retained {
                    true => Ok(()),
                    false => told(&topic, &payload, &value).map_or(Ok(()), |l| self.line(&l)),
                }
            }
        }
    }

    fn state(&self, text: &str) -> Result<(), Failure> {
        match &self.state {
            Some(state) => {
                state.set_message(harmless::line(text).into_owned());
                Ok(())
            }
            None => self.line(text),
        }
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        let text = harmless::line(text);
        match &self.state {
            Some(state) => state.println(text),
            None => {
                let mut out = out();
                writeln!(out, "{text}")?;
                out.flush()?;
            }
        }
        Ok(())
    }
}

/// How it is, in one line.
fn health(value: &Value) -> String {
    let mib = |value: &Value| value.as_f64().unwrap_or_default();
    let groups = value["memory_groups_mib"].as_object();
    let groups: Vec<String> = groups
        .into_iter()
        .flatten()
        .map(|(name, size)| format!("{name} {:.1}", mib(size)))
        .collect();
    let queues = &value["queues"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let dropped = [
        "dropped_voice",
        "dropped_captions",
        "refused_requests",
        "audio_overruns",
        "timeouts",
    ];
    let dropped: u64 = dropped.iter().map(|key| number(&queues[key])).sum();
    let degraded: Vec<&str> = value["degraded"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut line = format!(
        "{}: {:.0} MiB ({}), {} jobs, {dropped} dropped, {:.1} tokens/s",
        value["state"].as_str().unwrap_or("?"),
        mib(&value["rss_mib"]),
        groups.join(", "),
        number(&queues["jobs"]),
        value["tokens_per_second"].as_f64().unwrap_or_default(),
    );
    if !degraded.is_empty() {
        line += &format!("; {}", degraded.join(", "));
    }
    line
}

/// What happened, in one line; nothing for what another message tells, too.
fn told(topic: &str, payload: &[u8], value: &Value) -> Option<String> {
    let parts: Vec<&str> = topic.split('/').collect();
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let latency = |value: &Value| match value["timing"]["latency_ms"].as_f64() {
        Some(ms) if ms > 0.0 => format!(" ({ms:.0} ms)"),
        _ => String::new(),
    };
    let source = || format!("{} {}", parts[0], parts[1]);
    Some(match parts.as_slice() {
        ["mic" | "camera", _, "event"] => {
            let command = match (&value["commands"], &value["command"]) {
                (Value::Null, Value::Null) => String::new(),
                (Value::Null, command) => format!(" {command}"),
                (several, _) => format!(" {several}"),
            };
            let said = [text("text"), text("caption"), text("reason")];
            let said: Vec<&str> = said.into_iter().filter(|said| !said.is_empty()).collect();
            let kind = text("event_type");
            format!(
                "{}: {kind}: {}{command}{}",
                source(),
                said.join("; "),
                latency(value)
            )
        }
        ["mic", _, "reply"] => {
            let plain = || String::from_utf8_lossy(payload).into_owned();
            let reply = value["text"].as_str().map_or_else(plain, str::to_owned);
            format!("{}: answered: {reply}", source())
        }
        ["mic", _, "speech"] | ["camera", _, "motion"] => {
            let on = payload == b"ON";
            let changes = if on { "begins" } else { "ends" };
            format!("{}: {} {changes}", source(), parts[2])
        }
        ["mic" | "camera", _, "state"] | ["availability"] => {
            format!(
                "{}: {}",
                parts.join(" ").replace(" state", ""),
                String::from_utf8_lossy(payload)
            )
        }
        ["request" | "response", kind] => {
            let data = match parts[0] {
                "request" => String::from_utf8_lossy(payload).into_owned(),
                _ => match value["error"]["message"].as_str() {
                    Some(error) => error.to_owned(),
                    None => value["data"]["text"]
                        .as_str()
                        .map_or_else(|| value["data"].to_string(), str::to_owned),
                },
            };
            format!("{} {kind}: {data}{}", parts[0], latency(&value["data"]))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_happened() {
        let line = |topic, value: Value| told(topic, value.to_string().as_bytes(), &value);
        let event = json!({"event_type": "command", "text": "Fan on.", "command": {"name": "turn_on", "slots": {}},
            "timing": {"latency_ms": 812.4}});
        assert_eq!(
            line("mic/hall/event", event).unwrap(),
            r#"mic hall: command: Fan on. {"name":"turn_on","slots":{}} (812 ms)"#
        );
        let error =
            json!({"status": "error", "error": {"code": "not_found", "message": "no camera"}});
        assert_eq!(
            line("response/describe", error).unwrap(),
            "response describe: no camera"
        );
        assert_eq!(
            told("mic/hall/reply", b"It is off.", &Value::Null).unwrap(),
            "mic hall: answered: It is off."
        );
        assert_eq!(
            told("camera/door/motion", b"ON", &Value::Null).unwrap(),
            "camera door: motion begins"
        );
        assert_eq!(
            told("mic/hall/state", b"muted", &Value::Null).unwrap(),
            "mic hall: muted"
        );
        assert_eq!(told("camera/door/image", &[0xff, 0xd8], &Value::Null), None);
    }
}
