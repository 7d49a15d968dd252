//! What is said at a board without a model is heard by a worker while it is said, whatever happens meanwhile.

use serde_json::json;

use crate::broker::{free_port, wait_until};
use crate::fleet::{Helper, fleet};
use crate::nats::Nats;
use crate::process::{Bench, Gemmad, expected};
use crate::wyoming::{Client, mono, samples};

const CLIP: &str = "009_both.wav";

/// A board without a model, at which clients of Assist speak.
struct Board {
    bench: Bench,
    gemmad: Gemmad,
    port: u16,
}

impl Board {
    fn start(nats: &Nats) -> Board {
        let (bench, port) = (Bench::new(), free_port());
        let text = format!(
            "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n[dbus]\nenabled = false\n[model]\npath = \"/nowhere\"\n\
             [log]\nlevel = \"debug\"\n[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n{}",
            bench.broker.port,
            fleet(nats, "source", "")
        );
        std::fs::write(bench.dir.path().join("gemmad.toml"), text).unwrap();
        Board {
            gemmad: bench.start(),
            bench,
            port,
        }
    }

    fn knows(&self, workers: u64) {
        let name = std::cell::Cell::new(0);
        wait_until("the board knows the workers", || {
            name.set(name.get() + 1);
            let stats = self
                .bench
                .request("stats", &format!("s{}", name.get()), json!({}));
            stats["data"]["details"]["fleet"]["workers"] == workers
        });
    }

    /// Somebody who has said the first half of the clip.
    fn begins(&self) -> Speaker {
        self.begins_with(CLIP)
    }

    fn begins_with(&self, file: &'static str) -> Speaker {
        let mut client = Client::connect(self.port);
        let mut clip = samples(file);
        let rest = clip.split_off(clip.len() / 4 * 2);
        client.send("transcribe", json!({"language": "en"}), &[]);
        client.speak(&mono(), &clip);
        Speaker { client, file, rest }
    }

    /// Waits until a worker has had so many jobs.
    fn wait_for_jobs(&self, worker: &str, jobs: usize) {
        let words = format!("{worker} has job");
        wait_until("a worker has them", || {
            self.gemmad.log().matches(&words).count() >= jobs
        });
    }
}

struct Speaker {
    client: Client,
    file: &'static str,
    rest: Vec<u8>,
}

impl Speaker {
    /// Says the rest.
    fn ends(&mut self) {
        for chunk in self.rest.chunks(4096) {
            self.client.send("audio-chunk", mono(), chunk);
        }
        self.client.send("audio-stop", json!({}), &[]);
    }

    /// Is understood, all of it.
    fn gets_understood(mut self) {
        let said = expected("audio", self.file, "transcript");
        let transcript = json!({ "language": "en", "text": said });
        assert_eq!(
            self.client.receive(),
            Some(("transcript".to_owned(), transcript))
        );
    }
}

#[test]
fn a_worker_hears_what_is_being_said_and_another_hears_it_anew_where_that_one_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let (first, second) = (Helper::new(&nats, "attic"), Helper::new(&nats, "cellar"));
    let board = Board::start(&nats);
    let attic = first.start();
    board.knows(1);
    let mut speaker = board.begins();
    // It has the job, and nobody has said all.
    board.gemmad.wait_log("attic has job");
    speaker.ends();
    speaker.gets_understood();

    // The worker dies while somebody speaks.
    let mut speaker = board.begins();
    wait_until("the worker hears", || {
        board.gemmad.log().matches("attic has job").count() == 2
    });
    attic.kill();
    let cellar = second.start();
    board.gemmad.wait_log("cellar has job");
    speaker.ends();
    speaker.gets_understood();

    // The server is away while somebody speaks.
    let mut speaker = board.begins();
    wait_until("the worker hears", || {
        board.gemmad.log().matches("cellar has job").count() == 2
    });
    nats.kill();
    speaker.ends();
    nats.restart();
    speaker.gets_understood();

    // Whoever goes in the midst is forgotten, and the worker is free again.
    let speaker = board.begins();
    wait_until("the worker hears", || {
        board.gemmad.log().matches("cellar has job").count() >= 3
    });
    drop(speaker);
    let mut speaker = board.begins();
    speaker.ends();
    speaker.gets_understood();

    // Nobody is there to hear it while it is said: it waits, whole.
    cellar.stop();
    let mut speaker = board.begins();
    speaker.ends();
    let late = second.start();
    speaker.gets_understood();
    late.stop();
    board.gemmad.stop();
}

#[test]
fn three_who_speak_at_once_are_heard_by_one_worker_and_by_another_where_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let (first, second) = (
        Helper::with(&nats, "attic", "demo", 3),
        Helper::with(&nats, "cellar", "demo", 3),
    );
    let board = Board::start(&nats);
    let attic = first.start();
    board.knows(1);
    let all =
        || ["009_both.wav", "003_both.wav", "017_combo.wav"].map(|file| board.begins_with(file));
    let mut speakers = all();
    // It has all of them, and nobody has said all.
    board.wait_for_jobs("attic", 3);
    speakers.iter_mut().for_each(Speaker::ends);
    speakers.into_iter().for_each(Speaker::gets_understood);

    let mut speakers = all();
    board.wait_for_jobs("attic", 6);
    attic.kill();
    let cellar = second.start();
    board.wait_for_jobs("cellar", 3);
    speakers.iter_mut().for_each(Speaker::ends);
    speakers.into_iter().for_each(Speaker::gets_understood);
    cellar.stop();
    board.gemmad.stop();
}
