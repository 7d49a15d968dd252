//! Many jobs while workers are killed and the server is restarted: none is lost, none comes back twice, and only poison is given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gemmad::fleet::{Job, Source, Stage};
use gemmad::report::ErrorCode;

use crate::crew::{Hand, POISON, picture, runtime, source, voice};
use crate::nats::Nats;

/// Boards that send: people speak at two of them, four have a camera.
pub(crate) const SOURCES: u64 = 6;

/// What a load is.
pub(crate) struct Load {
    pub(crate) jobs: u64,
    /// A source sends the next job when the one before has come back, and this long after it at the earliest.
    pub(crate) every: Duration,
    /// A worker is killed when so many more jobs have come back.
    pub(crate) kill_every: usize,
    /// The server or the network is harmed so often.
    pub(crate) harms: usize,
    /// The n-th job, and the answer to it; none, where it is poison.
    pub(crate) job: fn(u64) -> (Job, Option<String>),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) done: usize,
    pub(crate) poison: usize,
    /// Results beyond the first.
    pub(crate) unwanted: u64,
    /// What was done, by worker.
    pub(crate) shares: BTreeMap<String, usize>,
    /// Jobs that waited for more than a second at a worker that had something else to do.
    pub(crate) hoarded: usize,
    /// From sending until a worker had it, milliseconds.
    pub(crate) waited_ms: Vec<f64>,
    /// From sending until the worker that did it had it: the waiting of jobs whose workers died among it.
    pub(crate) began_ms: Vec<f64>,
    /// From then on until it was back.
    pub(crate) worked_ms: Vec<f64>,
    /// Until the last answer; poison is given up later.
    pub(crate) seconds: f64,
}

pub(crate) fn percentile(of: &[f64], share: f64) -> f64 {
    let mut all = of.to_vec();
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * share) as usize]
}

impl Figures {
    pub(crate) fn mean_ms(&self) -> f64 {
        self.worked_ms.iter().sum::<f64>() / self.worked_ms.len() as f64
    }

    pub(crate) fn share(&self, worker: &str) -> f64 {
        let all: usize = self.shares.values().sum();
        100.0 * self.shares[worker] as f64 / all as f64
    }

    async fn wait_for(&mut self, job: &Job, answer: &str, source: &Source) {
        let sent = Instant::now();
        let ms = || sent.elapsed().as_secs_f64() * 1e3;
        let taken = Mutex::new(Vec::new());
        let begun = |stage: Stage<'_>| {
            if matches!(stage, Stage::Taken(_)) {
                taken.lock().unwrap().push(ms());
            }
        };
        let outcome = source.carry(job, &|| false, &begun).await.unwrap();
        let back = ms();
        let reply = match outcome.result {
            Ok(reply) => reply,
            Err(error) => panic!("job {} instead of {answer}: {error:?}", job.id),
        };
        assert_eq!(reply.text.unwrap().trim(), answer, "job {}", job.id);
        let taken = taken.into_inner().unwrap();
        let began = taken[taken.len() - 1];
        self.waited_ms.push(taken[0]);
        self.began_ms.push(began);
        self.worked_ms.push(back - began);
        self.hoarded += usize::from(reply.timing.unwrap().queue_ms > 1000.0);
        *self.shares.entry(outcome.worker).or_default() += 1;
        self.done += 1;
    }

    pub(crate) fn show(&self) {
        let of = |all: &[f64]| {
            let at = |share| percentile(all, share);
            format!("p50 {:.0} ms, p95 {:.0} ms", at(0.5), at(0.95))
        };
        eprintln!(
            "{} done, {} poison, {} unwanted, {} hoarded, in {:.0} s; a job takes {:.0} ms, waits {}, with its tries {}; shares {:?}",
            self.done,
            self.poison,
            self.unwanted,
            self.hoarded,
            self.seconds,
            self.mean_ms(),
            of(&self.waited_ms),
            of(&self.began_ms),
            self.shares
        );
    }
}

/// Sends every sixth job, beginning with the n-th.
async fn send(load: &Load, first: u64, source: &Arc<Source>, back: &Arc<AtomicUsize>) -> Figures {
    let mut figures = Figures::default();
    let mut poison = Vec::new();
    for n in (first..load.jobs).step_by(SOURCES as usize) {
        let next = tokio::time::Instant::now() + load.every;
        let (job, answer) = (load.job)(n);
        match answer {
            Some(answer) => figures.wait_for(&job, &answer, source).await,
            // Nobody waits for what kills one worker after the other.
            None => {
                let (source, back) = (Arc::clone(source), Arc::clone(back));
                poison.push(tokio::spawn(async move {
                    let outcome = source.carry(&job, &|| false, &|_| ()).await.unwrap();
                    back.fetch_add(1, Ordering::SeqCst);
                    let error = outcome.result.unwrap_err();
                    assert_eq!(error.code, ErrorCode::Poison, "{}", error.message);
                }));
                continue;
            }
        }
        back.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep_until(next).await;
    }
    for given_up in poison {
        given_up.await.unwrap();
        figures.poison += 1;
    }
    figures
}

