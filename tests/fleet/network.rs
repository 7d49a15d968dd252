//! Three hosts of one network that delays every packet by 5 ms, loses 1 % of them, and is cut for 20 s at a time (`network.py`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Observer, PATIENCE, wait_until};
use crate::crew::{Hand, process_of, runtime, source};
use crate::heldout::demo;
use crate::load::{EVERY, Load, TAKES_MS, percentile, run, waits};
use crate::nats::{Nats, in_space};

/// What a process in the namespace of the sources is told: the directory of its files.
const PLACE: &str = "GEMMAD_TEST_PLACE";

const SERVER: &str = "10.77.0.1";
const PORT: u16 = 4222;

/// The network, for as long as it is held.
struct Network {
    hub: Child,
    dir: tempfile::TempDir,
}

impl Network {
    fn start(delay_ms: &str, loss_percent: &str) -> Network {
        let dir = tempfile::tempdir().unwrap();
        let commands = commands(dir.path());
        let made = Command::new("mkfifo").arg(&commands).status().unwrap();
        assert!(made.success());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/network.py");
        let mut hub = Command::new("python3")
            .arg(script)
            .arg(commands)
            .args([delay_ms, loss_percent, "server", "far", "shop"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(hub.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "namespaces need root");
        Network { hub, dir }
    }

    /// Runs a test of this binary on the host that has the sources.
    fn run(&self, test: &str) {
        let place = self.dir.path().to_str().unwrap();
        let process = process_of(test, PLACE, place);
        let status = in_space("gemmad-shop", process.get_program().to_str().unwrap())
            .args(process.get_args())
            .env(PLACE, place)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It undoes all.
        drop(self.hub.stdin.take());
        self.hub.wait().ok();
    }
}

fn commands(place: &Path) -> PathBuf {
    place.join("commands")
}

fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// nats-server on its host.
fn server(place: &Path) -> Nats {
    let text = format!(
        "listen: \"{SERVER}:{PORT}\"\njetstream {{ store_dir: {:?} }}\n",
        place.join("nats")
    );
    let config = place.join("nats.conf");
    Nats::start_at(SERVER, Some("gemmad-server"), &config, PORT, &text)
}

#[test]
#[ignore = "it needs root, and takes minutes: cargo nextest run --test fleet --run-ignored all three_hosts --no-capture"]
fn three_hosts_lose_no_job_while_the_network_is_cut() {
    Network::start("5", "1").run("network::load_process");
}

#[test]
#[ignore = "it is a process on the host of the sources, which another test starts"]
fn load_process() {
    let Some(place) = place() else {
        return;
    };
    let mut nats = server(&place);
    let url = nats.url();
    let hand = |host: &str, node: &str, times: u64| {
        Hand::start_in(&format!("gemmad-{host}"), &url, node, TAKES_MS * times)
    };
    let mut hands = [
        hand("server", "fast1", 1),
        hand("far", "fast2", 1),
        hand("far", "slow", 4),
    ];
    let load = Load {
        jobs: 300,
        every: EVERY,
        kill_every: 20,
        harms: 3,
        job: |n| waits(n, 20),
    };
    let mut harms = 0;
    let mut harm = || {
        let cut = |host: &str| {
            let mut commands = std::fs::File::options()
                .write(true)
                .open(commands(&place))
                .unwrap();
            writeln!(commands, "cut {host} 20").unwrap();
        };
        harms += 1;
        match harms {
            1 => cut("far"),
            2 => {
                nats.kill();
                nats.restart();
            }
            _ => cut("shop"),
        }
    };
    let figures = run(load, &url, &mut hands, &mut harm);
    figures.show();
    assert_eq!((figures.done, figures.poison), (285, 15));
}

#[test]
#[ignore = "it needs root, and measures: cargo nextest run --test fleet --run-ignored all how_late_voice --no-capture"]
fn how_late_voice_is_over_a_network() {
    eprintln!("no delay, no loss:");
    Network::start("0", "0").run("network::voice_process");
    eprintln!("5 ms, 1 % lost:");
    Network::start("5", "1").run("network::voice_process");
}

/// Utterances that are measured.
const UTTERANCES: usize = 30;

/// gemmad.toml of a board, in a directory of its own.
fn board(place: &Path, node: &str, sections: &str) -> PathBuf {
    let place = place.join(node);
    std::fs::create_dir(&place).unwrap();
    let text = format!(
        "[dbus]\nenabled = false\n[degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n[threads]\ncount = 1\n\
         [model]\npath = {:?}\n{sections}",
        demo()
    );
    std::fs::write(place.join("gemmad.toml"), text).unwrap();
    place
}

/// A tenth of a second of sound, bytes.
const PIECE: usize = 3200;

/// Nobody says anything until something holds.
fn quiet_until(hear: &mut dyn FnMut(&[u8]), what: &str, holds: &dyn Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        hear(&[0; PIECE]);
    }
}

/// Says a clip again and again at a board, as fast as people speak, and gives the latencies of what was heard, milliseconds.
fn listen(place: &Path, node: &str, fleet: &str) -> Vec<f64> {
    let pipe = place.join(format!("{node}.pcm"));
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let sections = format!(
        "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = {node:?}\n\
         [[microphone]]\nid = \"hall\"\ntype = \"replay\"\ndevice = {pipe:?}\n{fleet}",
        broker.port
    );
    // A writer that stays, or the pipe would end with each clip.
    let mut sound = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let _board = Hand::daemon(&board(place, node, &sections));
    let mut hear = |piece: &[u8]| {
        let next = Instant::now() + Duration::from_millis(100);
        sound.write_all(piece).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    };
    let state = format!("gemmad/{node}/mic/hall/state");
    let is_online = || {
        observer
            .on(&state)
            .iter()
            .any(|seen| seen.payload == b"online")
    };
    quiet_until(&mut hear, "the microphone is online", &is_online);
    let clip = std::fs::read(demo().join("heldout/audio/009_both.wav")).unwrap();
    let topic = format!("gemmad/{node}/mic/hall/event");
    for n in 1..=UTTERANCES {
        // Behind the WAV file's header: 16 kHz, mono, 16 bits.
        clip[44..].chunks(PIECE).for_each(&mut hear);
        quiet_until(&mut hear, "an event", &|| observer.on(&topic).len() >= n);
    }
    let events = observer.on(&topic);
    let latency = |event: serde_json::Value| {
        assert_eq!(event["event_type"], "transcript", "{event}");
        event["timing"]["latency_ms"].as_f64().unwrap()
    };
    events.iter().map(|seen| latency(seen.json())).collect()
}

#[test]
#[ignore = "it is a process on the host of the sources, which another test starts"]
fn voice_process() {
    let Some(place) = place() else {
        return;
    };
    let show = |what: &str, latencies: &[f64]| {
        let at = |share| percentile(latencies, share);
        eprintln!(
            "{what}: p50 {:.0} ms, p95 {:.0} ms after the end of speech",
            at(0.5),
            at(0.95)
        );
    };
    show("its own model", &listen(&place, "local", ""));
    let nats = server(&place);
    let fleet = |role: &str| {
        format!(
            "[fleet]\nenabled = true\nurl = \"{}\"\nrole = \"{role}\"\n",
            nats.url()
        )
    };
    let worker = board(
        &place,
        "worker",
        &format!("[mqtt]\nnode = \"worker\"\n{}", fleet("worker")),
    );
    let mut command = in_space("gemmad-far", env!("CARGO_BIN_EXE_gemmad"));
    command
        .args(["run", "--config"])
        .arg(worker.join("gemmad.toml"));
    command.arg("--state-dir").arg(worker.join("state"));
    let _worker = Hand::of(command);
    let runtime = runtime();
    let watching = runtime.block_on(source(&nats.url(), "watcher"));
    wait_until("a worker is there", || !watching.workers().is_empty());
    show(
        "another board's",
        &listen(&place, "remote", &fleet("source")),
    );
}
