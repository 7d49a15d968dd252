//! Workers that are late, gone or none: who is listened to about a job.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use gemmad::fleet::{Job, Outcome, Source, Stage, Work, roster};
use gemmad::report::AskFields;
use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::crew::{ask, runtime, source, start_worker};
use crate::nats::Nats;

/// A source with a question on its way, and a stranger who tells it what he likes.
struct Scene {
    nats: Nats,
    runtime: tokio::runtime::Handle,
    source: Arc<Source>,
    client: async_nats::Client,
    to: String,
    told: Arc<Mutex<String>>,
    carried: tokio::task::JoinHandle<Outcome>,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let nats = Nats::start(dir.path());
        let runtime = runtime();
        let source = runtime.block_on(source(&nats.url(), "shop"));
        let told = Arc::new(Mutex::new(String::new()));
        let carried = {
            let (source, told) = (Arc::clone(&source), Arc::clone(&told));
            let work = Work::Ask(AskFields {
                prompt: "?".to_owned(),
                stream: true,
                ..AskFields::default()
            });
            let job = Job {
                work,
                ..ask(1, "?")
            };
            runtime.spawn(async move {
                let tell = |stage: Stage<'_>| {
                    if let Stage::Piece(piece) = stage {
                        told.lock().unwrap().push_str(piece);
                    }
                };
                source.carry(&job, &|| false, &tell).await.unwrap()
            })
        };
        wait_until("the job is at the server", || {
            let waiting = runtime.block_on(source.link().waiting());
            waiting.is_ok_and(|all| all.iter().any(|(_, jobs)| *jobs == 1))
        });
        let (client, to) = runtime.block_on(async {
            source.tell();
            // It listens a little later.
            let session = loop {
                let members = roster(source.link(), Duration::from_millis(500)).await;
                if let [member] = &members.unwrap()[..] {
                    break member.session.clone();
                }
            };
            (
                async_nats::connect(nats.url()).await.unwrap(),
                format!("gemmad.home.to.shop.{session}"),
            )
        });
        Scene {
            nats,
            runtime,
            source,
            client,
            to,
            told,
            carried,
            _dir: dir,
        }
    }

    /// Tells the source something; whether it listens.
    fn tell(&self, what: &str, told: &Value) -> bool {
        let body = json!({ what: told }).to_string();
        let asked = self.client.request(self.to.clone(), body.into());
        let answer = self.runtime.block_on(asked).unwrap();
        *answer.payload == *b"yes"
    }

    fn has(&self, worker: &str, session: &str, delivery: u64) -> bool {
        let has = json!({ "id": "J1", "worker": worker, "session": session, "sending": 0, "delivery": delivery });
        self.tell("has", &has)
    }
}

fn piece(session: &str, at: usize, text: &str) -> Value {
    json!({ "id": "J1", "session": session, "of": "text", "at": at, "text": text })
}

#[test]
fn a_worker_whose_job_another_one_has_is_not_listened_to_until_it_is_done() {
    let scene = Scene::new();
    assert!(scene.has("attic", "early", 1));
    assert!(scene.tell("piece", &piece("early", 0, "Yes, ")));
    // It was cut off for a while, and does not know that another one has the job.
    assert!(scene.has("cellar", "late", 2));
    assert!(!scene.tell("piece", &piece("early", 5, "no.")));
    assert!(!scene.tell(
        "misses",
        &json!({ "id": "J1", "session": "early", "at": 0 })
    ));
    assert!(!scene.tell("works", &json!({ "id": "J1", "session": "early" })));
    assert!(!scene.tell("leaves", &json!({ "id": "J1", "session": "early" })));
    assert!(scene.tell("works", &json!({ "id": "J1", "session": "late" })));
    assert!(scene.tell("piece", &piece("late", 0, "Yes, it")));
    for (session, text, listens) in [
        ("stranger", "No.", false),
        ("late", "Yes, it is.", true),
        ("late", "Yes, it is.", false),
    ] {
        let done = json!({ "id": "J1", "session": session, "model": "x", "reply": { "text": text }, "error": null });
        assert_eq!(scene.tell("done", &done), listens, "{session}");
    }
    let outcome = scene.runtime.block_on(scene.carried).unwrap();
    assert_eq!(outcome.worker, "cellar");
    assert_eq!(outcome.result.unwrap().text.unwrap(), "Yes, it is.");
    assert_eq!(*scene.told.lock().unwrap(), "Yes, it is.");
}

