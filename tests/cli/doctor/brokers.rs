//! What is wrong with a broker, as the doctor and the daemon tell it.

use super::{ALLOWED, Patient, demo, locked_broker};
use crate::broker::{Broker, fake_broker, free_port};
use crate::process::Gemmad;

#[test]
fn what_is_wrong_with_the_broker_is_told_with_what_to_do() {
    let patient = Patient::new();
    let mut broker = locked_broker(patient.dir.path(), "right", ALLOWED);
    let password = patient.path("password");
    let port = broker.port;
    let examine = |scheme: &str, node: &str, login: &str| {
        patient.write(&format!(
            "[model]\npath = {:?}\n[dbus]\nenabled = false\n\
             [mqtt]\nenabled = true\nurl = \"{scheme}://127.0.0.1:{}\"\nnode = \"{node}\"\n{login}\n",
            demo(),
            port
        ));
        patient.examine()
    };
    let login = format!("username = \"gemmad\"\npassword_file = {password:?}");
    std::fs::write(&password, "wrong\n").unwrap();
    let found = examine("mqtt", "pi", &login);
    found.failing(&["broker"]);
    found.expect(
        "broker",
        "failing",
        &["refused the connection", "mqtt.username", "/password"],
    );
    found.expect("model", "ok", &[]);

    let found = examine("mqtt", "pi", "");
    found.expect(
        "broker",
        "failing",
        &["refused the connection", "wants a user"],
    );

    std::fs::write(&password, "right\n").unwrap();
    let found = examine("mqtt", "other", &login);
    found.expect("broker", "failing", &["topic readwrite gemmad/other/#"]);
    let found = examine("mqtts", "pi", &login);
    found.expect("broker", "failing", &["cannot be reached", "mqtt://"]);

    std::fs::remove_file(&password).unwrap();
    let found = examine("mqtt", "pi", &login);
    found.expect("broker", "failing", &["mqtt.password_file", "No such file"]);
    let found = examine(
        "mqtt",
        "pi",
        "username = \"gemmad\"\npassword_credential = \"mqtt\"",
    );
    found.expect("broker", "warning", &["LoadCredential", "systemd-run"]);
    found.failing(&[]);

    std::fs::write(&password, "right\n").unwrap();
    examine("mqtt", "pi", &login).expect("broker", "ok", &[]);
    broker.kill();
    let found = examine("mqtt", "pi", &login);
    found.expect(
        "broker",
        "failing",
        &["cannot be reached", "is the broker running on 127.0.0.1"],
    );
}

#[test]
fn each_thing_that_a_broker_does_not_do_is_a_line_of_its_own() {
    let patient = Patient::new();
    let settings = "allow_anonymous true\nmessage_size_limit 4000\nacl_file ";
    let list = patient.path("access");
    std::fs::write(&list, "topic readwrite gemmad/#\n").unwrap();
    let settings = format!("{settings}{}\n", list.display());
    let broker = Broker::start_with(patient.dir.path(), free_port(), &settings);
    patient.write(&format!(
        "[model]\npath = {:?}\n[dbus]\nenabled = false\n\
         [mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n\
         [[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n",
        demo(),
        broker.port
    ));
    let found = patient.examine();
    let lines: Vec<String> = found
        .all("broker")
        .iter()
        .map(|line| line.to_string())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(
        lines[0].contains("topic readwrite homeassistant/device/#"),
        "{lines:#?}"
    );
    assert!(lines[1].contains("drops a message of"), "{lines:#?}");
    assert_eq!(found.code, Some(69));
}

#[test]
fn the_daemon_gives_the_doctors_advice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = |name: &str, setting: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let settings = format!("allow_anonymous true\n{setting}\n");
        Broker::start_with(&dir, free_port(), &settings)
    };
    let (no_qos, small) = (
        broker("qos", "max_qos 0"),
        broker("size", "max_packet_size 4000"),
    );
    for (port, found, told) in [
        (
            fake_broker(&[0x20, 2, 0, 3]),
            "it is not available",
            "it is not available; nothing is wrong with gemmad.toml",
        ),
        (
            fake_broker(&[0x20, 2, 0, 1]),
            "it does not speak MQTT 3.1.1",
            "it does not speak MQTT 3.1.1; let the broker take MQTT 3.1.1",
        ),
        // The broker tells the daemon nothing; the doctor finds out.
        (
            no_qos.port,
            "max_qos 1 or 2",
            "it does not take the last will: `gemmad doctor` tells why",
        ),
        (
            small.port,
            "closes the connection at a message of",
            "such as a large message: `gemmad doctor` tells what",
        ),
    ] {
        let patient = Patient::new();
        patient.write(&format!(
            "[model]\npath = {:?}\n[dbus]\nenabled = false\n\
             [mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{port}\"\nnode = \"pi\"\n",
            demo(),
        ));
        patient.examine().expect("broker", "failing", &[found]);
        let gemmad = Gemmad::spawn(patient.dir.path(), &[]);
        gemmad.wait_log(told);
        assert!(!gemmad.stop().contains("mqtt.username"));
    }
}
