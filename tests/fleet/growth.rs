//! What another worker adds, and what the fleet itself costs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::broker::free_port;
use crate::crew::{Hand, picture, runtime, source};
use crate::http_client::{Response, request};
use crate::nats::Nats;

/// Of a picture as cameras give it, bytes.
const PICTURE: usize = 60 << 10;

/// What jobs cost.
struct Cost {
    /// Jobs a minute.
    rate: f64,
    /// From sending one to its result, milliseconds, the shortest first.
    took_ms: Vec<f64>,
    /// What passed the server for one, in and out.
    bytes: f64,
    messages: f64,
}

/// What has passed the server so far: bytes and messages, in and out.
fn passed(monitor: u16) -> (f64, f64) {
    let address = ([127, 0, 0, 1], monitor).into();
    let varz: Value = Response::to(address, &request("GET", "/varz", "", b"")).json();
    let sum = |what: &str| {
        let of = |way: &str| varz[format!("{way}_{what}")].as_f64().unwrap();
        of("in") + of("out")
    };
    (sum("bytes"), sum("msgs"))
}

/// Pictures that each take a worker so long, `away` at a time.
fn cost(workers: usize, takes_ms: u64, jobs: u64, away: usize) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let monitor = free_port();
    let nats = Nats::start_with(
        dir.path(),
        free_port(),
        &format!("http: \"127.0.0.1:{monitor}\""),
    );
    let url = nats.url();
    let hand = |n| Hand::start(&url, &format!("worker{n}"), takes_ms);
    let _hands: Vec<Hand> = (0..workers).map(hand).collect();
    runtime().block_on(async {
        let source = source(&url, "shop").await;
        while source.workers().len() < workers {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = Mutex::new(Vec::new());
        let (source, took, places) = (&source, &took, &Semaphore::new(away));
        let before = passed(monitor);
        let began = Instant::now();
        let all = (0..jobs).map(|n| async move {
            let _place = places.acquire().await.unwrap();
            let sent = Instant::now();
            let job = picture(n, &format!("camera{n}"), "?", PICTURE);
            let outcome = source.carry(&job, &|| false, &|_| ()).await;
            outcome.unwrap().result.unwrap();
            took.lock()
                .unwrap()
                .push(sent.elapsed().as_secs_f64() * 1e3);
        });
        futures_util::future::join_all(all).await;
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        let after = passed(monitor);
        let mut took_ms = std::mem::take(&mut *took.lock().unwrap());
        took_ms.sort_by(f64::total_cmp);
        let jobs = jobs as f64;
        Cost {
            rate: jobs / minutes,
            took_ms,
            bytes: (after.0 - before.0) / jobs,
            messages: (after.1 - before.1) / jobs,
        }
    })
}

#[test]
#[ignore = "it measures: cargo nextest run --test fleet --run-ignored all workers_add_up --no-capture"]
fn workers_add_up() {
    const TAKES_MS: u64 = 500;
    let mut alone = 0.0;
    for workers in 1..=3 {
        let cost = cost(workers, TAKES_MS, 60 * workers as u64, workers * 2);
        let rate = cost.rate;
        eprintln!(
            "{workers} workers: {rate:.0} jobs a minute of {}",
            workers as u64 * 60_000 / TAKES_MS
        );
        if workers == 1 {
            alone = rate;
        }
        assert!(rate > 0.9 * alone * workers as f64, "{alone:.0} with one");
    }
    // Work that takes no time, one at a time: what is left is the fleet.
    let cost = cost(1, 0, 300, 1);
    let at = |share: f64| cost.took_ms[(cost.took_ms.len() as f64 * share) as usize];
    eprintln!(
        "a picture of {PICTURE} bytes: p50 {:.1} ms, p95 {:.1} ms; {:.0} bytes and {:.0} messages pass the server",
        at(0.5),
        at(0.95),
        cost.bytes,
        cost.messages
    );
}
