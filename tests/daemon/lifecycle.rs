//! What the service manager sees: the beginning, the end, a new configuration, and what outlives the process.

use std::cell::{Cell, OnceCell};
use std::fs::OpenOptions;
use std::io::{Read, Write};

use assert_cmd::Command;
use serde_json::json;

use crate::broker::{retained, wait_until};
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::process::{Bench, Gemmad, Notified, heldout};
use crate::wyoming::samples;

fn camera(bench: &Bench, id: &str) -> String {
    let directory = bench.dir.path().join(id);
    std::fs::create_dir_all(&directory).unwrap();
    let picture = heldout("images/002_picture.png");
    std::fs::copy(picture, directory.join("a.png")).unwrap();
    format!(
        "[[camera]]\nid = \"{id}\"\ntype = \"replay\"\ndirectory = {directory:?}\n[camera.motion]\nenabled = false\n"
    )
}

#[test]
fn the_service_manager_is_told_and_a_stop_amid_an_answer_is_told_to_the_asker() {
    let bench = Bench::new();
    let manager = Notified::new(bench.dir.path());
    bench.write_config(None, "", "[queue]\nmax_tokens = 3000\nanswers = 1");
    let environment = [
        ("NOTIFY_SOCKET", manager.path.to_str().unwrap()),
        ("WATCHDOG_USEC", "4000000"),
    ];
    let mut gemmad = Gemmad::spawn(bench.dir.path(), &environment);
    manager.wait_for("READY=1", 1);
    let told = manager.all();
    let ready = told.iter().find(|text| text.contains("READY=1")).unwrap();
    assert!(
        ready.contains("STATUS=") && ready.contains("demo"),
        "{ready}"
    );
    assert!(told[0].starts_with("STATUS=opening"), "{told:?}");
    manager.wait_for("WATCHDOG=1", 2);

    gemmad.signal("HUP");
    manager.wait_for("READY=1", 2);
    let told = manager.all();
    let at = |line: &str| told.iter().rposition(|text| text.contains(line)).unwrap();
    assert!(
        told[at("RELOADING=1")].contains("MONOTONIC_USEC="),
        "{told:?}"
    );
    assert!(at("RELOADING=1") < at("READY=1"), "{told:?}");
    manager.wait_for("STATUS=none", 0);
    wait_until("the broker is in the status", || {
        manager
            .all()
            .iter()
            .any(|text| text.contains("mqtt connected, bus off"))
    });

    bench.wait_for("health", 1);
    bench.long_question("interrupted", 2000);
    bench.long_question("waiting", 2000);
    // The first is worked on, the second waits.
    bench.wait_for("response/ask/partial", 1);
    let asked = Cell::new(0);
    wait_until("both are there", || {
        asked.set(asked.get() + 1);
        let stats = bench.request("stats", &format!("s{}", asked.get()), json!({}));
        stats["data"]["details"]["queues"]["jobs"] == 2
    });
    gemmad.signal("TERM");
    let status = gemmad.wait();
    assert!(status.success(), "{status}");
    assert_eq!(
        bench.response("ask", "interrupted")["error"]["code"],
        "cancelled"
    );
    assert_eq!(bench.response("ask", "waiting")["error"]["code"], "busy");
    manager.wait_for("STOPPING=1", 1);
    let state = retained(&bench.broker);
    let state = state.iter().find(|seen| seen.topic == "gemmad/pi/state");
    assert_eq!(state.unwrap().text(), "offline");
    let log = gemmad.log();
    assert!(
        log.ends_with("stopped\n") && !log.contains("is left"),
        "{log}"
    );
}

