//! What the objects show, and what they take.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::media::DeviceState;
use gemmad::report::{ErrorBody, ErrorCode, Health, JobState, Payload, Report};
use serde_json::{Value, json};

use super::service::{Service, info, microphone};
use super::{JOB, MANAGER, ROOT, caption, error};
use crate::private_bus::{PrivateBus, repository, wait_for};

/// The project's interfaces in introspection data, by name, each line without its indentation.
fn interfaces(xml: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in xml.split("<interface name=\"").skip(1) {
        let (name, rest) = part.split_once('"').unwrap();
        let body = rest.split("</interface>").next().unwrap();
        let lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
        if name.starts_with("org.gemmad1") {
            found.insert(name.to_owned(), lines.collect::<Vec<_>>().join("\n"));
        }
    }
    found
}

#[test]
fn the_objects_are_those_of_the_introspection_data() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    let job = caller.ask("hello").unwrap();
    service.request();
    let mut live = String::new();
    for path in [
        ROOT,
        "/org/gemmad1/mic/front_room",
        "/org/gemmad1/camera/porch",
        &job,
    ] {
        let told = caller.call(
            path,
            "org.freedesktop.DBus.Introspectable",
            "Introspect",
            &json!([]),
        );
        live.push_str(told.unwrap().as_str().unwrap());
    }
    let committed = std::fs::read_to_string(repository("packaging/dbus/org.gemmad1.xml")).unwrap();
    let (live_ones, committed_ones) = (interfaces(&live), interfaces(&committed));
    assert_eq!(live_ones.len(), 5, "{live}");
    assert_eq!(
        live_ones, committed_ones,
        "packaging/dbus/org.gemmad1.xml is not what the bus shows:\n{live}"
    );

    // What lies below the root is told at once, jobs included.
    let objects = caller
        .call(
            ROOT,
            "org.freedesktop.DBus.ObjectManager",
            "GetManagedObjects",
            &json!([]),
        )
        .unwrap();
    let objects = objects.as_object().unwrap();
    assert_eq!(
        objects["/org/gemmad1/mic/front_room"]["org.gemmad1.Microphone"]["State"],
        "offline"
    );
    assert_eq!(
        objects["/org/gemmad1/camera/porch"]["org.gemmad1.Camera"]["Name"],
        "Porch"
    );
    assert_eq!(objects[&job][JOB]["State"], "queued");
}

