//! The daemon as a child of the test, and what it is run with.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Observer, PATIENCE, Seen, wait_until};
use crate::payloads::{schema_of, validators};

pub(crate) fn heldout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/demo/heldout")
        .join(path)
}

/// A column of a held-out file's line in its expected.tsv.
pub(crate) fn expected(kind: &str, file: &str, column: &str) -> String {
    let table = std::fs::read_to_string(heldout(kind).join("expected.tsv")).unwrap();
    let mut lines = table.lines().map(|line| line.split('\t'));
    let at = lines.next().unwrap().position(|name| name == column);
    let mut line = lines
        .find(|line| line.clone().next() == Some(file))
        .unwrap();
    line.nth(at.unwrap()).unwrap().to_owned()
}

/// A broker, somebody who watches it, and a directory for everything else.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) broker: Broker,
    pub(crate) observer: Observer,
    /// More keys of `[mqtt]`.
    pub(crate) mqtt: &'static str,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path());
        let observer = Observer::start(&broker);
        Bench {
            dir,
            broker,
            observer,
            mqtt: "",
        }
    }

    /// gemmad.toml with the demo model and the broker; `bus` is a bus address, or nothing.
    pub(crate) fn write_config(&self, bus: Option<&str>, sections: &str, more: &str) -> PathBuf {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let bus = match bus {
            Some(address) => format!("bus = {address:?}"),
            None => "enabled = false".to_owned(),
        };
        let text = format!(
            "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n{}\n[dbus]\n{bus}\n\
             [degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n[threads]\ncount = 1\n[model]\npath = {model:?}\n{sections}\n{more}",
            self.broker.port, self.mqtt
        );
        let path = self.dir.path().join("gemmad.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the daemon, and waits until it has told how it is and hears commands.
    pub(crate) fn start(&self) -> Gemmad {
        self.start_with(&[])
    }

    /// The same, with more on its command line.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Gemmad {
        let told = || {
            let online = self.on("state").into_iter();
            let online = online.filter(|seen| seen.payload == b"online").count();
            (self.on("health").len(), online)
        };
        let before = told();
        let gemmad = Gemmad::spawn_with(self.dir.path(), arguments, &[]);
        wait_until("the daemon is ready", || {
            let now = told();
            now.0 > before.0 && now.1 > before.1
        });
        gemmad
    }

    pub(crate) fn publish(&self, topic: &str, payload: &str) {
        let topic = format!("gemmad/pi/{topic}");
        self.broker.publish(&topic, payload.as_bytes(), &[]);
    }

    /// The payloads on a topic of the node so far.
    pub(crate) fn on(&self, topic: &str) -> Vec<Seen> {
        self.observer.on(&format!("gemmad/pi/{topic}"))
    }

    pub(crate) fn wait_for(&self, topic: &str, n: usize) -> Vec<Seen> {
        self.observer.wait_for(&format!("gemmad/pi/{topic}"), n)
    }

    pub(crate) fn wait_for_payload(&self, topic: &str, payload: &str) {
        let topic = format!("gemmad/pi/{topic}");
        self.observer.wait_for_payload(&topic, payload);
    }

    /// Responses of a kind with this transaction.
    pub(crate) fn responses(&self, kind: &str, transaction: &str) -> Vec<Value> {
        let all = self.on(&format!("response/{kind}"));
        let all = all.iter().map(Seen::json);
        all.filter(|response| response["transaction"] == transaction)
            .collect()
    }

    pub(crate) fn response(&self, kind: &str, transaction: &str) -> Value {
        wait_until(&format!("a response to {transaction}"), || {
            !self.responses(kind, transaction).is_empty()
        });
        self.responses(kind, transaction).remove(0)
    }

    /// Asks by MQTT, and waits for the response.
    pub(crate) fn request(&self, kind: &str, transaction: &str, mut request: Value) -> Value {
        request["transaction"] = transaction.into();
        self.publish(&format!("request/{kind}"), &request.to_string());
        self.response(kind, transaction)
    }

    /// A question that takes the demo model a long time: it has to say this many words.
    pub(crate) fn long_question(&self, transaction: &str, words: usize) {
        let schema = json!({
            "type": "array", "minItems": words, "maxItems": words, "items": {"enum": ["light", "lamp"]},
        });
        let ask = json!({"prompt": "?", "schema": schema, "max_tokens": 3000, "stream": true, "transaction": transaction});
        self.publish("request/ask", &ask.to_string());
    }

    /// Waits until `health` says so of the last time.
    pub(crate) fn wait_health(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            self.on("health")
                .last()
                .is_some_and(|last| holds(&last.json()))
        });
        let fits = |seen: &Seen| holds(&seen.json());
        self.on("health").iter().rfind(|s| fits(s)).unwrap().json()
    }

    /// Everything that was published so far fits its schema.
    pub(crate) fn assert_schemas(&self) {
        let validators = validators();
        for seen in self.observer.all() {
            let Some(name) = schema_of(&seen.topic) else {
                continue;
            };
            if seen.payload.is_empty() {
                continue; // taken back
            }
            let errors: Vec<String> = validators[name]
                .iter_errors(&seen.json())
                .map(|error| error.to_string())
                .collect();
            assert!(
                errors.is_empty(),
                "{}: {errors:?}\n{}",
                seen.topic,
                seen.text()
            );
        }
    }
}

