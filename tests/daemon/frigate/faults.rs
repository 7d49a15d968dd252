//! A Frigate that refuses, lacks or mangles, or comes and goes at the wrong moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{captioned, message, publish, start, write_config, written};
use crate::broker::wait_until;
use crate::nvr::{Answer, Nvr, open_to_all};
use crate::process::Bench;

#[test]
fn an_api_that_does_not_do_what_it_should_is_said() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    let gemmad = start(&bench, "", nvr.port, "timeout_ms = 2000");
    nvr.start(|asked| {
        let answers: [(&str, Option<Answer>); 7] = [
            ("login", Some((401, "", Vec::new()))),
            ("forbidden", Some((403, "", Vec::new()))),
            (
                "html",
                Some((200, "content-type: text/html\r\n", b"<html>".to_vec())),
            ),
            (
                "large",
                Some((200, "content-type: image/jpeg\r\n", vec![0xff; 20 << 20])),
            ),
            ("moved", Some((302, "location: /login\r\n", Vec::new()))),
            ("teapot", Some((418, "", b"no\x1b[31m tea".to_vec()))),
            (
                "damaged",
                Some((
                    200,
                    "content-type: image/jpeg\r\n",
                    b"\xff\xd8\xff".to_vec(),
                )),
            ),
        ];
        let of = |name: &str| asked.line.contains(name);
        answers
            .into_iter()
            .find_map(|(name, answer)| of(name).then_some(answer))
            .flatten()
    });
    for (id, words) in [
        ("login", "wants a login (HTTP status 401)"),
        (
            "forbidden",
            "refuses the picture (HTTP status 403): may this user's role in Frigate see that camera?",
        ),
        ("html", "answers with text/html of 6 bytes"),
        ("large", "answers with more than the 16777216 bytes"),
        ("moved", "redirects (HTTP status 302)"),
        ("teapot", "answers with HTTP status 418: no"),
        (
            "damaged",
            "no picture of damaged: Frigate gives one that cannot be used: ",
        ),
    ] {
        publish(&bench, &message("end", id, &[]));
        gemmad.wait_log(words);
    }
    assert!(!gemmad.log().contains('\u{1b}'));
    // One that never answers holds nobody up.
    publish(&bench, &message("end", "never", &[]));
    let response = bench.request("stats", "a", json!({}));
    assert_eq!(response["status"], "ok", "{response}");
    gemmad.stop();
}

/// A user who may see and not write; an event that Frigate has no more: neither keeps others from being written.
#[test]
fn a_description_that_nobody_takes_holds_up_no_other() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    nvr.start(|asked| match (asked.is_picture(), asked.id()) {
        (false, "1.5-gone") => Some((404, "", b"{\"success\": false}".to_vec())),
        (false, "2.5-busy") => Some((500, "", Vec::new())),
        (false, "3.5-denied") => Some((403, "", Vec::new())),
        _ => open_to_all(asked),
    });
    let gemmad = start(&bench, "", nvr.port, "");
    for (number, id) in (1..).zip(["1.5-gone", "2.5-busy", "3.5-denied", "4.5-here"]) {
        publish(&bench, &message("end", id, &[]));
        wait_until("it has a caption", || captioned(&bench).len() == number);
    }
    gemmad.wait_log("descriptions may be written by users whose role in Frigate is admin");
    wait_until("the last is written", || written(&nvr) == ["4.5-here"]);
    // What is gone is given up after seconds, and said to be.
    gemmad.wait_log(
        "the description of 1.5-gone could not be written back: Frigate does not have that event any more (HTTP status 404)",
    );
    assert_eq!(nvr.asked("POST /api/events/1.5-gone").len(), 4);
    assert!(
        !gemmad.log().contains("2.5-busy could not"),
        "it may yet be"
    );
    gemmad.stop();
}

#[test]
fn what_waits_to_be_written_is_written_at_the_end() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    let is_open = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&is_open);
    nvr.start(move |asked| {
        if !asked.is_picture() {
            wait_until("it may answer", || may.load(Ordering::SeqCst));
        }
        open_to_all(asked)
    });
    let gemmad = start(&bench, "", nvr.port, "cameras = [\"Front\", \"yard\"]");
    publish(&bench, &message("end", "1.5-aaa", &[]));
    wait_until("it has a caption", || captioned(&bench).len() == 1);
    is_open.store(true, Ordering::SeqCst);
    wait_until("it is written", || written(&nvr).len() == 1);
    is_open.store(false, Ordering::SeqCst);
    for (id, camera) in [("2.5-bbb", "Front"), ("3.5-ccc", "yard")] {
        publish(&bench, &message("end", id, &[("camera", json!(camera))]));
    }
    // The pictures of both come before the first description is held up, or the second is not fetched.
    wait_until("both have a caption", || captioned(&bench).len() == 3);
    gemmad.signal("TERM");
    bench.wait_for_payload("state", "offline");
    is_open.store(true, Ordering::SeqCst);
    let mut gemmad = gemmad;
    assert!(gemmad.wait().success());
    assert_eq!(written(&nvr), ["1.5-aaa", "2.5-bbb", "3.5-ccc"]);
}

