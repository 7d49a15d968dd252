//! A real broker, a client that is not ours to watch it with, and a gate between gemmad and the broker.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing here takes as long, however loaded the machine is; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Makes mosquitto's file of users, with the one user `gemmad`.
pub(crate) fn set_password(users: &Path, password: &str) {
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(users)
        .args(["gemmad", password])
        .status()
        .unwrap();
    assert!(made.success());
}

/// Whether brokers that need no settings of their own are nats-server instead of mosquitto.
pub(crate) fn is_nats() -> bool {
    std::env::var("GEMMAD_TEST_BROKER").is_ok_and(|broker| broker == "nats")
}

/// mosquitto on a port of its own, without persistence; or nats-server.
pub(crate) struct Broker {
    child: Child,
    pub(crate) port: u16,
    config: PathBuf,
    program: &'static str,
}

impl Broker {
    pub(crate) fn start(dir: &Path) -> Broker {
        match is_nats() {
            true => Broker::start_nats(dir, free_port()),
            false => Broker::start_with(dir, free_port(), "allow_anonymous true\n"),
        }
    }

    /// nats-server, which speaks MQTT 3.1.1, too.
    pub(crate) fn start_nats(dir: &Path, port: u16) -> Broker {
        let (config, store) = (dir.join("nats-mqtt.conf"), nats_store(dir));
        let text = format!(
            "server_name: broker\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: {store:?} }}\n\
             mqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
            free_port()
        );
        std::fs::write(&config, text).unwrap();
        Broker::of("nats-server", config, port)
    }

    fn of(program: &'static str, config: PathBuf, port: u16) -> Broker {
        let child = Broker::spawn(program, &config, port);
        Broker {
            child,
            port,
            config,
            program,
        }
    }

    pub(crate) fn start_with(dir: &Path, port: u16, settings: &str) -> Broker {
        let config = dir.join("mosquitto.conf");
        // Run as root, mosquitto would become another user, who cannot read the test's files.
        let user = "user root\n";
        let text = format!(
            "listener {port} 127.0.0.1\npersistence false\nmax_queued_messages 10000\n{user}{settings}"
        );
        std::fs::write(&config, text).unwrap();
        Broker::of("mosquitto", config, port)
    }

