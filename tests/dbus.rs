//! org.gemmad1 on a dbus-daemon of its own, called by libdbus, busctl and gdbus; the test stands in the daemon's place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "dbus/private_bus.rs"]
mod private_bus;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::config;
use gemmad::publish::dbus::DbusError;
use gemmad::report::{
    Action, CaptionEvent, ErrorBody, ErrorCode, EventType, Health, JobState, Origin, Reply, Report,
    ReportTiming, SourceState, TriggerName, VoiceEvent,
};
use private_bus::{
    MEMBER, MEMBERS_GROUP, OTHER_MEMBER, OUTSIDER, PrivateBus, Service, info, is_root, microphone,
    repository, wait_for,
};
use serde_json::{Value, json};

const ROOT: &str = "/org/gemmad1";
const MANAGER: &str = "org.gemmad1.Manager";
const JOB: &str = "org.gemmad1.Job";

fn voice(text: &str) -> Report {
    Report::Voice(Box::new(VoiceEvent {
        schema: 1,
        id: "01JDEXAMPLE".to_owned(),
        event_type: EventType::Transcript,
        ts: "2026-11-24T12:00:01+01:00".to_owned(),
        clock_synced: true,
        source: "front-room".to_owned(),
        language: "English".to_owned(),
        text: Some(text.to_owned()),
        command: None,
        confidence: None,
        audio_s: 1.5,
        truncated: false,
        reason: None,
        model: "tiny".to_owned(),
        matformer: "e4b".to_owned(),
        timing: ReportTiming::default(),
    }))
}

fn caption(text: &str, image: Option<&[u8]>) -> Report {
    let event = Box::new(CaptionEvent {
        schema: 1,
        id: "01JDEXAMPLE".to_owned(),
        event_type: EventType::Caption,
        ts: "2026-11-24T12:00:01+01:00".to_owned(),
        clock_synced: true,
        source: "porch".to_owned(),
        caption: text.to_owned(),
        short: text.to_owned(),
        trigger: TriggerName::Motion,
        motion_area: Some(0.25),
        motion_box: Some([0.0, 0.0, 0.5, 0.5]),
        frame_ts: "2026-11-24T12:00:00+01:00".to_owned(),
        image_sha256: String::new(),
        reason: None,
        model: "tiny".to_owned(),
        matformer: "e4b".to_owned(),
        timing: ReportTiming::default(),
    });
    Report::Caption {
        event,
        image: image.map(Into::into),
    }
}

