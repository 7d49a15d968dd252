//! The broker, the bus, the HTTP server and whoever else the daemon would talk to, as it would.

use std::net::TcpListener;
use std::time::Duration;

use super::Finding;
use crate::capture::options::SpeakerOptions;
use crate::cli::broker::block_on;
use crate::config::Config;
use crate::daemon;
use crate::fleet::{self, Link, Member, Role};
use crate::publish::dbus::{self, DbusError, DbusOptions, NameOwner};
use crate::publish::http::{self, HttpServerOptions};
use crate::publish::mqtt::{self, MqttError, Occupant, Unusable};
use crate::report::Info;

/// Tries at the broker what the daemon will do; `running`: a daemon runs on this board.
pub(in crate::cli) fn broker(config: &Config, running: bool) -> Vec<Finding> {
    let mqtt = &config.mqtt;
    if !mqtt.enabled {
        return vec![Finding::ok("broker", "mqtt.enabled is false")];
    }
    let probed = match block_on(mqtt::probe(mqtt, &announced(config))) {
        Err(error) => return vec![no_runtime("broker", &error)],
        Ok(Err(unusable)) => return vec![cannot_be_used(unusable)],
        Ok(Ok(probed)) => probed,
    };
    let mut findings: Vec<Finding> = probed.troubles.into_iter().map(cannot_be_used).collect();
    let node = format!("{}/{}", mqtt.base_topic, probed.node);
    if let Some(occupant) = &probed.occupant {
        findings.extend(shared_name(&node, occupant, running));
    }
    if !findings.is_empty() {
        return findings;
    }
    let user = match mqtt.username.as_str() {
        "" => "without a user".to_owned(),
        user => format!("as {user}"),
    };
    let found = format!("{} takes and gives messages of {node} {user}", mqtt.url);
    let plain = mqtt
        .broker()
        .is_ok_and(|broker| !broker.tls && !broker.is_loopback());
    if plain && !mqtt.username.is_empty() {
        let advice = "the password goes over the network in the clear: use mqtts://";
        return vec![Finding::warning("broker", found, advice)];
    }
    vec![Finding::ok("broker", found)]
}

fn cannot_be_used(unusable: Unusable) -> Finding {
    match unusable.error {
        // Only the service has them.
        error @ MqttError::NoCredentials { .. } => Finding::warning(
            "broker",
            error.to_string(),
            "to try it here, give the credential: systemd-run -P -p User=gemmad -p LoadCredential=NAME:FILE gemmad doctor",
        ),
        error => Finding::failing("broker", error.to_string(), unusable.advice),
    }
}

/// Another gemmad with the node's name: the broker lets in one of them at a time.
fn shared_name(node: &str, occupant: &Occupant, running: bool) -> Option<Finding> {
    let advice = "give every board a name of its own in mqtt.node: boards of one name take the broker's connection from each other";
    if let Some(other) = &occupant.namesake {
        let found = format!(
            "two gemmads have the name {node}: the one that answers knows of another, {other}"
        );
        return Some(Finding::failing("broker", found, advice));
    }
    let elsewhere = |host: &&String| **host != mqtt::host_name();
    let started = occupant.started_at.as_ref();
    let started = started.map_or_else(String::new, |at| format!(", started at {at}"));
    if let Some(host) = occupant.host.as_ref().filter(elsewhere) {
        let found = format!("another gemmad is connected as {node}, on host {host:?}{started}");
        return Some(Finding::failing("broker", found, advice));
    }
    if running {
        return None;
    }
    let found = format!(
        "a gemmad is connected as {node}{started}, and none with this configuration is seen to run here"
    );
    Some(Finding::warning(
        "broker",
        found,
        format!("if it is not this board's own, {advice}"),
    ))
}

/// What the daemon would tell of itself, as far as it is known without a model: how much it is counts.
fn announced(config: &Config) -> Info {
    let model = config.model.path.file_name();
    let (microphones, cameras) = daemon::sources(config);
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        microphones,
        cameras,
        ..Info::default()
    }
}

/// Whether the server of the fleet can be used as the daemon will, and somebody is there to do what this board does not.
pub(super) fn fleet(config: &Config) -> Finding {
    const CHECK: &str = "fleet";
    if !config.fleet.enabled {
        return Finding::ok(CHECK, "fleet.enabled is false");
    }
    let probed = block_on(async {
        let link = Link::open(&config.fleet, &config.mqtt.node_name()).await?;
        link.make_streams().await?;
        fleet::roster(&link, Duration::from_secs(1)).await
    });
    let members = match probed {
        Err(error) => return no_runtime(CHECK, &error),
        Ok(Err(error)) => {
            let advice = "see docs/fleet.md; without a fleet, set fleet.enabled to false";
            return Finding::failing(CHECK, error.to_string(), advice);
        }
        Ok(Ok(members)) => members,
    };
    if let Some(misfit) = members.iter().find_map(Member::misfit) {
        return Finding::warning(CHECK, misfit, "boards of one version do each other's work");
    }
    let node = config.mqtt.node_name();
    let workers: Vec<&str> = members
        .iter()
        .filter(|member| member.role != Role::Source.name() && member.node != node)
        .map(|member| member.node.as_str())
        .collect();
    let group = &config.fleet.group;
    if workers.is_empty() && config.fleet.role == Role::Source {
        let found = format!("no board of the fleet {group:?} works for this one");
        let advice = "start one whose fleet.role is \"worker\" or \"both\"";
        return Finding::warning(CHECK, found, advice);
    }
    let others = match workers.as_slice() {
        [] => "no other board works".to_owned(),
        workers => format!("{} work for it", workers.join(", ")),
    };
    Finding::ok(CHECK, format!("{group:?} can be joined; {others}"))
}