/// A `gemmad run`.
pub(crate) struct Gemmad {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Gemmad {
    /// With gemmad.toml, asound.conf and the state in `place`.
    pub(crate) fn spawn(place: &Path, environment: &[(&str, &str)]) -> Gemmad {
        Gemmad::spawn_with(place, &[], environment)
    }

    /// The same, with more on its command line.
    pub(crate) fn spawn_with(
        place: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Gemmad {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        command
            .args(["run", "--config"])
            .arg(place.join("gemmad.toml"))
            .arg("--state-dir")
            .arg(place.join("state"))
            .args(arguments)
            .env("ALSA_CONFIG_PATH", place.join("asound.conf"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .env_remove("STATE_DIRECTORY")
            .envs(environment.iter().copied());
        Gemmad::of(command)
    }

    /// A command that is `gemmad run`, or becomes it.
    pub(crate) fn of(mut command: Command) -> Gemmad {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let into = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut text = into.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        Gemmad { child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn wait_log(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(
                Instant::now() < deadline,
                "{words:?} is not in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
        self.log()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A line of /proc/PID/status, KiB.
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let mut words = line.unwrap().split_whitespace();
        words.next().unwrap().parse().unwrap()
    }

    /// Bytes of the model's weights that are mapped, by the kernel.
    pub(crate) fn mapped_weights(&self) -> u64 {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let weights = maps.lines().filter(|line| line.ends_with(".safetensors"));
        let length = |line: &str| {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            number(end) - number(start)
        };
        weights.map(length).sum()
    }
}

impl Drop for Gemmad {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// A service manager: what was told to it.
pub(crate) struct Notified {
    socket: UnixDatagram,
    pub(crate) path: PathBuf,
    told: Mutex<Vec<String>>,
}

impl Notified {
    pub(crate) fn new(dir: &Path) -> Notified {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Notified {
            socket,
            path,
            told: Mutex::default(),
        }
    }

    /// Messages so far, one a datagram.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut told = self.told.lock().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            told.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        told.clone()
    }

    /// How many messages have a line like this.
    pub(crate) fn count(&self, line: &str) -> usize {
        let has = |message: &&String| message.lines().any(|found| found.starts_with(line));
        self.all().iter().filter(has).count()
    }

    pub(crate) fn wait_for(&self, line: &str, n: usize) {
        wait_until(&format!("{line} at the service manager"), || {
            self.count(line) >= n
        });
    }
}