/// The error's name without the prefix, and what it says.
fn error<T: std::fmt::Debug>(result: Result<T, (String, String)>) -> (String, String) {
    let (name, message) = result.unwrap_err();
    (
        name.strip_prefix("org.gemmad1.Error.")
            .unwrap_or(&name)
            .to_owned(),
        message,
    )
}

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
fn a_question_becomes_a_job_with_an_answer() {
    let bus = PrivateBus::open();
    let config = config::Dbus {
        keep_finished_s: 2,
        ..bus.config()
    };
    let mut service = Service::start(&config);
    let monitor = bus.monitor();
    let mut caller = bus.caller(&[]);
    let options = json!({
        "system": ["s", "Be brief."], "schema": ["s", "{\"type\":\"string\"}"], "choices": ["as", ["yes", "no"]],
        "matformer": ["s", "e2b"], "max_tokens": ["u", 7], "temperature": ["d", 0.5], "seed": ["t", u64::MAX], "stream": ["b", true],
        "conversation": ["s", "c1"], "timeout_ms": ["i", 9000], "image": ["h", ["memfd", STANDARD.encode("a picture"), true]],
    });
    let job = caller
        .manager("Ask", &json!(["Is it day?", options]))
        .unwrap();
    let job = job.as_str().unwrap().to_owned();
    let request = service.request();
    assert_eq!(job, format!("/org/gemmad1/job/{}", request.id));
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(
        request.origin,
        Origin::Bus {
            uid,
            sender: caller.name.clone()
        }
    );
    let Action::Ask(ask) = &request.action else {
        panic!("{request:?}")
    };
    assert_eq!(ask.prompt, "Is it day?");
    assert_eq!(ask.system.as_deref(), Some("Be brief."));
    assert_eq!(ask.schema, Some(json!({"type": "string"})));
    assert_eq!(ask.choices, Some(vec!["yes".to_owned(), "no".to_owned()]));
    assert_eq!(ask.matformer.as_deref(), Some("e2b"));
    assert_eq!(
        (ask.max_tokens, ask.temperature, ask.seed),
        (Some(7), Some(0.5), Some(u64::MAX))
    );
    assert_eq!(
        (ask.stream, ask.conversation.as_deref(), ask.timeout_ms),
        (true, Some("c1"), Some(9000))
    );
    assert_eq!(&*ask.image.as_ref().unwrap().0, b"a picture");

    let (name, _) = error(caller.call(&job, JOB, "Result", &json!([])));
    assert_eq!(name, "Busy");
    service.update(&request, JobState::Running, |update| {
        update.progress = Some(0.5);
        update.partial = Some("y".to_owned());
    });
    monitor.wait_for("\"member\":\"Partial\"");
    assert_eq!(caller.property(&job, JOB, "State").unwrap(), "running");
    assert_eq!(caller.property(&job, JOB, "Progress").unwrap(), 0.5);
    assert_eq!(caller.property(&job, JOB, "Kind").unwrap(), "ask");
    assert_eq!(caller.property(&job, JOB, "Owner").unwrap(), uid);
    assert_eq!(
        caller.manager("ListJobs", &json!([])).unwrap(),
        json!([[job, "ask", "running", uid]])
    );

    service.update(&request, JobState::Done, |update| {
        update.reply = Some(Reply {
            text: Some("yes".to_owned()),
            finish: Some("stop".to_owned()),
            ..Reply::default()
        });
    });
    monitor.wait_for("\"member\":\"Finished\"");
    let result = caller.call(&job, JOB, "Result", &json!([])).unwrap();
    assert_eq!(result, json!({"text": "yes", "finish": "stop"}));
    monitor.wait_for("\"member\":\"JobRemoved\"");
    let (name, _) = error(caller.call(&job, JOB, "Result", &json!([])));
    assert_eq!(name, "org.freedesktop.DBus.Error.UnknownObject");

    // Answers went to the one who asked; the rest was for everybody, in this order.
    let heard = monitor.text();
    let signals: Vec<Value> = heard
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of_job: Vec<&Value> = signals
        .iter()
        .filter(|message: &&Value| {
            message["type"] == "signal" && message["sender"] != "org.freedesktop.DBus"
        })
        .collect();
    let members: Vec<&str> = of_job
        .iter()
        .filter_map(|message| message["member"].as_str())
        .collect();
    let expected = [
        "InterfacesAdded",
        "JobNew",
        "Partial",
        "PropertiesChanged",
        "PropertiesChanged",
        "Finished",
        "InterfacesRemoved",
        "JobRemoved",
    ];
    assert_eq!(members, expected, "{heard}");
    for message in of_job {
        let private = matches!(message["member"].as_str(), Some("Partial" | "Finished"));
        let destination = private.then(|| caller.name.as_str());
        assert_eq!(message["destination"].as_str(), destination, "{message}");
    }
    assert_eq!(
        signals
            .iter()
            .find(|message| message["member"] == "Partial")
            .unwrap()["payload"]["data"],
        json!(["y"])
    );
}

#[test]
fn a_job_that_fails_says_why() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    let job = caller.ask("hello").unwrap();
    let request = service.request();
    let told = ErrorBody {
        code: ErrorCode::Timeout,
        message: "not done in 9 s".to_owned(),
    };
    service.update(&request, JobState::Failed, |update| {
        update.error = Some(told)
    });
    let failed = error(caller.call(&job, JOB, "Result", &json!([])));
    assert_eq!(failed, ("Timeout".to_owned(), "not done in 9 s".to_owned()));

    // A cancel goes to the daemon, and ends the job when the daemon says so.
    let job = caller.ask("hello").unwrap();
    let request = service.request();
    caller.call(&job, JOB, "Cancel", &json!([])).unwrap();
    let Action::Cancel(cancel) = service.request().action else {
        panic!("no cancel")
    };
    assert_eq!(cancel.job.as_ref(), Some(&request.id));
    assert_eq!(caller.property(&job, JOB, "State").unwrap(), "queued");
    service.update(&request, JobState::Cancelled, |_| {});
    assert_eq!(
        error(caller.call(&job, JOB, "Result", &json!([]))).0,
        "Cancelled"
    );
}