#[test]
fn cameras_and_microphones_show_and_take() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let listener = bus.listener(&[]);
    let mut caller = bus.caller(&[]);
    let (camera, microphone_path) = ("/org/gemmad1/camera/porch", "/org/gemmad1/mic/front_room");
    let (name, _) = error(caller.call(camera, "org.gemmad1.Camera", "Snapshot", &json!([])));
    assert_eq!(name, "NotFound");
    service.publish(caption("A \"cat\"\0.", Some(b"jpeg bytes")));
    listener.wait_for("org.gemmad1.Events.Caption");
    let snapshot = caller
        .call(camera, "org.gemmad1.Camera", "Snapshot", &json!([]))
        .unwrap();
    assert_eq!(snapshot["base64"], STANDARD.encode("jpeg bytes"));
    assert_eq!(
        snapshot["seals"], 0b1111,
        "sealed against shrinking, growing, writing and further seals"
    );

    let changes = [
        (
            Report::MicrophoneState {
                id: "front-room".to_owned(),
                state: DeviceState::Online,
            },
            "{'State': <'online'>}",
        ),
        (
            Report::Speech {
                id: "front-room".to_owned(),
                speaking: true,
            },
            "{'Speaking': <true>}",
        ),
        (
            Report::CameraState {
                id: "porch".to_owned(),
                state: DeviceState::Off,
            },
            "'State': <'disabled'>",
        ),
        (
            Report::Motion {
                id: "porch".to_owned(),
                moving: true,
            },
            "{'Motion': <true>}",
        ),
        (
            Report::Captions {
                id: "porch".to_owned(),
                enabled: true,
            },
            "{'CaptionsEnabled': <true>}",
        ),
        (
            Report::Matformer("e2b".to_owned()),
            "{'MatFormer': <'e2b'>}",
        ),
    ];
    for (report, told) in changes {
        service.publish(report);
        listener.wait_for(told);
    }
    let mut health = Health {
        state: "ready".to_owned(),
        ..Health::default()
    };
    health.queues.jobs = 3;
    health.mqtt.connected = true;
    health.memory_groups_mib.insert("text".to_owned(), 1.5);
    service.publish(Report::Health(Box::new(health)));
    listener.wait_for("'State': <'ready'>");
    assert_eq!(caller.property(ROOT, MANAGER, "QueueDepth").unwrap(), 3);
    assert_eq!(
        caller.property(ROOT, MANAGER, "MqttConnected").unwrap(),
        true
    );
    assert_eq!(
        caller.property(ROOT, MANAGER, "MemoryGroups").unwrap(),
        json!({"text": 1_572_864})
    );
    assert_eq!(caller.property(ROOT, MANAGER, "Version").unwrap(), "1.2.3");
    assert_eq!(
        caller
            .property(camera, "org.gemmad1.Camera", "Enabled")
            .unwrap(),
        false
    );

    // Requests of each kind reach the daemon as they were meant.
    let mut set = |path: &str, interface: &str, name: &str, value: Value| {
        let arguments = json!([interface, name, value]);
        caller
            .call(path, "org.freedesktop.DBus.Properties", "Set", &arguments)
            .unwrap();
        format!("{:?}", service.request().payload)
    };
    let muted = set(
        microphone_path,
        "org.gemmad1.Microphone",
        "Muted",
        json!(["b", true]),
    );
    assert_eq!(muted, "Set(Mute { id: \"front-room\", muted: true })");
    let enabled = set(camera, "org.gemmad1.Camera", "Enabled", json!(["b", true]));
    assert_eq!(enabled, "Set(Enable { id: \"porch\", enabled: true })");
    let captions = set(
        camera,
        "org.gemmad1.Camera",
        "CaptionsEnabled",
        json!(["b", false]),
    );
    assert_eq!(captions, "Set(Captions { id: \"porch\", enabled: false })");
    assert_eq!(
        set(ROOT, MANAGER, "MatFormer", json!(["s", "e4b"])),
        "Set(Matformer(\"e4b\"))"
    );
    caller.manager("Forget", &json!([])).unwrap();
    assert!(matches!(service.request().payload, Payload::Forget));
    caller.manager("SetMatFormer", &json!(["e2b"])).unwrap();
    assert_eq!(
        format!("{:?}", service.request().payload),
        "Set(Matformer(\"e2b\"))"
    );
    caller
        .call(
            microphone_path,
            "org.gemmad1.Microphone",
            "Listen",
            &json!([{}]),
        )
        .unwrap();
    assert_eq!(
        format!("{:?}", service.request().payload),
        "Listen { id: \"front-room\" }"
    );
    caller
        .call(
            camera,
            "org.gemmad1.Camera",
            "Describe",
            &json!([{"max_tokens": ["u", 5]}]),
        )
        .unwrap();
    let Payload::Describe(describe) = service.request().payload else {
        panic!("not described")
    };
    assert_eq!(
        (format!("{:?}", describe.picture), describe.wish.max_tokens),
        ("Camera(\"porch\")".to_owned(), Some(5))
    );

    // A reload changes what there is.
    let mut info = info();
    info.cameras.clear();
    info.microphones.push(microphone("attic"));
    service.publish(Report::Info(Box::new(info)));
    wait_for("the new microphone", || {
        caller
            .property("/org/gemmad1/mic/attic", "org.gemmad1.Microphone", "Name")
            .ok()
    });
    assert_eq!(
        caller
            .property(microphone_path, "org.gemmad1.Microphone", "State")
            .unwrap(),
        "online"
    );
    assert!(
        caller
            .property(camera, "org.gemmad1.Camera", "Name")
            .is_err()
    );
}

#[test]
fn reload_waits_for_its_outcome() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    for wrong in [false, true] {
        let call = std::thread::spawn(move || {
            let answer = caller.manager("Reload", &json!([]));
            (caller, answer)
        });
        let request = service.request();
        assert!(matches!(request.payload, Payload::Reload));
        assert!(!call.is_finished());
        if wrong {
            let told = ErrorBody {
                code: ErrorCode::Invalid,
                message: "gemmad.toml: line 3".to_owned(),
            };
            service.update(&request, JobState::Failed, |update| {
                update.error = Some(told)
            });
        } else {
            service.update(&request, JobState::Done, |_| {});
        }
        let (back, answer) = call.join().unwrap();
        caller = back;
        if wrong {
            assert_eq!(
                error(answer),
                ("Invalid".to_owned(), "gemmad.toml: line 3".to_owned())
            );
        } else {
            answer.unwrap();
        }
    }
}

#[test]
fn systemd_reads_and_sets_the_log_level() {
    let bus = PrivateBus::open();
    let _service = Service::start(&bus.config());
    let property = [
        "org.gemmad1",
        "/org/freedesktop/LogControl1",
        "org.freedesktop.LogControl1",
    ];
    let get = |name: &str| {
        bus.busctl(&[], &[&["get-property"], &property[..], &[name]].concat())
            .unwrap()
            .trim()
            .to_owned()
    };
    let set = |level: &str| {
        bus.busctl(
            &[],
            &[&["set-property"], &property[..], &["LogLevel", "s", level]].concat(),
        )
    };
    for (level, filter, shown) in [
        ("debug", log::LevelFilter::Debug, "s \"debug\""),
        ("notice", log::LevelFilter::Info, "s \"info\""),
        ("warning", log::LevelFilter::Warn, "s \"warning\""),
        ("crit", log::LevelFilter::Error, "s \"err\""),
    ] {
        set(level).unwrap();
        assert_eq!(log::max_level(), filter);
        assert_eq!(get("LogLevel"), shown);
    }
    assert!(set("loud").unwrap_err().contains("LogLevel must be emerg"));
    assert_eq!(log::max_level(), log::LevelFilter::Error);
    assert_eq!(get("SyslogIdentifier"), "s \"gemmad\"");
    assert!(["s \"journal\"", "s \"console\""].contains(&get("LogTarget").as_str()));
}
