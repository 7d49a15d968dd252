//! `gemmad watch` beside a running daemon.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::broker::wait_until;
use crate::process::Bench;

#[test]
fn a_pipe_gets_a_line_for_what_happens_and_the_broker_may_go() {
    let mut bench = Bench::new();
    let config = bench.write_config(None, "", "");
    let gemmad = bench.start();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["watch", "--config"])
        .arg(&config)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (into, output) = (Arc::clone(&lines), watch.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
    let wait_for = |words: &str, times: usize| {
        wait_until(&format!("{words:?} is told"), || {
            let lines = lines.lock().unwrap();
            lines.iter().filter(|line| line.contains(words)).count() >= times
        });
    };
    wait_for("connected to the broker", 1);
    wait_for("ready: ", 1);
    let question = json!({"prompt": "turn off the kitchen light\nReturn the command as JSON:"});
    bench.request("ask", "q", question);
    wait_for("request ask: ", 1);
    wait_for("response ask: {\"action\":\"turn_off\"", 1);
    bench.broker.kill();
    wait_for("trying again", 1);
    bench.broker.restart();
    wait_for("connected to the broker", 2);
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap();
    gemmad.stop();
}