#[test]
fn one_user_has_so_many_jobs() {
    let bus = PrivateBus::open();
    let config = config::Dbus {
        jobs_per_user: 2,
        ..bus.config()
    };
    let mut service = Service::start(&config);
    let (mut caller, mut another) = (bus.caller(&[]), bus.caller(&[]));
    caller.ask("one").unwrap();
    another.ask("two").unwrap();
    let (name, message) = error(caller.ask("three"));
    assert_eq!(name, "QuotaExceeded");
    assert!(message.contains("dbus.jobs_per_user"), "{message}");
    // An ended job makes room, and so does a call that came to nothing.
    let request = service.request();
    service.update(&request, JobState::Done, |_| {});
    let (name, _) = error(caller.manager("Ask", &json!(["four", {"sed": ["t", 1]}])));
    assert_eq!(name, "Invalid");
    caller.ask("five").unwrap();
    assert_eq!(error(another.ask("six")).0, "QuotaExceeded");
}

#[test]
fn a_full_queue_is_told() {
    let bus = PrivateBus::open();
    let mut service = Service::try_start(&bus.config(), 1).unwrap();
    let mut caller = bus.caller(&[]);
    caller.ask("one").unwrap();
    assert_eq!(error(caller.ask("two")).0, "QueueFull");
    let (name, _) = error(caller.call(
        ROOT,
        "org.freedesktop.DBus.Properties",
        "Set",
        &json!([MANAGER, "MatFormer", ["s", "e2b"]]),
    ));
    assert_eq!(name, "org.freedesktop.DBus.Error.LimitsExceeded");
    service.request();
    caller.ask("three").unwrap();
    assert_eq!(
        caller
            .manager("ListJobs", &json!([]))
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_caller_that_vanishes_takes_its_jobs_along() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let (mut leaving, mut staying) = (bus.caller(&[]), bus.caller(&[]));
    leaving.ask("one").unwrap();
    staying.ask("two").unwrap();
    let request = service.request();
    service.request();
    service.no_request();
    drop(leaving);
    let Action::Cancel(cancel) = service.request().action else {
        panic!("no cancel")
    };
    assert_eq!(cancel.job, Some(request.id));
    service.no_request();

    // One that vanishes while its pipe is read leaves no job.
    let mut leaving = bus.caller(&[]);
    leaving.send(&json!({
        "path": ROOT, "interface": MANAGER, "method": "Transcribe", "args": [["h", ["pipe", "", false]], {}],
    }));
    // The bus takes calls in order, and the listing has no pipe to wait for.
    staying.manager("ListJobs", &json!([])).unwrap();
    drop(leaving);
    let jobs = staying.manager("ListJobs", &json!([])).unwrap();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    service.no_request();
}

#[test]
fn mistakes_in_options_are_told() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&config::Dbus {
        max_text_bytes: 64,
        ..bus.config()
    });
    let mut caller = bus.caller(&[]);
    let long = "x".repeat(65);
    for (options, name, words) in [
        (
            json!({"max_token": ["u", 1]}),
            "Invalid",
            ["`max_token`", "`max_tokens`"],
        ),
        (
            json!({"zzz": ["u", 1]}),
            "Invalid",
            ["`zzz`", "temperature"],
        ),
        (
            json!({"max_tokens": ["s", "many"]}),
            "Invalid",
            ["`max_tokens`", "whole number"],
        ),
        (
            json!({"max_tokens": ["i", -1]}),
            "Invalid",
            ["`max_tokens`", "whole number"],
        ),
        (
            json!({"temperature": ["s", "hot"]}),
            "Invalid",
            ["`temperature`", "number (d)"],
        ),
        (
            json!({"stream": ["s", "yes"]}),
            "Invalid",
            ["`stream`", "(b)"],
        ),
        (
            json!({"choices": ["s", "yes"]}),
            "Invalid",
            ["`choices`", "(as)"],
        ),
        (
            json!({"schema": ["s", "{"]}),
            "Invalid",
            ["`schema`", "JSON"],
        ),
        (
            json!({"image": ["s", "door.jpg"]}),
            "Invalid",
            ["`image`", "(h)"],
        ),
        (
            json!({"system": ["s", long]}),
            "TooLarge",
            ["`system`", "dbus.max_text_bytes"],
        ),
        (
            json!({"choices": ["as", [long]]}),
            "TooLarge",
            ["`choices`", "dbus.max_text_bytes"],
        ),
    ] {
        let (told, message) = error(caller.manager("Ask", &json!(["hello", options])));
        assert!(
            told == name && words.iter().all(|word| message.contains(word)),
            "{told}: {message}"
        );
    }
    assert_eq!(error(caller.ask(&long)).0, "TooLarge");
    let (name, message) = error(caller.call(
        "/org/gemmad1/mic/front_room",
        "org.gemmad1.Microphone",
        "Listen",
        &json!([{"language": ["s", "x"]}]),
    ));
    assert!(
        name == "Invalid" && message.contains("has none"),
        "{message}"
    );
    service.no_request();
    assert_eq!(caller.manager("ListJobs", &json!([])).unwrap(), json!([]));
}

