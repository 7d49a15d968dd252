//! What belongs to a daemon: its directory, its files, its switches, its end, and the terminal of whoever looks.

use std::fs::{Permissions, set_permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use gemmad::guard::harmless::is_harmful;
use serde_json::json;

use crate::broker::wait_until;
use crate::private_bus::is_root;
use crate::process::{Bench, Gemmad};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// A configuration's way through `gemmad run` to its end.
fn run(config: &Path, state: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["run", "--config"])
        .arg(config)
        .arg("--state-dir")
        .arg(state)
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap()
}

/// The kernel's mark of a character that a terminal or a reader obeys, but for the ends of lines.
fn harmful(text: &str) -> Option<char> {
    text.chars().find(|&c| is_harmful(c) && c != '\n')
}

#[test]
fn what_was_chosen_for_another_model_is_forgotten_and_questions_are_answered() {
    let bench = Bench::new();
    bench.write_config(
        None,
        "",
        "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n[[microphone]]\nid = \"attic\"\ndevice = \"not_there\"\n",
    );
    let state = bench.dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let file = state.join("state.json");
    let kept =
        json!({"muted": {"hall": true, "cellar": false}, "matformer": "e9b", "max_tokens": 0});
    std::fs::write(&file, kept.to_string()).unwrap();
    let gemmad = bench.start();
    let answer = bench.request("ask", "t", json!({"prompt": "Hello."}));
    assert_eq!(answer["status"], "ok", "{answer}");
    assert!(
        answer["data"]["timing"]["tokens"].as_u64().unwrap() > 0,
        "{answer}"
    );
    let info = bench.wait_for("info", 1)[0].json();
    assert_eq!(answer["data"]["matformer"], info["matformer_options"][0]);
    bench.wait_for_payload("mic/hall/state", "muted");
    bench.wait_for_payload("mic/attic/state", "offline");
    let log = gemmad.log();
    for words in ["\"e9b\"", "`max_tokens` is 0", "\"cellar\""] {
        assert!(log.contains(words), "{words}: {log}");
    }
    gemmad.stop();
    // They are forgotten for good: nothing is said again.
    let gemmad = bench.start();
    assert!(!gemmad.log().contains("e9b") && !gemmad.log().contains("max_tokens"));
    gemmad.stop();
    let left: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(left["muted"], json!({"hall": true}));
}

#[test]
fn a_pipe_in_the_place_of_the_switches_is_not_waited_for_and_opens_nothing() {
    let bench = Bench::new();
    bench.write_config(
        None,
        "",
        "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n",
    );
    let file = bench.dir.path().join("state/state.json");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let made = Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "muted");
    gemmad.wait_log("every microphone is muted");
    bench.publish("mic/hall/mute/set", "OFF");
    bench.wait_for_payload("mic/hall/state", "offline");
    gemmad.stop();
    assert!(file.is_file());
}

#[test]
fn a_second_daemon_on_the_same_directory_or_spool_does_not_start_and_says_who_has_it() {
    let bench = Bench::new();
    let spool = bench.dir.path().join("kept/outbox");
    let config = bench.write_config(None, "", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[dbus]", &format!("spool_file = {spool:?}\n[dbus]"));
    std::fs::write(&config, text).unwrap();
    let state = bench.dir.path().join("state");
    let gemmad = bench.start();
    let who = format!("process {}", gemmad.pid());
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let second = run(&config, &state);
    assert_eq!(second.status.code(), Some(69), "{}", told(&second));
    for words in [
        &who,
        "gemmad run --config",
        "--state-dir",
        state.to_str().unwrap(),
    ] {
        assert!(told(&second).contains(words), "{words}: {}", told(&second));
    }
    let third = run(&config, &bench.dir.path().join("another"));
    assert_eq!(third.status.code(), Some(78), "{}", told(&third));
    for words in [&who, "spool_file", spool.to_str().unwrap()] {
        assert!(told(&third).contains(words), "{words}: {}", told(&third));
    }
    // The first has noticed nothing, and leaves nothing behind that would be in the way, even when it is killed.
    let answer = bench.request("ask", "t", json!({"prompt": "Hello.", "max_tokens": 2}));
    assert_eq!(answer["status"], "ok", "{answer}");
    gemmad.kill();
    bench.start().stop();
}

/// Every file and directory below, with its mode.
fn modes(below: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(below.to_owned(), mode(below))];
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(modes(&path)),
            false => found.push((path.clone(), mode(&path))),
        }
    }
    found
}