#[test]
fn a_new_configuration_is_taken_whole_or_not_at_all() {
    let bench = Bench::new();
    let porch = camera(&bench, "porch");
    bench.write_config(None, "", &porch);
    let gemmad = bench.start();
    bench.wait_for_payload("camera/porch/state", "online");

    // A mistake: nothing changes, and it is said where it is.
    let drive = camera(&bench, "drive");
    bench.write_config(None, "", &format!("{porch}{drive}cooldown = 5\n"));
    gemmad.signal("HUP");
    gemmad.wait_log("the old configuration stays");
    let log = gemmad.log();
    assert!(
        log.contains("gemmad.toml") && log.contains("cooldown"),
        "{log}"
    );
    let refused = bench.request("reload", "r1", json!({}));
    assert_eq!(refused["error"]["code"], "invalid", "{refused}");
    assert!(bench.on("camera/drive/state").is_empty());
    let health = bench.request("stats", "s1", json!({}));
    let last_error = health["data"]["details"]["last_error"].as_str().unwrap();
    assert!(last_error.contains("cooldown"), "{last_error}");

    // A new camera, one less, and what needs a restart.
    let before = bench.wait_for("info", 1)[0].json();
    bench.write_config(None, "context = 2048", &drive);
    gemmad.signal("HUP");
    bench.wait_for_payload("camera/drive/state", "online");
    gemmad.wait_log("need a restart: [model]");
    wait_until("the old camera is taken back", || {
        bench
            .on("camera/porch/state")
            .last()
            .is_some_and(|seen| seen.payload.is_empty())
    });
    let info = bench.on("info").last().unwrap().json();
    assert_eq!(info["cameras"][0]["id"], "drive", "{info}");
    assert_eq!(info["context"], before["context"]);
    assert_ne!(info["config_sha256"], before["config_sha256"]);
    let answer = bench.request("describe", "d1", json!({"camera": "drive"}));
    assert_eq!(answer["status"], "ok", "{answer}");
    let gone = bench.request("describe", "d2", json!({"camera": "porch"}));
    assert_eq!(gone["error"]["code"], "not_found", "{gone}");
    let reload = bench.request("reload", "r2", json!({}));
    assert_eq!(
        reload["data"]["details"]["needs_restart"],
        json!(["[model]"]),
        "{reload}"
    );
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn what_was_switched_outlives_a_kill_and_the_broker_keeps_no_ghost() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    write_speech(&raw_file(bench.dir.path(), "hall"), "009_both.wav");
    let devices = camera(&bench, "porch") + "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n";
    bench.write_config(None, "", &devices);
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/speech", "ON");
    // Amid speech: what was said is forgotten.
    bench.publish("mic/hall/mute/set", "ON");
    bench.wait_for_payload("mic/hall/state", "muted");
    bench.publish("camera/porch/enabled/set", "OFF");
    bench.wait_for_payload("camera/porch/state", "disabled");
    let info = bench.wait_for("info", 1)[0].json();
    let half = info["matformer_options"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap();
    bench.publish("matformer/set", half);
    bench.wait_for_payload("matformer", half);
    bench.publish("max_tokens/set", "17");
    bench.wait_for_payload("max_tokens", "17");
    gemmad.kill();
    bench.wait_for_payload("state", "offline"); // by the broker

    let (mutes, seen) = (bench.on("mic/hall/mute").len(), bench.observer.all().len());
    let gemmad = bench.start();
    bench.wait_for("mic/hall/mute", mutes + 1);
    wait_until("both are closed", || {
        let last = |topic| bench.on(topic).last().map(|seen| seen.text().to_owned());
        last("mic/hall/state").as_deref() == Some("muted")
            && last("camera/porch/state").as_deref() == Some("disabled")
    });
    let answer = bench.request("ask", "t", json!({"prompt": "Hello.", "max_tokens": 40}));
    assert_eq!(answer["data"]["matformer"], half, "{answer}");
    assert!(
        answer["data"]["timing"]["tokens"].as_u64().unwrap() <= 17,
        "{answer}"
    );
    // Neither was open for a moment.
    let since = &bench.observer.all()[seen..];
    assert!(!since.iter().any(|seen| seen.topic.ends_with("/state")
        && seen.payload == b"online"
        && seen.topic.matches('/').count() > 2));
    assert!(bench.on("mic/hall/event").is_empty());
    let kept = retained(&bench.broker);
    let of = |topic: &str| {
        kept.iter()
            .find(|s| s.topic == format!("gemmad/pi/{topic}"))
            .map(|s| s.text().to_owned())
    };
    for (topic, value) in [
        ("state", "online"),
        ("mic/hall/mute", "ON"),
        ("mic/hall/state", "muted"),
        ("mic/hall/speech", "OFF"),
        ("camera/porch/enabled", "OFF"),
        ("camera/porch/motion", "OFF"),
        ("max_tokens", "17"),
        ("matformer", half),
    ] {
        assert_eq!(of(topic).as_deref(), Some(value), "{topic}");
    }

    // Heard again as soon as it may be.
    bench.publish("mic/hall/mute/set", "OFF");
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["event_type"], "transcript", "{event}");
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_broker_and_a_bus_that_are_not_there_are_waited_for_and_the_log_is_for_people() {
    let mut bench = Bench::new();
    bench.write_config(
        Some("unix:path=/nowhere/bus"),
        "",
        "[log]\nlevel = \"info\"",
    );
    bench.broker.kill();
    let gemmad = Gemmad::spawn(bench.dir.path(), &[]);
    gemmad.wait_log("it is tried again");
    gemmad.wait_log("mqtt away, bus away");
    bench.broker.restart();
    gemmad.wait_log("connected to mqtt://127.0.0.1");
    let log = gemmad.stop();
    for line in log.lines() {
        // [TIME LEVEL module] text
        let (head, text) = line.split_once("] ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(
            head.starts_with("[20") && !text.trim().is_empty(),
            "{line:?}"
        );
        let level = head.split_whitespace().nth(1).unwrap();
        assert!(["ERROR", "WARN", "INFO"].contains(&level), "{line:?}");
    }
    assert!(log.contains("/nowhere/bus"), "{log}");
}

#[test]
fn a_start_that_cannot_be_says_why_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gemmad.toml");
    let run = |text: &str, arguments: &[&str]| {
        std::fs::write(&config, text).unwrap();
        let output = Command::cargo_bin("gemmad")
            .unwrap()
            .env_remove("NOTIFY_SOCKET")
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            error,
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let path = config.to_str().unwrap();
    let state = dir.path().to_str().unwrap();
    let check = ["check-config", path];
    let (code, error, output) = run(
        "[mqtt]\nenabled = true\n[[camera]]\nid = \"a\"\ntype = \"replay\"\ndirectory = \"/x\"\n",
        &check,
    );
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        output.contains("good") && output.contains("1 camera,"),
        "{output}"
    );
    for (text, words) in [
        ("[mqtt]\nenabeld = true\n", ["enabeld", "enabled", "2"]),
        ("[modell]\n", ["modell", "model", "1"]),
        (
            "[[microphone]]\nid = \"a\"\ndevice = \"b\"\nanswr = \"both\"\n",
            ["answr", "answer", "4"],
        ),
    ] {
        let (code, error, _) = run(text, &check);
        assert_eq!(code, Some(78), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let (code, _, _) = run(text, &["run", "--config", path, "--state-dir", state]);
        assert_eq!(code, Some(78), "the service manager does not try again");
    }
    let nowhere = "[model]\npath = \"/nowhere/model\"\n[dbus]\nenabled = false\n";
    let (code, error, _) = run(nowhere, &["run", "--config", path, "--state-dir", state]);
    assert!(code.is_some_and(|code| code != 0), "{error}");
    assert!(error.contains("/nowhere/model"), "{error}");
}

#[test]
fn a_microphone_that_is_taken_out_while_somebody_speaks_says_so_and_answers_no_half_sentence() {
    let bench = Bench::new();
    let pipe = bench.dir.path().join("hall");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let hall = format!("[[microphone]]\nid = \"hall\"\ntype = \"replay\"\ndevice = {pipe:?}\n");
    bench.write_config(None, "", &hall);
    let gemmad = bench.start();
    let mut speaker = OpenOptions::new().write(true).open(&pipe).unwrap();
    speaker.write_all(&[0; 32_000]).unwrap();
    speaker
        .write_all(&samples("009_both.wav")[..30_000])
        .unwrap();
    bench.wait_for_payload("mic/hall/speech", "ON");
    bench.write_config(None, "", "");
    let reload = bench.request("reload", "r", json!({}));
    assert_eq!(reload["status"], "ok", "{reload}");
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["event_type"], "rejected", "{event}");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains("taken out of the configuration"), "{event}");
    bench.assert_schemas();
    gemmad.stop();
    assert_eq!(bench.on("mic/hall/event").len(), 1);
}