#[test]
fn a_job_that_is_off_its_stream_and_that_nobody_works_on_is_sent_again() {
    let scene = Scene::new();
    let session = scene.runtime.block_on(async {
        let stream = jetstream::new(scene.client.clone());
        let stream = stream.get_stream("gemmad-home-ask").await.unwrap();
        stream.purge().await.unwrap();
        start_worker(&scene.nats.url(), "upstairs", Duration::ZERO).await;
        while scene.source.workers().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        scene.source.workers()[0].session.clone()
    });
    // It had the job once, could not bring the result, and lives.
    assert!(scene.has("upstairs", &session, 1));
    let outcome = scene.runtime.block_on(scene.carried).unwrap();
    assert_eq!(outcome.worker, "upstairs");
    assert_eq!(outcome.result.unwrap().text.unwrap(), "? 0");
}

#[test]
fn what_is_no_board_is_not_among_the_boards() {
    let scene = Scene::new();
    let member = |node: &str, session: &str, model: String| {
        json!({
            "protocol": 1, "version": "1", "node": node, "session": session, "role": "worker", "model": model, "sees": true,
            "hears": true, "busy": false, "done": 0, "failed": 0, "job_ms": 0.0, "away": 0, "came_back": 0, "poison": 0,
        })
    };
    let all = [
        member("a\u{1b}[2Jb", "one", String::new()),
        member("b", "two\n", String::new()),
        member("c", "three", "x".repeat(100_000)),
        json!("d"),
        member("true", "four", "demo".to_owned()),
    ];
    scene.runtime.block_on(async {
        for member in all {
            let subject = "gemmad.home.member";
            let said = scene.client.publish(subject, member.to_string().into());
            said.await.unwrap();
        }
        scene.client.flush().await.unwrap();
        while scene.source.workers().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let workers = scene.source.workers();
    let nodes: Vec<&str> = workers.iter().map(|worker| worker.node.as_str()).collect();
    assert_eq!(nodes, ["true"]);
    let forged =
        json!({ "id": "J1", "worker": "a\nb", "session": "x", "sending": 0, "delivery": 1 });
    assert!(!scene.tell("has", &forged));
    scene.carried.abort();
}

#[test]
fn what_a_board_that_is_gone_has_left_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let runtime = runtime();
    let source = runtime.block_on(source(&nats.url(), "shop"));
    runtime.block_on(async {
        source.link().make_streams().await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        for n in 0..60 {
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in [
                ("Gemmad-Id", format!("LEFT{n}").as_str()),
                ("Gemmad-Node", "old"),
                ("Gemmad-Session", "gone"),
                ("Gemmad-Protocol", "1"),
                ("Gemmad-Patience-Ms", "1000"),
                ("Gemmad-Sha256", "00"),
                ("Gemmad-Sending", "0"),
            ] {
                headers.insert(name, value);
            }
            let subject = "gemmad.home.job.ask.text.old";
            let left = client.publish_with_headers(subject, headers, "{}".into());
            left.await.unwrap();
        }
        client.flush().await.unwrap();
    });
    let done = Arc::new(Mutex::new(None));
    let into = Arc::clone(&done);
    let _worker = runtime.block_on(start_worker(&nats.url(), "upstairs", Duration::ZERO));
    runtime.spawn(async move {
        let outcome = source.carry(&ask(1, "Now?"), &|| false, &|_| ()).await;
        *into.lock().unwrap() = Some(outcome.unwrap());
    });
    // Each of them for some seconds would be minutes.
    wait_until("it is done", || done.lock().unwrap().is_some());
}