/// Sends a load to these workers, kills them, and does `harm` meanwhile.
pub(crate) fn run(load: Load, url: &str, hands: &mut [Hand], harm: &mut dyn FnMut()) -> Figures {
    let (load, back) = (Arc::new(load), Arc::new(AtomicUsize::new(0)));
    let runtime = runtime();
    let all: Vec<Arc<Source>> = (0..SOURCES)
        .map(|n| runtime.block_on(source(url, &format!("source{n}"))))
        .collect();
    // Workers tell of themselves every two seconds.
    while all[0].workers().len() < hands.len() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let began = Instant::now();
    let sent = all.iter().zip(0..).map(|(source, first)| {
        let (load, source, back) = (Arc::clone(&load), Arc::clone(source), Arc::clone(&back));
        runtime.spawn(async move { send(&load, first, &source, &back).await })
    });
    let sent: Vec<_> = sent.collect();
    let (mut next_kill, mut victim, mut harms) = (load.kill_every, 0, 0);
    while !sent.iter().all(tokio::task::JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(20));
        hands.iter_mut().for_each(Hand::look);
        let back = back.load(Ordering::SeqCst);
        if back >= next_kill {
            let many = hands.len();
            hands[victim % many].kill();
            (next_kill, victim) = (next_kill + load.kill_every, victim + 1);
        }
        if harms < load.harms && back * (load.harms + 1) >= (harms + 1) * load.jobs as usize {
            harm();
            harms += 1;
        }
        assert!(
            began.elapsed() < Duration::from_secs(1800),
            "{back} jobs came back"
        );
    }
    assert_eq!(harms, load.harms);
    let mut figures = Figures {
        seconds: began.elapsed().as_secs_f64(),
        unwanted: all.iter().map(|source| source.counts().2).sum(),
        ..Figures::default()
    };
    for sent in sent {
        let one = runtime.block_on(sent).unwrap();
        figures.done += one.done;
        figures.poison += one.poison;
        figures.hoarded += one.hoarded;
        figures.waited_ms.extend(one.waited_ms);
        figures.began_ms.extend(one.began_ms);
        figures.worked_ms.extend(one.worked_ms);
        for (worker, jobs) in one.shares {
            *figures.shares.entry(worker).or_default() += jobs;
        }
    }
    figures
}

/// Kills a server, and starts it again with what it has on its disk.
pub(crate) fn restart(nats: &mut Nats) {
    nats.kill();
    std::thread::sleep(Duration::from_millis(500));
    nats.restart();
}

/// A job whose work is to wait; every `poison`-th kills whoever takes it. Some pictures are larger than a message may be.
pub(crate) fn waits(n: u64, poison: u64) -> (Job, Option<String>) {
    let is_poison = n % poison == poison - 1;
    let said = match is_poison {
        true => POISON.to_owned(),
        false => format!("job {n}"),
    };
    let bytes = if n % 10 == 2 { 300 << 10 } else { 900 };
    let job = match n % SOURCES {
        0 | 1 => voice(n, &said, bytes),
        _ => picture(n, &format!("camera{n}"), &said, bytes),
    };
    (job, (!is_poison).then(|| format!("{said} {bytes}")))
}

/// Three workers, one of them at a quarter of the speed.
pub(crate) fn three(url: &str, takes_ms: u64) -> [Hand; 3] {
    [
        Hand::start(url, "fast1", takes_ms),
        Hand::start(url, "fast2", takes_ms),
        Hand::start(url, "slow", takes_ms * 4),
    ]
}

#[test]
fn no_job_is_lost_while_workers_die_and_the_server_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let mut hands = three(&nats.url(), 40);
    let load = Load {
        jobs: 60,
        every: Duration::from_millis(100),
        kill_every: 20,
        harms: 1,
        job: |n| waits(n, 60),
    };
    let url = nats.url();
    let figures = run(load, &url, &mut hands, &mut || restart(&mut nats));
    assert_eq!((figures.done, figures.poison), (59, 1), "{figures:?}");
    // All that came was of these workers.
    assert_eq!(figures.shares.values().sum::<usize>(), 59);
    let known = |name: &String| ["fast1", "fast2", "slow"].contains(&name.as_str());
    assert!(figures.shares.keys().all(known), "{figures:?}");
}

/// Jobs of 400 ms that come so fast that two fast workers and one of a quarter of their speed have 93 % of their time full.
pub(crate) const TAKES_MS: u64 = 400;
pub(crate) const EVERY: Duration = Duration::from_millis(1150);

#[test]
#[ignore = "it takes minutes: cargo nextest run --test fleet --run-ignored all a_thousand_jobs --no-capture"]
fn a_thousand_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let mut hands = three(&nats.url(), TAKES_MS);
    let load = Load {
        jobs: 900,
        every: EVERY,
        kill_every: 20,
        harms: 3,
        job: |n| waits(n, 20),
    };
    let url = nats.url();
    let figures = run(load, &url, &mut hands, &mut || restart(&mut nats));
    figures.show();
    assert_eq!((figures.done, figures.poison), (855, 45));
    assert_eq!(figures.hoarded, 0);
    let slow = figures.share("slow");
    assert!(
        (8.0..14.0).contains(&slow),
        "{slow:.1} % for the slow worker"
    );
    let p95 = percentile(&figures.waited_ms, 0.95);
    assert!(p95 < 2.0 * figures.mean_ms(), "{p95:.0} ms waited");
}
