//! The same load without a fleet, for comparison: MQTT's own shared subscription on mosquitto, as anybody would write it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;

use crate::broker::{Broker, free_port};
use crate::crew::{Hand, POISON, process_of, runtime};
use crate::load::{EVERY, SOURCES, TAKES_MS, percentile};

/// What a worker process is told: the port, its name, and milliseconds that a job takes it.
const WORKER: &str = "GEMMAD_TEST_SHARE_WORKER";

/// What has not come back by then is lost: it is ten times as long as the slowest job.
const LOST_AFTER: Duration = Duration::from_secs(16);

/// A client whose session the broker keeps.
fn client(port: u16, name: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_clean_session(false);
    options.set_max_packet_size(1 << 20, 1 << 20);
    AsyncClient::new(options, 100)
}

/// The texts that come on a topic, for ever.
fn listen(port: u16, name: &str, topic: &str) -> (AsyncClient, mpsc::UnboundedReceiver<String>) {
    let (client, mut events) = client(port, name);
    let (sender, texts) = mpsc::unbounded_channel();
    let (own, topic) = (client.clone(), topic.to_owned());
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    own.try_subscribe(topic.clone(), QoS::AtLeastOnce).ok();
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let text = String::from_utf8(message.payload.to_vec()).unwrap();
                    sender.send(text).ok();
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    (client, texts)
}

#[test]
#[ignore = "it is the process of a worker, which another test starts"]
fn worker_process() {
    let Ok(told) = std::env::var(WORKER) else {
        return;
    };
    let told: Vec<&str> = told.split(' ').collect();
    let (port, node) = (told[0].parse().unwrap(), told[1]);
    let takes = Duration::from_millis(told[2].parse().unwrap());
    runtime().block_on(async {
        let (client, mut jobs) = listen(port, node, "$share/workers/jobs/#");
        while let Some(job) = jobs.recv().await {
            let [source, n, said] = job.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{job}");
            };
            if said == POISON {
                std::process::abort();
            }
            tokio::time::sleep(takes).await;
            let result = format!("{n} {node} {}", takes.as_millis());
            let topic = format!("results/{source}");
            client
                .publish(topic, QoS::AtLeastOnce, false, result)
                .await
                .unwrap();
        }
    });
}

#[derive(Default)]
struct Figures {
    done: usize,
    /// Nobody is told what becomes of it.
    poison: usize,
    lost: usize,
    /// Results beyond the first.
    doubled: usize,
    shares: BTreeMap<String, usize>,
    /// From sending to the result, without the work, milliseconds.
    waited_ms: Vec<f64>,
    worked_ms: Vec<f64>,
}

async fn send(port: u16, first: u64, jobs: u64, figures: &Mutex<Figures>, back: &AtomicUsize) {
    let name = format!("source{first}");
    let (client, mut results) = listen(port, &name, &format!("results/{name}"));
    let mut known = BTreeSet::new();
    for n in (first..jobs).step_by(SOURCES as usize) {
        let next = tokio::time::Instant::now() + EVERY;
        let is_poison = n % 20 == 19;
        let said = if is_poison { POISON } else { "job" };
        let sent = Instant::now();
        let job = format!("{name} {n} {said}");
        client
            .publish("jobs/any", QoS::AtLeastOnce, false, job)
            .await
            .unwrap();
        if is_poison {
            figures.lock().unwrap().poison += 1;
            back.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let found = loop {
            let left = LOST_AFTER.saturating_sub(sent.elapsed());
            let Ok(Some(result)) = tokio::time::timeout(left, results.recv()).await else {
                break None;
            };
            let fields: Vec<&str> = result.split(' ').collect();
            let id: u64 = fields[0].parse().unwrap();
            if !known.insert(id) {
                figures.lock().unwrap().doubled += 1;
            } else if id == n {
                break Some((fields[1].to_owned(), fields[2].parse::<f64>().unwrap()));
            }
        };
        {
            let mut figures = figures.lock().unwrap();
            match found {
                Some((worker, takes)) => {
                    figures.done += 1;
                    *figures.shares.entry(worker).or_default() += 1;
                    let waited = sent.elapsed().as_secs_f64() * 1e3 - takes;
                    figures.waited_ms.push(waited);
                    figures.worked_ms.push(takes);
                }
                None => figures.lost += 1,
            }
        }
        back.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep_until(next).await;
    }
}

#[test]
#[ignore = "it measures, for many minutes: cargo nextest run --test fleet --run-ignored all a_shared_subscription --no-capture"]
fn a_shared_subscription_for_comparison() {
    const JOBS: u64 = 900;
    const RESTARTS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let settings = format!(
        "allow_anonymous true\npersistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
        kept.display()
    );
    let mut broker = Broker::start_with(dir.path(), free_port(), &settings);
    let port = broker.port;
    let hand = |node: &str, takes: u64| {
        let told = format!("{port} {node} {takes}");
        Hand::of(process_of("share::worker_process", WORKER, &told))
    };
    let mut hands = [
        hand("fast1", TAKES_MS),
        hand("fast2", TAKES_MS),
        hand("slow", TAKES_MS * 4),
    ];
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let figures = Arc::new(Mutex::new(Figures::default()));
    let back = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let sent: Vec<_> = (0..SOURCES)
        .map(|first| {
            let (figures, back) = (Arc::clone(&figures), Arc::clone(&back));
            runtime.spawn(async move { send(port, first, JOBS, &figures, &back).await })
        })
        .collect();
    let (mut next_kill, mut victim, mut restarts) = (20, 0, 0);
    while !sent.iter().all(tokio::task::JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(20));
        hands.iter_mut().for_each(Hand::look);
        let back = back.load(Ordering::SeqCst);
        if back >= next_kill {
            hands[victim % 3].kill();
            (next_kill, victim) = (next_kill + 20, victim + 1);
        }
        if restarts < RESTARTS && back * (RESTARTS + 1) >= (restarts + 1) * JOBS as usize {
            broker.kill();
            std::thread::sleep(Duration::from_millis(500));
            broker.restart();
            restarts += 1;
        }
    }
    for sent in sent {
        runtime.block_on(sent).unwrap();
    }
    let figures = figures.lock().unwrap();
    let at = |share| percentile(&figures.waited_ms, share);
    let mean = figures.worked_ms.iter().sum::<f64>() / figures.worked_ms.len() as f64;
    eprintln!(
        "{} done, {} lost, {} poison of which nobody is told, {} doubled, in {:.0} s; a job takes {mean:.0} ms, waits p50 {:.0} ms, p95 {:.0} ms; shares {:?}",
        figures.done,
        figures.lost,
        figures.poison,
        figures.doubled,
        began.elapsed().as_secs_f64(),
        at(0.5),
        at(0.95),
        figures.shares
    );
    let all = figures.done + figures.lost + figures.poison;
    assert_eq!(all, JOBS as usize);
}
