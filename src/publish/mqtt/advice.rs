//! What to do about a broker that cannot be used: one place, for the daemon's log, the doctor and the commands.

use super::client::{Loss, Refusal};
use super::options::MqttOptions;
use super::topics::Topics;

/// How a connection of a command ended, and what to do about it, in one line.
pub(super) fn in_words(loss: &Loss, config: &MqttOptions, client_id: &str) -> String {
    format!("{loss}; {}", advise(loss, config, client_id))
}

/// The same for the daemon, whose connection has a last will, and sends more than a command does.
pub(super) fn in_the_daemons_words(loss: &Loss, config: &MqttOptions, client_id: &str) -> String {
    let told = in_words(loss, config, client_id);
    match loss {
        Loss::HungUp(_) => {
            format!(
                "{told}; if it speaks it, it does not take the last will: `gemmad doctor` tells why"
            )
        }
        Loss::Closed(_) => format!(
            "{told}; if it does so again and again, there is something that it does not take, such as a large message: `gemmad doctor` tells what"
        ),
        _ => told,
    }
}

/// What to do about the end of a connection; only what follows from how it ended.
pub(super) fn advise(loss: &Loss, config: &MqttOptions, client_id: &str) -> String {
    let (host, port, tls) = match config.broker() {
        Ok(broker) => (broker.host, broker.port, broker.tls),
        Err(error) => return error,
    };
    let protocol = || match tls {
        true => format!("does the broker speak TLS on port {port}? if not, write mqtt://"),
        false => {
            format!("does the broker speak plain MQTT on port {port}? with TLS it is mqtts://")
        }
    };
    match loss {
        Loss::Insecure(fault) => fault.advice.clone(),
        Loss::Refused(refusal) => refused(*refusal, config, client_id),
        Loss::Foreign(_) | Loss::HungUp(_) => protocol(),
        Loss::TooLarge(_) => format!(
            "somebody published more than mqtt.max_payload_bytes below {}",
            Topics::new(config).of("#")
        ),
        Loss::Closed(_) => "the broker's log says why".to_owned(),
        Loss::Unanswered(_) => {
            "does the broker hang, or is its disk full? its log says why".to_owned()
        }
        Loss::Unreachable(reason) => {
            let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
            if has(&["lookup", "resolve", "not known", "Name or service"]) {
                format!("no address is known for {host}: is the name right, and the network up?")
            } else if has(&["refused"]) {
                format!("is the broker running on {host}, and does it listen on port {port}?")
            } else if has(&["in time", "timed out", "unreachable", "No route"]) {
                format!("is {host} switched on, and does no firewall stand before port {port}?")
            } else {
                protocol()
            }
        }
    }
}

fn refused(refusal: Refusal, config: &MqttOptions, client_id: &str) -> String {
    let topics = Topics::new(config);
    let login = || {
        match (&config.username, &config.password_file) {
        (user, _) if user.is_empty() => {
            "the broker wants a user: set mqtt.username, and mqtt.password_file or mqtt.password_credential".to_owned()
        }
        (user, Some(path)) => format!(
            "compare mqtt.username ({user:?}) and the password in {} with the broker's",
            path.display()
        ),
        (user, None) => format!("compare mqtt.username ({user:?}) and its password with the broker's"),
    }
    };
    match refusal {
        Refusal::Protocol => {
            "let the broker take MQTT 3.1.1 beside MQTT 5; gemmad speaks 3.1.1, as nearly every broker does".to_owned()
        }
        Refusal::ClientName => format!(
            "let the broker take the client id {client_id:?}, or give mqtt.node a name whose id it takes; some want up to 23 letters and \
             digits"
        ),
        Refusal::Unavailable => {
            "nothing is wrong with gemmad.toml: does the broker just start, or has it as many clients as it may have? its log says why"
                .to_owned()
        }
        Refusal::Login => login(),
        // What a broker says to a wrong password, too.
        Refusal::NotAuthorised if config.username.is_empty() => login(),
        Refusal::NotAuthorised => format!(
            "{}; its access list has to let this user in, with the client id {client_id:?} and a last will on {}",
            login(),
            topics.availability()
        ),
        Refusal::Will => will(&topics),
        Refusal::Other(_) => "look into the broker's log: it has a reason of its own".to_owned(),
    }
}

/// What the broker has to do for the daemon's last will.
pub(super) fn will(topics: &Topics) -> String {
    format!(
        "let the broker take a retained last will with QoS 1 on {} (mosquitto: max_qos 1 or 2, retain_available true, and `{}` in the \
         access list)",
        topics.availability(),
        read_and_write(&topics.of("#"))
    )
}

/// A line of mosquitto's access list.
pub(super) fn read_and_write(topics: &str) -> String {
    format!("topic readwrite {topics}")
}
