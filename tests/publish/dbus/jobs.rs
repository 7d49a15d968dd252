//! From a call to a result, and who has how many.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::publish::dbus::DbusOptions;
use gemmad::report::{Cancel, ErrorBody, ErrorCode, JobState, Origin, Payload, Reply};
use serde_json::{Value, json};

use super::service::Service;
use super::{JOB, MANAGER, ROOT, error};
use crate::private_bus::{PrivateBus, wait_for};

#[test]
fn a_schema_arrives_and_excludes_choices() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    let mut caller = bus.caller(&[]);
    let schema = json!(["s", "{\"type\":\"string\"}"]);
    let both = json!({"schema": schema, "choices": ["as", ["yes", "no"]]});
    let (name, message) = error(caller.manager("Ask", &json!(["Is it day?", both])));
    assert_eq!(name, "Invalid", "{message}");
    assert!(message.contains("exclude"), "{message}");
    let one = json!(["Is it day?", {"schema": schema}]);
    caller.manager("Ask", &one).unwrap();
    let request = service.request();
    let Payload::Ask(ask) = &request.payload else {
        panic!("{request:?}")
    };
    assert_eq!(ask.schema, Some(json!({"type": "string"})));
}

#[test]
fn a_question_becomes_a_job_with_an_answer() {
    let bus = PrivateBus::open();
    let config = DbusOptions {
        keep_finished_s: 2,
        ..bus.config()
    };
    let mut service = Service::start(&config);
    let monitor = bus.monitor();
    let mut caller = bus.caller(&[]);
    let options = json!({
        "system": ["s", "Be brief."], "choices": ["as", ["yes", "no"]],
        "matformer": ["s", "e2b"], "max_tokens": ["u", 7], "temperature": ["d", 0.5], "seed": ["t", u64::MAX], "thinking": ["b", true],
        "stream": ["b", true],
        "conversation": ["s", "c1"], "timeout_ms": ["i", 9000], "image": ["h", ["memfd", STANDARD.encode("a picture"), true]],
    });
    let job = caller
        .manager("Ask", &json!(["Is it day?", options]))
        .unwrap();
    let job = job.as_str().unwrap().to_owned();
    let request = service.request();
    assert_eq!(job, format!("/org/gemmad1/job/{}", request.header.id));
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert_eq!(
        request.header.origin,
        Origin::Bus {
            uid,
            sender: caller.name.clone()
        }
    );
    let Payload::Ask(ask) = &request.payload else {
        panic!("{request:?}")
    };
    assert_eq!(ask.prompt, "Is it day?");
    assert_eq!(ask.system.as_deref(), Some("Be brief."));
    assert_eq!(ask.choices, Some(vec!["yes".to_owned(), "no".to_owned()]));
    assert_eq!(ask.matformer.as_deref(), Some("e2b"));
    assert_eq!(
        (ask.max_tokens, ask.temperature, ask.seed),
        (Some(7), Some(0.5), Some(u64::MAX))
    );
    assert_eq!(
        (
            ask.thinking,
            ask.stream,
            ask.conversation.as_deref(),
            ask.timeout_ms
        ),
        (Some(true), true, Some("c1"), Some(9000))
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
        let destination = private.then_some(caller.name.as_str());
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
    let Payload::Cancel(Cancel::Job(meant)) = service.request().payload else {
        panic!("no cancel")
    };
    assert_eq!(*meant, request.header.id);
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
    let config = DbusOptions {
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
    let config = DbusOptions {
        jobs_per_user: 3,
        attachment_timeout_ms: 20_000,
        ..bus.config()
    };
    let mut service = Service::start(&config);
    let (mut leaving, mut staying) = (bus.caller(&[]), bus.caller(&[]));
    leaving.ask("one").unwrap();
    staying.ask("two").unwrap();
    let request = service.request();
    service.request();
    service.no_request();
    drop(leaving);
    let Payload::Cancel(Cancel::Job(meant)) = service.request().payload else {
        panic!("no cancel")
    };
    assert_eq!(*meant, request.header.id);
    service.no_request();

    // One that vanishes while its pipe is read leaves no job. The pipe is the test's, so that it stays open.
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut leaving = bus.caller(&[]);
    leaving.send(&json!({
        "path": ROOT, "interface": MANAGER, "method": "Transcribe", "args": [["h", ["file", pipe]], {}],
    }));
    let mut audio = OpenOptions::new().write(true).open(&pipe).unwrap();
    // A call that comes to nothing tells whether the user has room for one.
    let mut room = || error(staying.manager("Ask", &json!(["hello", {"sed": ["t", 1]}]))).0;
    wait_for("the call to count", || {
        (room() == "QuotaExceeded").then_some(())
    });
    drop(leaving);
    wait_for("the call to be forgotten", || {
        (room() == "Invalid").then_some(())
    });
    audio.write_all(b"too late").unwrap();
    drop(audio);
    let open = || {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
    };
    wait_for("the pipe to be read", || open().is_err().then_some(()));
    let jobs = staying.manager("ListJobs", &json!([])).unwrap();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    service.no_request();
}
