//! Removes what the broker keeps of a node: for a board that is taken away.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::advice::in_words;
use super::client::{Connection, Event, Loss, Message, WINDOW};
use super::options::MqttOptions;
use super::topics::Topics;
use super::{MqttError, announce, beside_the_daemon};

/// How long the broker may take to let us in, to tell what it keeps, and to take each message.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Retained messages come right after the subscription; after this silence there are no more.
const QUIET: Duration = Duration::from_secs(1);
/// Largest message that may have been retained below the node's topics, bytes.
const MAX_PACKET_BYTES: usize = 32 << 20;

/// Removes every retained message below the node's topics, and the node's devices from Home Assistant; gives the topics that
/// were cleared. gemmad should not be running with this node's name: it would publish them again.
///
/// # Errors
/// The configuration cannot be used, the broker cannot be reached, or it does not answer within ten seconds.
pub async fn clear(config: &MqttOptions) -> Result<Vec<String>, MqttError> {
    let options = beside_the_daemon(config, "clear", MAX_PACKET_BYTES)?;
    let topics = Topics::new(config);
    let mut connection = Connection::open(&options);
    let told = |reason: String| MqttError::Broker {
        broker: config.url.clone(),
        reason,
    };
    let lost = |loss: &Loss| in_words(loss, config, &options.client_id);
    let mut kept = kept(&mut connection, &topics, &lost).await.map_err(told)?;
    // The devices first, so that Home Assistant reads no states that are no more. The list last: while it stands, a second
    // try finds the devices again.
    let announced = topics.announced();
    kept.sort_by_key(|topic| (*topic == announced, topics.below(topic).is_some()));
    remove(&mut connection, &kept, &lost).await.map_err(told)?;
    connection.close().await;
    Ok(kept)
}

/// The topics that hold something: those below the node's, and Home Assistant's of its devices.
async fn kept(
    connection: &mut Connection,
    topics: &Topics,
    lost: &impl Fn(&Loss) -> String,
) -> Result<Vec<String>, String> {
    let mut found = BTreeSet::new();
    // Devices are named by the list of what was announced, and by the topics of their sources.
    let mut devices = BTreeSet::from([topics.device()]);
    let mut subscribed = false;
    let mut deadline = Instant::now() + ANSWERS_WITHIN;
    loop {
        match timeout_at(deadline, connection.next()).await {
            Err(_) if subscribed => break,
            Err(_) => return Err("does not answer".to_owned()),
            Ok(Event::Connected) => {
                connection.subscribe(vec![topics.of("#")]);
            }
            Ok(Event::Subscribed { refused: 0 }) => {
                subscribed = true;
                deadline = Instant::now() + QUIET;
            }
            Ok(Event::Subscribed { .. }) => {
                return Err("does not let this user read the node's topics".to_owned());
            }
            Ok(Event::Message {
                topic,
                payload,
                retained: true,
            }) => {
                if subscribed {
                    deadline = Instant::now() + QUIET;
                }
                if topic == topics.announced() {
                    devices.extend(announce::read_list(topics, &payload));
                }
                devices.extend(topics.source_in(&topic));
                found.insert(topic);
            }
            Ok(Event::Lost(loss)) => return Err(lost(&loss)),
            Ok(_) => {}
        }
    }
    found.extend(devices.iter().map(|device| topics.discovery(device)));
    Ok(found.into_iter().collect())
}

/// Takes back what is kept there, and waits until the broker has done it.
async fn remove(
    connection: &mut Connection,
    kept: &[String],
    lost: &impl Fn(&Loss) -> String,
) -> Result<(), String> {
    let mut waiting = kept.iter();
    let mut on_their_way = 0;
    loop {
        while on_their_way < WINDOW
            && let Some(topic) = waiting.next()
        {
            let message = Message {
                topic: topic.clone(),
                payload: Vec::new(),
                retain: true,
                acknowledged: true,
            };
            if !connection.publish(0, message) {
                return Err("closed the connection".to_owned());
            }
            on_their_way += 1;
        }
        if on_their_way == 0 {
            return Ok(());
        }
        match timeout(ANSWERS_WITHIN, connection.next()).await {
            Ok(Event::Delivered(_)) => on_their_way -= 1,
            Ok(Event::Lost(loss)) => return Err(lost(&loss)),
            Ok(_) => {}
            Err(_) => return Err("does not answer".to_owned()),
        }
    }
}
