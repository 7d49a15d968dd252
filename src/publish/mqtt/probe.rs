//! Tries the broker as the daemon would use it, for `gemmad doctor`: logs in, listens to a topic of the node, and says something
//! there.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::client::{Connection, Event, Loss, Message, Options};
use super::topics::Topics;
use super::{MqttError, beside_the_daemon};
use crate::config;

/// How long the broker may take for all of it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Largest message that is expected, bytes: only the probe's own comes.
const MOST_PACKET_BYTES: usize = 1 << 20;
/// What is said.
const MESSAGE: &[u8] = b"gemmad doctor";

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unusable {
    /// What went wrong.
    pub error: MqttError,
    /// What to do about it.
    pub advice: String,
}

/// Logs in with the configured user, password and certificates, and passes a message through the broker, on the topic `doctor` of
/// the node; gives the node's name. The daemon may be connected at the same time.
///
/// # Errors
/// The configuration cannot be used, or the broker refuses something or does not answer within ten seconds.
pub async fn probe(config: &config::Mqtt) -> Result<String, Unusable> {
    let mended = |error: MqttError| Unusable {
        error,
        advice: "mend [mqtt] in gemmad.toml".to_owned(),
    };
    let options = beside_the_daemon(config, "doctor", MOST_PACKET_BYTES).map_err(mended)?;
    let topics = Topics::new(config);
    let mut connection = Connection::open(&options);
    let result = pass_a_message(&mut connection, &topics).await;
    connection.close().await;
    result.map_err(|(reason, advice)| Unusable {
        error: MqttError::Broker {
            broker: config.url.clone(),
            reason,
        },
        advice: advice.unwrap_or_else(|loss| advise(&loss, config, &options)),
    })?;
    Ok(topics.node)
}

/// What happened, and what to do about it, or what to derive that from.
type Trouble = (String, Result<String, Loss>);

async fn pass_a_message(connection: &mut Connection, topics: &Topics) -> Result<(), Trouble> {
    let topic = topics.of("doctor");
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let allow = || {
        format!(
            "allow this user `topic readwrite {}` in the broker's access list",
            topics.of("#")
        )
    };
    let (mut connected, mut said) = (false, false);
    loop {
        let Ok(event) = timeout_at(deadline, connection.next()).await else {
            if said {
                let reason = format!("does not pass on what is published on {topic}");
                return Err((reason, Ok(allow())));
            }
            let loss = Loss::Unreachable("no answer in time".to_owned());
            return Err((loss.to_string(), Err(loss)));
        };
        match event {
            Event::Connected if !connected => {
                connected = true;
                connection.subscribe(vec![topic.clone()]);
            }
            Event::Subscribed { refused: 0 } => {
                let message = Message {
                    topic: topic.clone(),
                    payload: MESSAGE.to_vec(),
                    retain: false,
                    acknowledged: true,
                };
                said = connection.publish(0, message);
            }
            Event::Subscribed { .. } => {
                let reason = format!("does not let this user read {topic}");
                return Err((reason, Ok(allow())));
            }
            Event::Message {
                topic: heard,
                payload,
                ..
            } if heard == topic && payload == MESSAGE => return Ok(()),
            // A broker may answer to what it does not allow by hanging up.
            Event::Lost(Loss::Closed(reason)) if connected => {
                let reason = Loss::Closed(reason).to_string();
                return Err((format!("let this user in and {reason}"), Ok(allow())));
            }
            Event::Lost(loss) => return Err((loss.to_string(), Err(loss))),
            _ => {}
        }
    }
}

fn advise(loss: &Loss, config: &config::Mqtt, broker: &Options) -> String {
    let (host, port) = (&broker.host, broker.port);
    let reason = loss.to_string();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if let Loss::Refused(_) = loss {
        return match &config.password_file {
            _ if config.username.is_empty() => {
                "the broker wants a user: set mqtt.username, and mqtt.password_file or \
                 mqtt.password_credential"
                    .to_owned()
            }
            Some(path) => format!(
                "compare mqtt.username ({:?}) and the password in {} with the broker's",
                config.username,
                path.display()
            ),
            None => format!(
                "compare mqtt.username ({:?}) and its password with the broker's",
                config.username
            ),
        };
    }
    if has(&["certificate", "UnknownIssuer"]) {
        return format!(
            "mqtt.ca_file has to hold the certificate of the authority that signed the broker's, which has to be for {host}"
        );
    }
    if has(&["lookup", "resolve", "not known"]) {
        return format!("no address is known for {host}: is the name right, and the network up?");
    }
    if has(&["refused"]) {
        return format!("is the broker running on {host}, and does it listen on port {port}?");
    }
    if has(&["in time", "timed out", "unreachable", "No route"]) {
        return format!("is {host} switched on, and does no firewall stand before port {port}?");
    }
    if broker.tls.is_some() {
        format!("does the broker speak TLS on port {port}? if not, write mqtt://")
    } else {
        format!("does the broker speak plain MQTT on port {port}? with TLS it is mqtts://")
    }
}