#[test]
fn files_come_as_descriptors_within_limits() {
    let bus = PrivateBus::open();
    let config = config::Dbus {
        max_attachment_bytes: 100_000,
        attachment_timeout_ms: 500,
        jobs_per_user: 8,
        ..bus.config()
    };
    let mut service = Service::start(&config);
    let mut caller = bus.caller(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audio");
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let encoded = STANDARD.encode(&bytes);
    for audio in [json!(["memfd", encoded, true]), json!(["file", file])] {
        caller
            .manager(
                "Transcribe",
                &json!([["h", audio], {"language": ["s", "German"]}]),
            )
            .unwrap();
        let Action::Transcribe(transcribe) = service.request().action else {
            panic!("not transcribed")
        };
        assert!(*transcribe.audio.unwrap().0 == bytes);
        assert_eq!(transcribe.language.as_deref(), Some("German"));
    }
    caller.manager("Describe", &json!([["h", ["pipe", STANDARD.encode("a picture"), true]], {"prompt": ["s", "What?"]}])).unwrap();
    let Action::Describe(describe) = service.request().action else {
        panic!("not described")
    };
    assert_eq!(&*describe.image.unwrap().0, b"a picture");
    assert_eq!(
        (describe.prompt.as_deref(), describe.camera),
        (Some("What?"), None)
    );

    let larger = STANDARD.encode(vec![1; 100_001]);
    let larger_file = directory.path().join("larger");
    std::fs::write(&larger_file, vec![1; 100_001]).unwrap();
    for (audio, name, words) in [
        (
            json!(["memfd", larger, true]),
            "TooLarge",
            "dbus.max_attachment_bytes",
        ),
        (
            json!(["file", larger_file]),
            "TooLarge",
            "dbus.max_attachment_bytes",
        ),
        (json!(["memfd", encoded, false]), "Invalid", "F_SEAL_WRITE"),
        (
            json!(["pipe", "", false]),
            "Timeout",
            "dbus.attachment_timeout_ms",
        ),
        (json!(["file", "/dev/zero"]), "Invalid", "a pipe"),
        (json!(["file", directory.path()]), "Invalid", "a pipe"),
    ] {
        let (told, message) = error(caller.manager("Transcribe", &json!([["h", audio], {}])));
        assert!(
            told == name && message.contains(words),
            "{audio:.40}: {told}: {message}"
        );
    }
    service.no_request();
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
                state: SourceState::Online,
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
                state: SourceState::Off,
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
        format!("{:?}", service.request().action)
    };
    let muted = set(
        microphone_path,
        "org.gemmad1.Microphone",
        "Muted",
        json!(["b", true]),
    );
    assert_eq!(muted, "Mute { id: \"front-room\", muted: true }");
    let enabled = set(camera, "org.gemmad1.Camera", "Enabled", json!(["b", true]));
    assert_eq!(enabled, "Enable { id: \"porch\", enabled: true }");
    let captions = set(
        camera,
        "org.gemmad1.Camera",
        "CaptionsEnabled",
        json!(["b", false]),
    );
    assert_eq!(captions, "Captions { id: \"porch\", enabled: false }");
    assert_eq!(
        set(ROOT, MANAGER, "MatFormer", json!(["s", "e4b"])),
        "Matformer(\"e4b\")"
    );
    caller.manager("SetMatFormer", &json!(["e2b"])).unwrap();
    assert_eq!(
        format!("{:?}", service.request().action),
        "Matformer(\"e2b\")"
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
        format!("{:?}", service.request().action),
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
    let Action::Describe(describe) = service.request().action else {
        panic!("not described")
    };
    assert_eq!(
        (describe.camera.as_deref(), describe.max_tokens),
        (Some("porch"), Some(5))
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
        assert!(matches!(request.action, Action::Reload));
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

#[test]
fn a_thousand_calls_at_once_stay_within_bounds() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    caller.burst(1000, "Ask", &json!(["hello", {}]));
    // Calls are answered in any order; when as many were refused as there are, all are through.
    let jobs = wait_for("the jobs", || {
        let jobs = caller.manager("ListJobs", &json!([])).unwrap();
        Some(jobs.as_array().unwrap().len()).filter(|count| *count == 4)
    });
    assert_eq!(jobs, config::Dbus::default().jobs_per_user);
    let requests: Vec<_> = (0..4).map(|_| service.request()).collect();
    service.no_request();
    for request in &requests {
        service.update(request, JobState::Done, |_| {});
    }
    // A user's ended jobs are bounded as well.
    let mut most = 0;
    for _ in 0..40 {
        let asked = wait_for("room for a job", || caller.ask("again").ok());
        let request = service.request();
        assert!(asked.ends_with(&request.id));
        service.update(&request, JobState::Done, |_| {});
        let jobs = caller.manager("ListJobs", &json!([])).unwrap();
        most = most.max(jobs.as_array().unwrap().len());
    }
    assert!((32..=34).contains(&most), "{most} jobs were listed");
}

#[test]
fn a_slow_bus_does_not_hold_up_the_daemon() {
    let bus = PrivateBus::open();
    let service = Service::start(&bus.config());
    let listener = bus.listener(&[]);
    service.publish(voice("the first"));
    listener.wait_for("the first");
    bus.signal("STOP");
    // More than the socket takes: each of these is some KiB.
    let filler = "x".repeat(4096);
    for number in 0..5_000 {
        service.publish(voice(&format!("{filler} {number}")));
    }
    service.publish(voice("the last"));
    bus.signal("CONT");
    listener.wait_for("the last");
    let heard = listener.text().matches("Events.Transcript").count();
    assert!((256..5_000).contains(&heard), "{heard} of 5002 were told");
    assert!(service.bus().alive());
}

#[test]
fn a_lost_bus_is_noticed_and_a_new_one_used() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    assert!(service.bus().alive());
    let taken = Service::try_start(&bus.config(), 1)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(taken, DbusError::NameTaken { .. }), "{taken}");
    drop(bus);
    wait_for("the loss of the bus", || {
        (!service.bus().alive()).then_some(())
    });
    service.publish(voice("into the void"));
    service.stop();

    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    bus.caller(&[]).ask("hello").unwrap();
    service.request();
    service.stop();
    let gone = bus.busctl(&[], &["status", "org.gemmad1"]);
    assert!(gone.is_err(), "{gone:?}");
    let nowhere = config::Dbus {
        bus: "unix:path=/nowhere/bus".to_owned(),
        ..config::Dbus::default()
    };
    let told = Service::try_start(&nowhere, 1)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("dbus.bus") && told.contains("/nowhere/bus"),
        "{told}"
    );
}