/// Whether the daemon's name is to be had on the bus, or a daemon has it; and whether one is running, as far as the bus knows.
pub(super) fn bus(config: &DbusOptions) -> (Finding, bool) {
    if !config.enabled {
        return (Finding::ok("bus", "dbus.enabled is false"), false);
    }
    let probed = block_on(dbus::probe(config));
    let running = matches!(probed, Ok(Ok(NameOwner::Process(_))));
    (told(&config.bus, probed), running)
}

fn told(bus: &str, probed: std::io::Result<Result<NameOwner, DbusError>>) -> Finding {
    match probed {
        Err(error) => no_runtime("bus", &error),
        Ok(Ok(NameOwner::Free)) => Finding::ok(
            "bus",
            format!("org.gemmad1 is free on the bus {bus:?}, and this user may own it"),
        ),
        Ok(Ok(NameOwner::Process(id))) => owned(bus, id),
        Ok(Err(error @ DbusError::NameRefused { .. })) => Finding::failing(
            "bus",
            error.to_string(),
            "as another user than the daemon's this is as it should be",
        ),
        Ok(Err(error)) => Finding::failing(
            "bus",
            error.to_string(),
            "without a bus, set dbus.enabled to false",
        ),
    }
}

fn owned(bus: &str, id: Option<u32>) -> Finding {
    let name = id.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).ok());
    let process = match (id, name) {
        (Some(id), Some(name)) => format!("{} (process {id})", name.trim()),
        (Some(id), None) => format!("process {id}"),
        (None, _) => "a process".to_owned(),
    };
    let found = format!("org.gemmad1 is owned by {process} on the bus {bus:?}");
    // Of another user's process the name may be hidden.
    if process.starts_with("gemmad ") || process.starts_with("process") {
        return Finding::ok("bus", found);
    }
    Finding::warning(
        "bus",
        found,
        "if that is not a gemmad, end it: the daemon cannot have the name",
    )
}

/// Whether key and certificate can be used, and the address is to be had, or a daemon has it.
pub(super) fn http(config: &HttpServerOptions, running: bool) -> Finding {
    if !config.enabled {
        return Finding::ok("http", "http.enabled is false");
    }
    if let Err(error) = http::check_files(config) {
        let advice = "the file must be there, and readable for the daemon's user";
        return Finding::failing("http", error.to_string(), advice);
    }
    let url = config.url();
    if let Err(error) = TcpListener::bind(config.listen) {
        if running && error.kind() == std::io::ErrorKind::AddrInUse {
            return Finding::ok("http", format!("the daemon answers at {url}"));
        }
        return Finding::failing(
            "http",
            format!("http.listen: cannot listen on {}: {error}", config.listen),
            "another program has the port, perhaps Ollama itself: end it, or choose another port",
        );
    }
    let found = format!("{url} is free for clients and the page");
    if config.listen.ip().is_loopback() {
        return Finding::ok("http", found);
    }
    if !config.has_key() {
        let advice =
            "whoever reaches it may ask, and see what is heard and seen: give http.api_key_file";
        return Finding::warning("http", found, advice);
    }
    if !config.has_tls() {
        let advice = "the key goes over the network in the clear: give http.tls_certificate_file and http.tls_key_file, or let a proxy encrypt";
        return Finding::warning("http", found, advice);
    }
    Finding::ok("http", found)
}

/// Whether somebody makes sound of texts, with the voice that is wanted.
pub(super) fn text_to_speech(config: &SpeakerOptions) -> Finding {
    const CHECK: &str = "text to speech";
    let Some(voice) = daemon::voice(config) else {
        return Finding::ok(
            CHECK,
            "speaker.tts is not set: files can be said, texts not",
        );
    };
    let server = format!("tcp://{}", voice.address);
    let voices = match block_on(voice.choice()) {
        Err(error) => return no_runtime(CHECK, &error),
        Ok(Err(reason)) => {
            let advice = "start a Wyoming server that speaks, such as piper, or mend speaker.tts";
            return Finding::failing(CHECK, reason, advice);
        }
        Ok(Ok(voices)) => voices,
    };
    let wanted = voice.name.as_ref();
    let is_unknown = |name: &&String| !voices.is_empty() && !voices.contains(name);
    if let Some(name) = wanted.filter(is_unknown) {
        let found = format!("{server} names no voice {name:?}");
        let advice = format!("it has {}: mend speaker.tts_voice", voices.join(", "));
        return Finding::warning(CHECK, found, advice);
    }
    let name = wanted.map_or("its own choice of voice", String::as_str);
    Finding::ok(CHECK, format!("{server} speaks, with {name}"))
}

fn no_runtime(check: &'static str, error: &std::io::Error) -> Finding {
    let found = format!("cannot be asked: {error}");
    Finding::failing(
        check,
        found,
        "is the limit of open files or threads reached?",
    )
}