#[test]
fn a_device_that_does_not_let_go_holds_up_its_reload_and_nothing_else() {
    let bench = Bench::new();
    // Whoever connects is let in, and then waits for an answer that does not come.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("http://{}/door.jpeg", server.local_addr().unwrap());
    let door =
        format!("[[camera]]\nid = \"door\"\ntype = \"http\"\nurl = \"{url}\"\ntimeout_ms = 9000\n");
    let queue = "[queue]\njobs = 2\n";
    bench.write_config(None, queue, &door);
    let gemmad = bench.start();
    let held = OnceCell::new();
    wait_until("the camera is asked", || {
        let client = server.accept();
        client.is_ok_and(|(client, _)| held.set(client).is_ok())
    });
    bench.write_config(None, queue, &camera(&bench, "door"));
    for name in ["r1", "r2", "r3", "r4"] {
        let reload = json!({ "transaction": name }).to_string();
        bench.publish("request/reload", &reload);
    }
    let stats = bench.request("stats", "s", json!({}));
    assert_eq!(stats["status"], "ok", "{stats}");
    // It is another camera now, whose turn is still to come.
    let asked = bench.request("describe", "d", json!({"camera": "door"}));
    assert_eq!(asked["error"]["code"], "busy", "{asked}");
    bench.publish("camera/door/captions/set", "OFF");
    // One is under way, and two wait.
    let refused = bench.response("reload", "r4");
    assert_eq!(refused["error"]["code"], "queue_full", "{refused}");
    assert_eq!(bench.on("response/reload").len(), 1);
    for name in ["r1", "r2", "r3"] {
        assert_eq!(bench.response("reload", name)["status"], "ok");
    }
    gemmad.wait_log("door does not let go of its device, and is left");
    bench.wait_for_payload("camera/door/state", "online");
    bench.wait_for_payload("camera/door/captions", "OFF");
    // What the one that was left comes to know at last is not taken for its successor's.
    let mut held = held.into_inner().unwrap();
    held.set_nonblocking(false).unwrap();
    held.read_to_end(&mut Vec::new()).unwrap();
    let seen = bench.request("describe", "after", json!({"camera": "door"}));
    assert_eq!(seen["status"], "ok", "{seen}");
    let states = bench.on("camera/door/state");
    assert_eq!(states.last().unwrap().text(), "online");
    gemmad.stop();
}
