//! Switches: what changes nothing writes nothing, and a flood of them is written a few times.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::process::Bench;

fn bench(more: &str) -> Bench {
    let bench = Bench::new();
    let pictures = bench.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let devices = format!(
        "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {pictures:?}\n{more}"
    );
    bench.write_config(None, "", &devices);
    bench
}

#[test]
fn a_switch_that_stands_as_it_is_wanted_writes_nothing_and_says_nothing() {
    let bench = bench("");
    let gemmad = bench.start();
    let last = |topic: &str| bench.wait_for(topic, 1).last().unwrap().text().to_owned();
    let (slice, tokens) = (last("matformer"), last("max_tokens"));
    let file = bench.dir.path().join("state/state.json");
    let switches = [
        ("mic/hall/mute", "OFF"),
        ("camera/porch/enabled", "ON"),
        ("camera/porch/captions", "ON"),
        ("matformer", slice.as_str()),
        ("max_tokens", tokens.as_str()),
    ];
    let set_all = |values: &[(&str, &str)]| {
        for (topic, value) in values {
            bench.publish(&format!("{topic}/set"), value);
        }
    };
    // The answer to what is asked last tells that all before it is done.
    let said = |transaction: &str| {
        let response = bench.request("stats", transaction, json!({}));
        assert_eq!(response["status"], "ok", "{response}");
        let all = bench.observer.all();
        let of_switches = all.iter().filter(|seen| {
            switches
                .iter()
                .any(|(topic, _)| seen.topic == format!("gemmad/pi/{topic}"))
                || seen.topic == "gemmad/pi/response/set"
        });
        of_switches.count()
    };
    let before = said("a");
    set_all(&switches);
    assert_eq!(said("b"), before);
    assert!(!file.exists());

    let others = [
        ("mic/hall/mute", "ON"),
        ("camera/porch/enabled", "OFF"),
        ("camera/porch/captions", "OFF"),
        ("max_tokens", "17"),
    ];
    set_all(&others);
    for (topic, value) in others {
        bench.wait_for_payload(topic, value);
    }
    // Each write is another file.
    let inode = || std::fs::metadata(&file).unwrap().ino();
    let before = (said("c"), inode());
    set_all(&others);
    assert_eq!((said("d"), inode()), before);
    gemmad.stop();
}

#[test]
fn a_flood_of_switches_is_written_a_few_times_and_what_is_told_is_on_the_disk() {
    const FLOOD: usize = 2000;
    let bench = bench("[log]\nlevel = \"debug\"\n");
    let gemmad = bench.start();
    // All of them wait in the socket when the daemon goes on.
    gemmad.signal("STOP");
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &bench.broker.port.to_string()])
        .args(["-q", "1", "-l", "-t", "gemmad/pi/max_tokens/set"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 0..FLOOD {
        writeln!(input, "{}", 1 + n % 100).unwrap();
    }
    writeln!(input, "101").unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    gemmad.signal("CONT");
    bench.wait_for_payload("max_tokens", "101");
    let file = bench.dir.path().join("state/state.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("\"max_tokens\": 101"), "{kept}");
    let writes = gemmad.log().matches("state.json is written").count();
    assert!((1..=FLOOD / 10).contains(&writes), "{writes} writes");
    gemmad.kill();
}

#[test]
fn what_was_answered_outlives_a_restart_where_a_file_is_named_until_it_is_forgotten() {
    let bench = Bench::new();
    let file = bench.dir.path().join("state/earlier-answers.json");
    bench.write_config(
        None,
        "",
        &format!("[guess]\nearlier_answers_file = {file:?}\n"),
    );
    let gemmad = bench.start();
    let asked = bench.request(
        "ask",
        "a",
        json!({ "prompt": "Turn on the kitchen light. Return the command as JSON:" }),
    );
    assert_eq!(asked["status"], "ok", "{asked}");
    gemmad.stop();
    let known = std::fs::read_to_string(&file).unwrap();
    assert!(known.contains("\"ids\":["), "{known}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let gemmad = bench.start();
    assert!(file.exists());
    let forgotten = bench.request("forget", "b", json!({}));
    assert_eq!(forgotten["status"], "ok", "{forgotten}");
    assert!(!file.exists());
    gemmad.stop();
    assert!(!file.exists());
}