/// A door that is opened anew knows what it described, and what it was fetching.
#[test]
fn a_reload_describes_nothing_twice_and_loses_nothing() {
    let mut bench = Bench::new();
    let nvr = Nvr::new();
    let is_open = Arc::new(AtomicBool::new(false));
    let may = Arc::clone(&is_open);
    nvr.start(move |asked| match asked.id() {
        "2.5-late" if !may.load(Ordering::SeqCst) => Some((404, "", Vec::new())),
        _ => open_to_all(asked),
    });
    let more = "cameras = [\"Front\", \"yard\"]\non = \"first_snapshot\"\ncooldown_s = 3600";
    let gemmad = start(&bench, "", nvr.port, more);
    publish(&bench, &message("update", "1.5-aaa", &[]));
    wait_until("it is described", || written(&nvr).len() == 1);
    let late = message("update", "2.5-late", &[("camera", json!("yard"))]);
    publish(&bench, &late);
    wait_until("its picture is asked for", || {
        !nvr.asked("GET /api/events/2.5-late").is_empty()
    });
    bench.mqtt = "keep_alive_s = 31";
    write_config(&bench, "", nvr.port, more);
    gemmad.signal("HUP");
    wait_until("it reads with the new keys", || {
        gemmad.log().matches("reading frigate/events").count() == 2
    });
    // They go on; another comes within the time.
    publish(&bench, &message("update", "1.5-aaa", &[]));
    publish(&bench, &message("update", "3.5-ccc", &[]));
    is_open.store(true, Ordering::SeqCst);
    wait_until("the late one is described", || written(&nvr).len() == 2);
    publish(&bench, &late);
    let response = bench.request("stats", "a", json!({}));
    assert_eq!(response["status"], "ok", "{response}");
    assert_eq!(written(&nvr), ["1.5-aaa", "2.5-late"]);
    gemmad.stop();
}

/// Within the time after an event of which nothing came, the next one is described.
#[test]
fn the_time_between_two_descriptions_counts_from_one_that_is_made() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    nvr.start(|asked| match asked.id() {
        "1.5-lost" => Some((418, "", Vec::new())),
        _ => open_to_all(asked),
    });
    let gemmad = start(&bench, "", nvr.port, "cooldown_s = 3600");
    publish(&bench, &message("end", "1.5-lost", &[]));
    gemmad.wait_log("no picture of 1.5-lost");
    bench.publish("camera/front/captions/set", "OFF");
    bench.wait_for_payload("camera/front/captions", "OFF");
    publish(&bench, &message("end", "2.5-off", &[]));
    gemmad.wait_log("2.5-off is not described: front is disabled, or its captions are off");
    bench.publish("camera/front/captions/set", "ON");
    bench.wait_for_payload("camera/front/captions", "ON");
    publish(&bench, &message("end", "3.5-on", &[]));
    wait_until("it is described", || written(&nvr) == ["3.5-on"]);
    publish(&bench, &message("end", "4.5-soon", &[]));
    let response = bench.request("stats", "a", json!({}));
    assert_eq!(response["status"], "ok", "{response}");
    assert_eq!(captioned(&bench), ["3.5-on"]);
    gemmad.stop();
}

#[test]
fn strangers_on_the_topic_do_not_fill_the_log_and_a_pipe_for_a_token_is_not_waited_for() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    nvr.start(open_to_all);
    let pipe = bench.dir.path().join("token");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let gemmad = start(
        &bench,
        "",
        nvr.port,
        &format!("bearer_token_file = {pipe:?}"),
    );
    for number in 0..12 {
        publish(&bench, &format!("not Frigate {number}"));
    }
    publish(&bench, &message("end", "1.5-aaa", &[]));
    gemmad.wait_log("no picture of 1.5-aaa: Frigate cannot be asked: frigate.bearer_token_file: ");
    gemmad.wait_log("token: it is no file");
    let told = gemmad
        .log()
        .matches("a message of frigate/events is none")
        .count();
    assert_eq!(told, 2, "the first and the tenth");
    gemmad.stop();
}

#[test]
fn one_refusal_of_the_newest_picture_does_not_make_a_camera_offline() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    let fails = Arc::new(AtomicBool::new(true));
    let next = Arc::clone(&fails);
    nvr.start(move |asked| match next.swap(false, Ordering::SeqCst) {
        true => Some((500, "", Vec::new())),
        false => open_to_all(asked),
    });
    let gemmad = start(&bench, "", nvr.port, "");
    bench.wait_for_payload("camera/front/state", "online");
    assert!(!gemmad.log().contains("status 500"), "{}", gemmad.log());
    // Twice in a row it is.
    nvr.stop();
    nvr.start(|_| Some((404, "", Vec::new())));
    bench.publish(
        "request/describe",
        "{\"camera\": \"front\", \"transaction\": \"a\"}",
    );
    bench.wait_for_payload("camera/front/state", "offline");
    gemmad.wait_log("does not have that camera (HTTP status 404)");
    gemmad.stop();
}
