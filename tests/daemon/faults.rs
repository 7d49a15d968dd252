//! Too much, nonsense, and neighbours that die.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Gate, Observer, Seen, wait_until};
use crate::private_bus::{PrivateBus, wait_for};
use crate::process::Bench;

/// A resident set may grow by the questions that are worked on and by what waits for the broker, not by what was refused.
const MAX_GROWTH_KIB: u64 = 48 << 10;

#[test]
fn a_thousand_requests_at_once_are_each_answered_once() {
    const REQUESTS: usize = 1000;
    let bench = Bench::new();
    bench.write_config(None, "", "");
    let gemmad = bench.start();
    // What the first answer needs is not counted.
    bench.request("ask", "first", json!({"prompt": "Hello.", "max_tokens": 2}));
    let before = gemmad.memory_kib("VmRSS:");
    // One connection that sends all of them as fast as it can.
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &bench.broker.port.to_string()])
        .args(["-q", "1", "-t", "gemmad/pi/request/ask", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let padding = "x".repeat(200);
    let lines: String = (0..REQUESTS)
        .map(|n| json!({"prompt": "Hello.", "system": padding, "max_tokens": 2, "transaction": format!("t{n}")}).to_string() + "\n")
        .collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    bench.wait_for("response/ask", REQUESTS + 1);
    let after = gemmad.memory_kib("VmRSS:");
    assert!(
        after < before + MAX_GROWTH_KIB,
        "{before} KiB became {after} KiB"
    );
    // Nothing comes after the last.
    bench.request("stats", "last", json!({}));
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    let mut refused = 0;
    for seen in bench.on("response/ask") {
        let response = seen.json();
        *answers
            .entry(response["transaction"].as_str().unwrap().to_owned())
            .or_default() += 1;
        if response["status"] == "error" {
            assert_eq!(response["error"]["code"], "queue_full", "{response}");
            refused += 1;
        }
    }
    assert_eq!(answers.len(), REQUESTS + 1);
    assert!(answers.values().all(|&times| times == 1), "{answers:?}");
    // Those that found a place were answered.
    assert!((1..REQUESTS).contains(&refused), "{refused}");
    let stats = bench.request("stats", "figures", json!({}));
    let figures = &stats["data"]["details"];
    assert_eq!(figures["mqtt"]["dropped"], 0, "{stats}");
    assert!(
        figures["queues"]["refused_requests"].as_u64().unwrap() > 0,
        "{stats}"
    );
    gemmad.stop();
}

#[test]
fn nonsense_on_every_command_topic_is_refused_and_forgotten() {
    let bench = Bench::new();
    let pictures = bench.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let devices = format!(
        "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {pictures:?}\n"
    );
    bench.write_config(None, "", &devices);
    let mut gemmad = bench.start();
    // What it listens to, by what it told the broker.
    let topics = [
        "ask",
        "request/ask",
        "request/describe",
        "request/transcribe",
        "request/cancel",
        "request/reload",
        "request/stats",
        "matformer/set",
        "max_tokens/set",
        "mic/hall/mute/set",
        "mic/hall/listen",
        "camera/porch/enabled/set",
        "camera/porch/captions/set",
        "camera/porch/describe",
    ];
    let deep = format!("{{\"prompt\":{}", "[".repeat(20_000));
    let huge = format!("{{\"prompt\":\"{}\"}}", "x".repeat(66_000));
    let bits = [0xff, 0xfe, 0x00, 0x80];
    let sent: [&[u8]; 4] = [b"{\"prompt\": ", deep.as_bytes(), huge.as_bytes(), &bits];
    let responses = |bench: &Bench| {
        let all = bench.observer.all();
        let responses = all.iter().filter(|seen| seen.topic.contains("/response/"));
        responses.map(|seen| seen.json()).collect::<Vec<Value>>()
    };
    for topic in topics {
        let before = responses(&bench).len();
        for payload in sent {
            bench
                .broker
                .publish(&format!("gemmad/pi/{topic}"), payload, &[]);
        }
        // `listen` looks only at what begins like JSON: the rest presses the button all the same.
        wait_until(&format!("{topic} is answered"), || {
            responses(&bench).len() >= before + sent.len()
        });
        for response in &responses(&bench)[before..] {
            let allowed = topic == "mic/hall/listen" && response["status"] == "ok";
            let code = response["error"]["code"].as_str().unwrap_or_default();
            // Any text may be the name of a slice.
            let named = ["invalid", "too_large"].contains(&code)
                || (topic == "matformer/set" && code == "not_found");
            assert!(allowed || named, "{topic}: {response}");
        }
    }
    // More than its packets may have: the connection is what is lost, and comes back.
    let flood = vec![b'x'; 1 << 20];
    bench.broker.publish("gemmad/pi/ask", &flood, &[]);
    gemmad.wait_log("it is tried again");
    wait_until("the daemon is back", || {
        gemmad.log().matches("connected to mqtt://").count() == 2
    });
    // The subscription follows; what comes before it is not heard.
    wait_until("the states are told again", || {
        let online = bench.on("state");
        online
            .iter()
            .filter(|seen| seen.payload == b"online")
            .count()
            == 2
    });
    let answer = bench.request("ask", "alive", json!({"prompt": "Hello.", "max_tokens": 2}));
    assert_eq!(answer["status"], "ok", "{answer}");
    assert!(gemmad.is_running());
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_broker_that_dies_amid_answers_gets_all_of_them() {
    const QUESTIONS: usize = 6;
    let mut bench = Bench::new();
    // gemmad comes back when somebody looks again: an observer that is not there misses what is published.
    let gate = Gate::to(bench.broker.port);
    let config = bench.write_config(None, "", "[queue]\nmax_tokens = 3000");
    let at = |port: u16| format!("mqtt://127.0.0.1:{port}");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(&at(bench.broker.port), &at(gate.port)),
    )
    .unwrap();
    let gemmad = bench.start();
    for n in 0..QUESTIONS {
        bench.long_question(&format!("q{n}"), 100);
    }
    bench.response("ask", "q0");
    gate.set_open(false);
    bench.broker.kill();
    gemmad.wait_log("it is tried again");
    bench.broker.restart();
    let observer = Observer::start(&bench.broker);
    let before = std::mem::replace(&mut bench.observer, observer);
    gate.set_open(true);
    let all = || {
        let seen = [&before, &bench.observer].map(|observer| observer.on("gemmad/pi/response/ask"));
        let seen = seen.iter().flatten().map(Seen::json);
        seen.map(|response| response["transaction"].as_str().unwrap().to_owned())
            .collect::<std::collections::BTreeSet<String>>()
    };
    wait_until("every question is answered", || all().len() == QUESTIONS);
    bench.wait_for_payload("state", "online");
    gemmad.stop();
    bench.wait_for_payload("state", "offline");
}

#[test]
fn a_bus_that_goes_away_comes_back() {
    let bench = Bench::new();
    let mut bus = PrivateBus::open();
    let path = bus.address();
    bench.write_config(Some(&path), "", "");
    let gemmad = bench.start();
    bus.caller(&[]).manager("ListJobs", &json!([])).unwrap();
    bus.restart();
    gemmad.wait_log("the connection to the bus is lost");
    let mut caller = bus.caller(&[]);
    wait_for("the daemon on the new bus", || {
        caller.manager("ListJobs", &json!([])).ok()
    });
    let answer = bench.request("ask", "alive", json!({"prompt": "Hello.", "max_tokens": 2}));
    assert_eq!(answer["status"], "ok", "{answer}");
    gemmad.stop();
}

#[test]
fn another_process_of_the_same_name_is_an_error_of_health_and_of_the_log() {
    let bench = Bench::new();
    bench.write_config(None, "", "");
    let gemmad = bench.start();
    let own = bench.wait_for("instance", 1)[0].clone();
    assert!(own.is_retained());
    let mut other = own.json();
    other["instance"] = "01JD0000000000000000000000".into();
    other["host"] = "attic".into();
    bench.publish("instance", &other.to_string());
    let health = bench.wait_health("it is told", |health| {
        health["mqtt"]["namesake"].is_string() && health["last_error"].is_string()
    });
    let last = health["last_error"].as_str().unwrap();
    assert!(
        last.contains("attic") && last.contains("mqtt.node"),
        "{last}"
    );
    gemmad.wait_log("another gemmad, on host \"attic\"");
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn no_line_of_the_log_holds_a_secret_of_an_address() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let asked = String::from_utf8_lossy(&request[..length]).into_owned();
            let answer = if asked.contains("/first") {
                "HTTP/1.1 302 Found\r\nlocation: /second?token=hush3\r\nset-cookie: hush4\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            } else {
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let bench = Bench::new();
    let camera = format!(
        "[log]\nlevel = \"trace\"\n[[camera]]\nid = \"porch\"\ntype = \"http\"\n\
         url = \"http://cat:hush1@127.0.0.1:{port}/first?token=hush2\"\n"
    );
    bench.write_config(None, "", &camera);
    let gemmad = bench.start();
    gemmad.wait_log("status 404");
    let log = gemmad.stop();
    // The library told of what it did, too.
    assert!(log.contains("ureq") && log.contains("/second"), "{log}");
    for line in log.lines() {
        // As it is, or as HTTP sends it.
        assert!(!line.contains("hush") && !line.contains("Y2F0"), "{line}");
    }
}