/// The shipped policy, with a group and a user that every Debian has in the places of its own.
fn shipped_policy() -> String {
    let text = std::fs::read_to_string(repository("packaging/dbus/gemmad.conf")).unwrap();
    let policies = text
        .split_once("<busconfig>")
        .unwrap()
        .1
        .split_once("</busconfig>")
        .unwrap()
        .0;
    let (group, user) = ("group=\"gemmad\"", "user=\"gemmad\"");
    assert!(policies.contains(group) && policies.contains(user));
    let policies = policies.replace(group, &format!("group=\"{MEMBERS_GROUP}\""));
    policies.replace(user, "user=\"sys\"")
}

#[test]
fn only_the_group_hears_and_calls() {
    if !is_root() {
        // Another user cannot be played without root: what is left is that the default policy shuts this one out.
        let bus = PrivateBus::like_the_system_bus(&shipped_policy());
        let refused = Service::try_start(&bus.config(), 1)
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(refused, DbusError::NameRefused { .. }),
            "{refused}"
        );
        eprintln!("not root: that two users are kept apart was not tested");
        return;
    }
    let bus = PrivateBus::like_the_system_bus(&shipped_policy());
    let mut service = Service::start(&bus.config());
    let (member, outsider) = (bus.listener(MEMBER), bus.listener(OUTSIDER));
    let (mut asking, mut other, mut shut_out) = (
        bus.caller(MEMBER),
        bus.caller(OTHER_MEMBER),
        bus.caller(OUTSIDER),
    );

    let job = asking.ask("my secret question").unwrap();
    let request = service.request();
    assert!(
        matches!(request.origin, Origin::Bus { uid: 1, .. }),
        "{:?}",
        request.origin
    );
    service.update(&request, JobState::Running, |update| {
        update.partial = Some("secret piece".to_owned())
    });
    let reply = Reply {
        text: Some("secret answer".to_owned()),
        ..Reply::default()
    };
    service.update(&request, JobState::Done, |update| {
        update.reply = Some(reply)
    });
    service.publish(voice("a secret word"));
    service.publish(caption("a secret sight", Some(b"secret")));
    service.publish(Report::Stopping);
    member.wait_for("a secret word");
    member.wait_for("a secret sight");
    member.wait_for("<'stopping'>");

    // Answers are the asker's alone, whatever the group.
    assert!(!member.text().contains("secret piece") && !member.text().contains("secret answer"));
    assert_eq!(
        error(other.call(&job, JOB, "Result", &json!([]))).0,
        "NotPermitted"
    );
    assert_eq!(
        error(other.call(&job, JOB, "Cancel", &json!([]))).0,
        "NotPermitted"
    );
    assert_eq!(
        asking.call(&job, JOB, "Result", &json!([])).unwrap()["text"],
        "secret answer"
    );
    let mut root = bus.caller(&[]);
    assert_eq!(
        root.call(&job, JOB, "Result", &json!([])).unwrap()["text"],
        "secret answer"
    );
    // Quotas are each user's own.
    for _ in 0..4 {
        asking.ask("again").unwrap();
    }
    assert_eq!(error(asking.ask("again")).0, "QuotaExceeded");
    other.ask("hello").unwrap();

    // Everybody else can neither call, nor look, nor listen.
    let denied = "org.freedesktop.DBus.Error.AccessDenied";
    for (path, interface, method, arguments) in [
        (ROOT, MANAGER, "Ask", json!(["hello", {}])),
        (ROOT, MANAGER, "ListJobs", json!([])),
        (
            ROOT,
            "org.freedesktop.DBus.Introspectable",
            "Introspect",
            json!([]),
        ),
        (
            ROOT,
            "org.freedesktop.DBus.Properties",
            "GetAll",
            json!([MANAGER]),
        ),
        (
            ROOT,
            "org.freedesktop.DBus.ObjectManager",
            "GetManagedObjects",
            json!([]),
        ),
        (
            "/org/gemmad1/camera/porch",
            "org.gemmad1.Camera",
            "Snapshot",
            json!([]),
        ),
        (&job, JOB, "Result", json!([])),
    ] {
        assert_eq!(
            error(shut_out.call(path, interface, method, &arguments)).0,
            denied,
            "{method}"
        );
    }
    let heard = outsider.text();
    assert!(!heard.contains("/org/gemmad1"), "{heard}");

    // The log is root's.
    let property = [
        "get-property",
        "org.gemmad1",
        "/org/freedesktop/LogControl1",
        "org.freedesktop.LogControl1",
        "LogTarget",
    ];
    assert!(bus.busctl(MEMBER, &property).is_err());
    bus.busctl(&[], &property).unwrap();

    // Nor may others take the name.
    service.stop();
    let taken = bus.caller(OUTSIDER).call(
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "RequestName",
        &json!(["org.gemmad1"]),
    );
    assert!(taken.is_err());
}
