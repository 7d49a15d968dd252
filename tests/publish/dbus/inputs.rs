//! Wrong options, files of every kind, and too much of everything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::publish::dbus::DbusOptions;
use gemmad::report::{JobState, Payload, Picture, Request};
use serde_json::json;

use super::service::Service;
use super::{JOB, MANAGER, ROOT, error};
use crate::private_bus::{PrivateBus, wait_for};

#[test]
fn mistakes_in_options_are_told() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&DbusOptions {
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
fn names_of_any_length_are_refused() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&DbusOptions {
        max_text_bytes: 200_000,
        ..bus.config()
    });
    let mut caller = bus.caller(&[]);
    for bytes in [257, 66_000] {
        let long = "x".repeat(bytes);
        let audio = json!(["h", ["memfd", STANDARD.encode("a sound"), true]]);
        let camera = "/org/gemmad1/camera/porch";
        let calls = [
            (
                "conversation",
                caller.manager("Ask", &json!(["x", {"conversation": ["s", long]}])),
            ),
            (
                "matformer",
                caller.manager("Ask", &json!(["x", {"matformer": ["s", long]}])),
            ),
            (
                "language",
                caller.manager("Transcribe", &json!([audio, {"language": ["s", long]}])),
            ),
            (
                "matformer",
                caller.call(
                    camera,
                    "org.gemmad1.Camera",
                    "Describe",
                    &json!([{"matformer": ["s", long]}]),
                ),
            ),
        ];
        for (key, call) in calls {
            let (name, message) = error(call);
            assert_eq!(name, "TooLarge", "{message}");
            let told = format!("`{key}` has {bytes} bytes");
            assert!(message.contains(&told) && message.len() < 200, "{message}");
        }
        let (name, message) = error(caller.call(
            ROOT,
            "org.freedesktop.DBus.Properties",
            "Set",
            &json!([MANAGER, "MatFormer", ["s", long]]),
        ));
        assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs", "{message}");
        // An object of that name, and a job, are not there.
        let path = format!("/org/gemmad1/job/{long}");
        let (name, _) = error(caller.call(&path, JOB, "Cancel", &json!([])));
        assert!(
            name.starts_with("org.freedesktop.DBus.Error.Unknown"),
            "{name}"
        );
    }
    service.no_request();
    assert_eq!(caller.manager("ListJobs", &json!([])).unwrap(), json!([]));
    let longest = "x".repeat(256);
    caller
        .manager("Ask", &json!(["x", {"conversation": ["s", longest]}]))
        .unwrap();
    service.request();
}

#[test]
fn files_come_as_descriptors_within_limits() {
    let bus = PrivateBus::open();
    let config = DbusOptions {
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
        let Payload::Transcribe(transcribe) = service.request().payload else {
            panic!("not transcribed")
        };
        assert!(*transcribe.audio.0 == bytes);
        assert_eq!(
            transcribe.language.as_deref().map(String::as_str),
            Some("German")
        );
    }
    caller.manager("Describe", &json!([["h", ["pipe", STANDARD.encode("a picture"), true]], {"prompt": ["s", "What?"]}])).unwrap();
    let Payload::Describe(describe) = service.request().payload else {
        panic!("not described")
    };
    let Picture::Attached(image) = describe.picture else {
        panic!("no picture")
    };
    assert_eq!(&*image.0, b"a picture");
    assert_eq!(describe.wish.prompt.as_deref(), Some("What?"));

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
        (json!(["memfd", "", true]), "Invalid", "is empty"),
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
fn a_thousand_calls_at_once_stay_within_bounds() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    caller.burst(1000, "Ask", &json!(["hello", {}]));
    // As many as one user may have came through.
    let mut active: Vec<_> = (0..4).map(|_| service.request()).collect();
    service.no_request();
    let jobs = caller.manager("ListJobs", &json!([])).unwrap();
    assert_eq!(
        jobs.as_array().unwrap().len(),
        DbusOptions::default().jobs_per_user
    );
    // Each that ends makes room for one of the rest, and no more; a user's ended jobs are bounded as well.
    let mut most = 0;
    for _ in 0..60 {
        while let Some(request) = active.pop() {
            service.update(&request, JobState::Done, |_| {});
        }
        let asked = wait_for("room for a job", || {
            // What is left of the thousand takes the room first.
            while let Some(request) = service.next_request() {
                service.update(&request, JobState::Done, |_| {});
            }
            caller.ask("again").ok()
        });
        while !active
            .last()
            .is_some_and(|request: &Request| asked.ends_with(&request.header.id))
        {
            active.push(service.request());
        }
        assert!(active.len() <= 4);
        let jobs = caller.manager("ListJobs", &json!([])).unwrap();
        most = most.max(jobs.as_array().unwrap().len());
    }
    assert!((32..=37).contains(&most), "{most} jobs were listed");
}

#[test]
fn a_question_without_words_is_refused_as_over_mqtt() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    for prompt in ["", " \n"] {
        let told = error(caller.manager("Ask", &json!([prompt, {}])));
        assert_eq!(told, ("Invalid".to_owned(), "`prompt` is empty".to_owned()));
    }
    service.no_request();
    // It leaves nothing behind, and a picture may stand for itself.
    assert_eq!(caller.manager("ListJobs", &json!([])).unwrap(), json!([]));
    let picture = [
        "memfd".into(),
        STANDARD.encode("a picture").into(),
        json!(true),
    ];
    caller
        .manager("Ask", &json!(["", {"image": ["h", picture]}]))
        .unwrap();
    assert!(matches!(service.request().payload, Payload::Ask(_)));
}