    fn spawn(program: &str, config: &Path, port: u16) -> Child {
        // Debian has it where only root looks.
        let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
        // What its OpenSSL is to do, where the test says.
        let openssl = config.with_file_name("openssl.cnf");
        let child = Command::new(program)
            .env("PATH", path)
            .envs(openssl.exists().then_some(("OPENSSL_CONF", &openssl)))
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("brokers are needed (apt-get install mosquitto mosquitto-clients nats-server)");
        wait_until("the broker listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        child
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: its sockets take bytes, and nobody reads them.
    pub(crate) fn freeze(&self) {
        let stopped = Command::new("kill")
            .args(["-STOP", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(stopped.success());
    }

    /// Again, remembering nothing.
    pub(crate) fn restart(&mut self) {
        std::fs::remove_dir_all(nats_store(self.config.parent().unwrap())).ok();
        self.child = Broker::spawn(self.program, &self.config, self.port);
    }

    fn is_nats(&self) -> bool {
        self.program == "nats-server"
    }

    pub(crate) fn publish(&self, topic: &str, payload: &[u8], more: &[&str]) {
        let mut child = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-q", "1", "-t", topic])
            .arg(if payload.is_empty() { "-n" } else { "-s" })
            .args(more)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(payload).unwrap();
        assert!(child.wait().unwrap().success(), "{topic}");
    }
}

/// What nats-server keeps.
fn nats_store(dir: &Path) -> PathBuf {
    dir.join("nats-mqtt")
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Takes connections, answers the first packet of each with these bytes, and hangs up. Gives its port.
pub(crate) fn fake_broker(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut packet = [0; 2048];
            if std::io::Read::read(&mut client, &mut packet).is_ok_and(|bytes| bytes > 0) {
                client.write_all(answer).ok();
            }
        }
    });
    port
}

/// A message as mosquitto_sub saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    /// As the publisher set it; nats-server tells nobody.
    pub(crate) retain: bool,
    pub(crate) qos: u8,
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    /// Whether it was to be retained, as far as the broker tells.
    pub(crate) fn is_retained(&self) -> bool {
        self.retain || is_nats()
    }
}

/// mosquitto_sub on every topic.
pub(crate) struct Observer {
    child: Child,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Observer {
    pub(crate) fn start(broker: &Broker) -> Observer {
        Observer::start_at(broker, &[])
    }

    /// With more on its command line.
    pub(crate) fn start_at(broker: &Broker, more: &[&str]) -> Observer {
        if !broker.is_nats() {
            return Observer::start_with(broker.port, more);
        }
        // It speaks 3.1.1, which does not tell what is retained, and all its topics have its own errands among them.
        let topics = ["gemmad", "homeassistant", "frigate", "other", "marker"];
        let topics = topics.map(|topic| format!("{topic}/#"));
        let topics = topics.iter().flat_map(|topic| ["-t", topic]);
        let topics: Vec<&str> = topics.chain(more.iter().copied()).collect();
        Observer::start_as(broker.port, &topics)
    }

    /// The same at a broker of settings of its own.
    pub(crate) fn start_with(port: u16, more: &[&str]) -> Observer {
        let all = ["-V", "5", "--retain-as-published", "-t", "#"];
        Observer::start_as(port, &[&all, more].concat())
    }

    /// Returns when the subscription stands.
    fn start_as(port: u16, more: &[&str]) -> Observer {
        // On a pipe it would keep the news of its subscription to itself until the first message.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-q", "1", "-d"])
            .args(["-F", "MSG %t %r %q %x"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stands = Arc::new(AtomicBool::new(false));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (into, ready) = (Arc::clone(&seen), Arc::clone(&stands));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.starts_with("Subscribed") {
                    ready.store(true, Ordering::SeqCst);
                }
                let Some(message) = line.strip_prefix("MSG ") else {
                    continue;
                };
                let fields: Vec<&str> = message.split(' ').collect();
                let hex = fields[3].as_bytes().chunks(2);
                let byte = |pair: &[u8]| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                };
                into.lock().unwrap().push(Seen {
                    topic: fields[0].to_owned(),
                    retain: fields[1] == "1",
                    qos: fields[2].parse().unwrap(),
                    payload: hex.map(byte).collect(),
                });
            }
        });
        wait_until("mosquitto_sub is subscribed", || {
            stands.load(Ordering::SeqCst)
        });
        Observer { child, seen }
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn on(&self, topic: &str) -> Vec<Seen> {
        let mut all = self.all();
        all.retain(|seen| seen.topic == topic);
        all
    }

    pub(crate) fn wait_for(&self, topic: &str, n: usize) -> Vec<Seen> {
        wait_until(topic, || self.on(topic).len() >= n);
        self.on(topic)
    }

    pub(crate) fn wait_for_payload(&self, topic: &str, payload: &str) {
        let is = |seen: &Seen| seen.payload == payload.as_bytes();
        wait_until(&format!("{topic}: {payload}"), || {
            self.on(topic).iter().any(is)
        });
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the broker keeps, by a client that comes later: a marker of its own tells that all of it has come.
pub(crate) fn retained(broker: &Broker) -> Vec<Seen> {
    let observer = Observer::start(broker);
    broker.publish("marker", b"x", &[]);
    observer.wait_for("marker", 1);
    let mut all = observer.all();
    all.retain(|seen| seen.topic != "marker");
    all
}

/// A way to the broker that can be shut.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
}

impl Gate {
    pub(crate) fn to(port: u16) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate {
            port: listener.local_addr().unwrap().port(),
            open: Arc::new(AtomicBool::new(true)),
        };
        let open = Arc::clone(&gate.open);
        std::thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(there) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for (mut from, mut to) in [
                    (here.try_clone().unwrap(), there.try_clone().unwrap()),
                    (there, here),
                ] {
                    std::thread::spawn(move || {
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(std::net::Shutdown::Both).ok();
                        from.shutdown(std::net::Shutdown::Both).ok();
                    });
                }
            }
        });
        gate
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}
