//! Many jobs while workers are killed and the server is restarted: none is lost, none comes back twice, and only poison is given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gemmad::report::ErrorCode;
use tokio::sync::Semaphore;

use crate::crew::{Hand, POISON, ask, picture, runtime, source};
use crate::nats::Nats;

/// What a load is.
struct Load {
    jobs: u64,
    /// Each so many-th job is poison.
    poison_every: u64,
    /// A worker is killed when so many more jobs have come back.
    kill_every: usize,
    /// The server is killed and started again so often.
    restarts: usize,
    /// Milliseconds that a job takes the fast workers; the slow one takes four times as long.
    takes_ms: u64,
    /// Jobs that are away at a time.
    away: usize,
}

/// What came of it.
#[derive(Debug, Default)]
struct Figures {
    done: usize,
    poison: usize,
    /// Results beyond the first.
    unwanted: u64,
    /// By worker.
    shares: BTreeMap<String, usize>,
    /// From sending to the result, milliseconds, the shortest first.
    took_ms: Vec<u128>,
    seconds: f64,
}

fn run(load: &Load) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let url = nats.url();
    let mut hands = [
        Hand::start(&url, "fast1", load.takes_ms),
        Hand::start(&url, "fast2", load.takes_ms),
        Hand::start(&url, "slow", load.takes_ms * 4),
    ];
    let figures = Arc::new(Mutex::new(Figures::default()));
    let back = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let runtime = runtime();
    let all = runtime.block_on(async {
        let mut sources = Vec::new();
        for n in 0..6 {
            sources.push(source(&url, &format!("source{n}")).await);
        }
        sources
    });
    let places = Arc::new(Semaphore::new(load.away));
    let sending = {
        let (figures, back, all) = (Arc::clone(&figures), Arc::clone(&back), all.clone());
        let (jobs, poison_every) = (load.jobs, load.poison_every);
        runtime.spawn(async move {
            let mut carried = Vec::new();
            for n in 0..jobs {
                let place = Arc::clone(&places).acquire_owned().await.unwrap();
                let is_poison = n % poison_every == poison_every - 1;
                let said = if is_poison {
                    POISON.to_owned()
                } else {
                    format!("job {n}")
                };
                // Two boards ask, four have cameras; some pictures are larger than a message may be.
                let at = (n % 6) as usize;
                let bytes = if n % 10 == 2 { 300 << 10 } else { 900 };
                let job = match at {
                    0 | 1 => ask(n, &said),
                    _ => picture(n, &format!("camera{n}"), &said, bytes),
                };
                let (source, figures, back) = (
                    Arc::clone(&all[at]),
                    Arc::clone(&figures),
                    Arc::clone(&back),
                );
                carried.push(tokio::spawn(async move {
                    let sent = Instant::now();
                    let outcome = source.carry(&job, &|| false, &|_| ()).await.unwrap();
                    let mut figures = figures.lock().unwrap();
                    match outcome.result {
                        Ok(reply) => {
                            let bytes = if at < 2 { 0 } else { bytes };
                            assert_eq!(reply.text.unwrap(), format!("{said} {bytes}"));
                            assert!(!is_poison);
                            figures.done += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.code, ErrorCode::Poison, "{}", error.message);
                            assert!(is_poison, "job {n} was no poison");
                            figures.poison += 1;
                        }
                    }
                    *figures.shares.entry(outcome.worker).or_default() += 1;
                    figures.took_ms.push(sent.elapsed().as_millis());
                    back.fetch_add(1, Ordering::SeqCst);
                    drop(place);
                }));
            }
            for job in carried {
                job.await.unwrap();
            }
        })
    };
    let (mut next_kill, mut victim, mut restarts) = (load.kill_every, 0, 0);
    while !sending.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
        hands.iter_mut().for_each(Hand::look);
        let back = back.load(Ordering::SeqCst);
        if back >= next_kill {
            hands[victim % 3].kill();
            (next_kill, victim) = (next_kill + load.kill_every, victim + 1);
        }
        if restarts < load.restarts
            && back * (load.restarts + 1) >= (restarts + 1) * load.jobs as usize
        {
            nats.kill();
            std::thread::sleep(Duration::from_millis(500));
            nats.restart();
            restarts += 1;
        }
        assert!(
            began.elapsed() < Duration::from_secs(900),
            "{back} jobs came back"
        );
    }
    runtime.block_on(sending).unwrap();
    assert_eq!(restarts, load.restarts);
    let mut figures = std::mem::take(&mut *figures.lock().unwrap());
    figures.seconds = began.elapsed().as_secs_f64();
    figures.unwanted = all.iter().map(|source| source.counts().2).sum();
    figures.took_ms.sort_unstable();
    figures
}