#[test]
fn what_is_kept_is_for_the_daemons_user_only_whatever_the_umask() {
    for umask in ["022", "000"] {
        let bench = Bench::new();
        let config = bench.write_config(
            None,
            "",
            "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n",
        );
        let kept = bench.dir.path().join("kept");
        let (state, spool) = (kept.join("state"), kept.join("spool/outbox"));
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace("[dbus]", &format!("spool_file = {spool:?}\n[dbus]"));
        std::fs::write(&config, text).unwrap();
        let start = |umask: &str| {
            let command = format!("umask {umask}; exec \"$@\"");
            let before = bench.on("health").len();
            let gemmad = Command::new("sh")
                .args(["-c", &command, "sh", env!("CARGO_BIN_EXE_gemmad"), "run"])
                .arg("--config")
                .arg(&config)
                .arg("--state-dir")
                .arg(&state)
                .env_remove("NOTIFY_SOCKET")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            wait_until("the daemon is ready and hears commands", || {
                let state = bench.on("state");
                let is_online = state.last().is_some_and(|last| last.payload == b"online");
                bench.on("health").len() > before && is_online
            });
            gemmad
        };
        let stop = |gemmad: std::process::Child| {
            let pid = gemmad.id().to_string();
            Command::new("kill").arg(&pid).status().unwrap();
            let output = gemmad.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        let private = || {
            let all = modes(&kept);
            assert!(
                all.iter().any(|(path, _)| path.ends_with("state.json")),
                "{all:?}"
            );
            assert!(
                all.iter().any(|(path, _)| path.ends_with("outbox")),
                "{all:?}"
            );
            for (path, mode) in all {
                let wanted = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode, wanted, "{path:?} is {mode:o}, umask {umask}");
            }
        };
        let gemmad = start(umask);
        bench.publish("mic/hall/mute/set", "ON");
        bench.wait_for_payload("mic/hall/state", "muted");
        wait_until("the switch is kept", || state.join("state.json").exists());
        let log = stop(gemmad);
        assert!(!log.contains("open to other users"), "{log}");
        private();

        // As an earlier version, or a careless hand, left them.
        for (path, _) in modes(&kept) {
            let wide = if path.is_dir() { 0o777 } else { 0o666 };
            set_permissions(&path, Permissions::from_mode(wide)).unwrap();
        }
        set_permissions(&kept, Permissions::from_mode(0o700)).unwrap();
        let log = stop(start(umask));
        for path in [&state, &state.join("state.json"), &spool] {
            let line = format!("{} was open to other users", path.display());
            assert!(log.contains(&line), "{line}: {log}");
        }
        private();
    }
}

/// The daemon without a right to another thread: the limit of processes counts threads, but not those of root.
#[test]
fn without_a_spare_thread_it_comes_back_to_its_broker_and_ends_well() {
    let mut bench = Bench::new();
    let pictures = bench.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let devices = format!(
        "[[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {pictures:?}\n"
    );
    let config = bench.write_config(None, "", &devices);
    // A name is looked up on a thread.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1", "localhost")).unwrap();
    let state = bench.dir.path().join("state");
    // Where root tests, another user, who may read the test's files all the same.
    let of_user = |program: &str| match is_root() {
        true => {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid", "65534", "--clear-groups"]);
            setpriv.args([
                "--inh-caps",
                "+dac_override",
                "--ambient-caps",
                "+dac_override",
            ]);
            setpriv.arg(program);
            setpriv
        }
        false => Command::new(program),
    };
    let mut command = of_user(env!("CARGO_BIN_EXE_gemmad"));
    command.args(["run", "--config"]).arg(&config);
    command.arg("--state-dir").arg(&state);
    command.env_remove("NOTIFY_SOCKET");
    let gemmad = Gemmad::of(command);
    bench.wait_for("health", 1);
    gemmad.wait_log("connected to mqtt://localhost");
    let limited = of_user("prlimit")
        .args(["--pid", &gemmad.pid().to_string(), "--nproc=1:1"])
        .status();
    assert!(limited.unwrap().success());
    bench.broker.kill();
    gemmad.wait_log("it is tried again");
    bench.broker.restart();
    wait_until("it is connected again", || {
        gemmad
            .log()
            .matches("connected to mqtt://localhost")
            .count()
            == 2
    });
    let log = gemmad.stop();
    assert!(
        log.contains("stopped") && !log.contains("panicked"),
        "{log}"
    );
}