#[test]
fn no_job_is_lost_while_workers_die_and_the_server_is_restarted() {
    let figures = run(&Load {
        jobs: 60,
        poison_every: 60,
        kill_every: 20,
        restarts: 1,
        takes_ms: 40,
        away: 12,
    });
    assert_eq!((figures.done, figures.poison), (59, 1), "{figures:?}");
    // All that came was of these workers.
    assert_eq!(figures.shares.values().sum::<usize>(), 60);
    assert!(
        figures
            .shares
            .keys()
            .all(|name| ["fast1", "fast2", "slow"].contains(&name.as_str()))
    );
}

#[test]
#[ignore = "it takes minutes: cargo nextest run --test fleet --run-ignored all a_thousand"]
fn a_thousand_jobs() {
    let figures = run(&Load {
        jobs: 1000,
        poison_every: 20,
        kill_every: 20,
        restarts: 3,
        takes_ms: 400,
        away: 12,
    });
    let at = |share: f64| figures.took_ms[(figures.took_ms.len() as f64 * share) as usize];
    eprintln!(
        "{} done, {} poison, {} unwanted, in {:.0} s; p50 {} ms, p95 {} ms; shares {:?}",
        figures.done,
        figures.poison,
        figures.unwanted,
        figures.seconds,
        at(0.5),
        at(0.95),
        figures.shares
    );
    assert_eq!((figures.done, figures.poison), (950, 50));
}

/// Jobs a minute of pictures that take 200 ms each, and what one costs that takes no time, with so many workers.
fn rate(workers: usize, takes_ms: u64, jobs: u64) -> (f64, Vec<u128>) {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let url = nats.url();
    let hand = |n| Hand::start(&url, &format!("worker{n}"), takes_ms);
    let _hands: Vec<Hand> = (0..workers).map(hand).collect();
    runtime().block_on(async {
        let source = source(&url, "shop").await;
        while source.workers().len() < workers {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = Mutex::new(Vec::new());
        let (source, took, places) = (&source, &took, &Semaphore::new(workers * 2));
        let began = Instant::now();
        let all = (0..jobs).map(|n| async move {
            let _place = places.acquire().await.unwrap();
            let sent = Instant::now();
            let job = picture(n, &format!("camera{n}"), "?", 60 << 10);
            let outcome = source.carry(&job, &|| false, &|_| ()).await;
            outcome.unwrap().result.unwrap();
            took.lock().unwrap().push(sent.elapsed().as_millis());
        });
        futures_util::future::join_all(all).await;
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        let mut took = std::mem::take(&mut *took.lock().unwrap());
        took.sort_unstable();
        (jobs as f64 / minutes, took)
    })
}

#[test]
#[ignore = "it measures: cargo nextest run --test fleet --run-ignored all workers_add_up --no-capture"]
fn workers_add_up() {
    let alone = rate(1, 200, 60).0;
    for workers in 1..=3 {
        let rate = rate(workers, 200, 60 * workers as u64).0;
        eprintln!("{workers} workers: {rate:.0} jobs a minute");
        assert!(rate > 0.9 * alone * workers as f64, "{alone:.0} with one");
    }
    let (_, took) = rate(1, 0, 200);
    eprintln!(
        "a job of no time: p50 {} ms, p95 {} ms",
        took[100], took[190]
    );
}