#[test]
fn what_devices_and_strangers_are_called_cannot_move_the_cursor_of_the_log() {
    let bench = Bench::new();
    bench.write_config(
        None,
        "",
        "[[microphone]]\nid = \"hall\"\ndevice = \"no\\u001b[31m\\u009b2J\\u202eereht\\u2028[2099 ERROR] x\"\n\
         [log]\nlevel = \"debug\"\n",
    );
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "offline");
    gemmad.wait_log("hall is offline");
    let log = gemmad.stop();
    let line = log
        .lines()
        .find(|line| line.contains("is offline"))
        .unwrap();
    assert!(
        line.contains("[31m") && line.contains("ereht [2099 ERROR] x"),
        "{line:?}"
    );
    assert_eq!(harmful(&log), None, "{log:?}");
}

/// Everything that the list names, and a little text.
fn everything() -> String {
    let all = (0..=0x1_0000).filter_map(char::from_u32);
    all.filter(|&c| is_harmful(c))
        .flat_map(|c| ['x', c])
        .collect()
}

#[test]
fn no_topic_reaches_the_terminal_of_who_watches() {
    let bench = Bench::new();
    let config = bench.write_config(None, "", "");
    let hostile = everything();
    let publish = |topic: &str, payload: &str| {
        bench.broker.publish(topic, payload.as_bytes(), &[]);
    };
    let tell_all = || {
        publish("gemmad/pi/health", &json!({
            "state": hostile, "degraded": [hostile, hostile], "memory_groups_mib": {&hostile: 1.0}, "queues": {"jobs": 1},
        }).to_string());
        for topic in ["mic/hall/event", "camera/porch/event"] {
            let event = json!({
                "event_type": hostile, "text": hostile, "caption": hostile, "reason": hostile,
                "command": {"name": hostile, "slots": {&hostile: hostile}}, "timing": {"latency_ms": 1.0},
            });
            publish(&format!("gemmad/pi/{topic}"), &event.to_string());
        }
        for topic in [
            "mic/hall/state",
            "camera/porch/state",
            "availability",
            "mic/ha\u{202e}ll/speech",
            "camera/po\u{2066}rch/motion",
            "request/a\u{200f}sk",
            "request/ask",
            "log",
            "info",
            "state",
            "answer",
        ] {
            publish(&format!("gemmad/pi/{topic}"), &hostile);
        }
        publish(
            "gemmad/pi/response/ask",
            &json!({"data": {"text": hostile}}).to_string(),
        );
        publish(
            "gemmad/pi/response/ask",
            &json!({"data": {&hostile: hostile}}).to_string(),
        );
        publish(
            "gemmad/pi/response/ask",
            &json!({"error": {"message": hostile}}).to_string(),
        );
        publish(
            "gemmad/pi/log",
            &json!({"message": hostile, "level": "warn"}).to_string(),
        );
        publish("gemmad/pi/request/last", "that was all");
    };
    let mut pipe = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    pipe.args(["watch", "--config"]).arg(&config);
    let line = format!(
        "{} watch --config {}",
        env!("CARGO_BIN_EXE_gemmad"),
        config.display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    for (command, is_terminal) in [(&mut pipe, false), (&mut terminal, true)] {
        let mut watch = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (into, mut output) = (Arc::clone(&shown), watch.stdout.take().unwrap());
        let has = |words: &str| String::from_utf8_lossy(&shown.lock().unwrap()).contains(words);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        wait_until("it watches", || has("connected to"));
        tell_all();
        wait_until("all is shown", || has("that was all"));
        watch.kill().unwrap();
        watch.wait().unwrap();
        reader.join().unwrap();
        let shown = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
        assert!(
            shown.matches("x\u{fffd}x\u{fffd}").count() >= 10,
            "{shown:?}"
        );
        // The line at the bottom of a terminal is our own doing; of the list it needs these.
        let ours = |c: char| is_terminal && matches!(c, '\u{1b}' | '\r');
        let foreign = shown
            .chars()
            .find(|&c| is_harmful(c) && c != '\n' && !ours(c));
        assert_eq!(foreign, None, "{shown:?}");
        if is_terminal {
            assert!(!shown.contains("x\u{1b}x"), "{shown:?}");
        }
    }
}
