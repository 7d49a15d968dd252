//! Workers that are processes, and sources in this one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gemmad::fleet::{FleetOptions, Job, Kind, Link, Role, Source, Work, Worker};
use gemmad::report::{
    AskFields, Attachment, DescribeFields, JobUpdate, ModelCard, Origin, Payload, Picture, Reply,
    ReportTiming, Request,
};
use tokio::sync::mpsc;

use crate::nats::in_space;

/// What a worker process is told: the server, its name, and milliseconds that a job takes it.
const WORKER: &str = "GEMMAD_TEST_WORKER";

/// Whoever gets a job of these words dies.
pub(crate) const POISON: &str = "poison";

pub(crate) fn options(url: &str, role: Role) -> FleetOptions {
    FleetOptions {
        enabled: true,
        url: url.to_owned(),
        role,
        // Of a cluster, every server keeps each job.
        replicas: url.split(',').count(),
        ..FleetOptions::default()
    }
}

/// A runtime that a thread of its own drives, for as long as the process runs.
pub(crate) fn runtime() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

pub(crate) async fn source(url: &str, node: &str) -> Arc<Source> {
    let link = Link::keep(&options(url, Role::Source), node).await.unwrap();
    Source::start(&link)
}

pub(crate) fn ask(id: u64, words: &str) -> Job {
    Job {
        id: format!("J{id}"),
        kind: Kind::Ask,
        camera: None,
        work: Work::Ask(AskFields {
            prompt: words.to_owned(),
            ..AskFields::default()
        }),
        patience: Duration::from_secs(60),
    }
}

pub(crate) fn picture(id: u64, camera: &str, words: &str, bytes: usize) -> Job {
    Job {
        kind: Kind::Image,
        camera: Some(camera.to_owned()),
        work: Work::Describe(DescribeFields {
            prompt: Some(words.to_owned()),
            image: Some(Attachment(vec![7; bytes].into())),
            ..DescribeFields::default()
        }),
        ..ask(id, words)
    }
}

/// What was said, with a question in its place.
pub(crate) fn voice(id: u64, words: &str, bytes: usize) -> Job {
    Job {
        kind: Kind::Voice,
        work: Work::Ask(AskFields {
            prompt: words.to_owned(),
            audio: Some(Attachment(vec![7; bytes].into())),
            ..AskFields::default()
        }),
        ..ask(id, words)
    }
}

/// What a request says, and how many bytes came with it.
fn words(payload: &Payload) -> Option<(String, usize)> {
    match payload {
        Payload::Ask(ask) => Some((
            ask.prompt.clone(),
            ask.audio.as_ref().map_or(0, |audio| audio.0.len()),
        )),
        Payload::Describe(describe) => {
            let Picture::Attached(image) = &describe.picture else {
                return None;
            };
            Some((describe.wish.prompt.clone().unwrap(), image.0.len()))
        }
        _ => None,
    }
}

/// A request that a worker has.
struct Doing {
    request: Request,
    said: String,
    came: Instant,
    /// How long it waited at the worker, once it has begun.
    waited: Option<Duration>,
    left: Duration,
}

/// Does what it is asked as the inference thread does: one at a time, and what nobody asked for goes on later.
async fn do_what_is_asked(
    mut requests: mpsc::Receiver<Request>,
    takes: Duration,
    busy: Arc<AtomicBool>,
) {
    let mut all: Vec<Doing> = Vec::new();
    loop {
        all.sort_by_key(|doing| doing.request.header.origin == Origin::Fleet { unasked: true });
        if let Some(first) = all.first_mut() {
            first.waited.get_or_insert(first.came.elapsed());
        }
        busy.store(!all.is_empty(), Ordering::SeqCst);
        let since = Instant::now();
        let left = all.first().map_or(Duration::MAX, |first| first.left);
        let more = tokio::time::timeout(left, requests.recv()).await;
        if let Some(first) = all.first_mut() {
            first.left = first.left.saturating_sub(since.elapsed());
        }
        match more {
            Ok(None) => return,
            Ok(Some(request)) => {
                let Some((text, bytes)) = words(&request.payload) else {
                    continue;
                };
                if text == POISON {
                    std::process::abort();
                }
                all.push(Doing {
                    request,
                    said: format!("{text} {bytes}"),
                    came: Instant::now(),
                    waited: None,
                    left: takes,
                });
            }
            Err(_) => {
                let done = all.remove(0);
                let ms = |time: Duration| time.as_secs_f64() * 1e3;
                let reply = Reply {
                    text: Some(done.said),
                    timing: Some(ReportTiming {
                        queue_ms: ms(done.waited.unwrap()),
                        decode_ms: ms(takes),
                        ..ReportTiming::default()
                    }),
                    ..Reply::default()
                };
                let update = JobUpdate::end(&done.request.header, Ok(reply));
                done.request.reply.tell(&update);
            }
        }
    }
}

pub(crate) async fn start_worker(url: &str, node: &str, takes: Duration) -> Arc<Worker> {
    let link = Link::keep(&options(url, Role::Worker), node).await.unwrap();
    let (sender, requests) = mpsc::channel(4);
    let card = ModelCard {
        name: "waits".to_owned(),
        sees: true,
        hears: true,
        ..ModelCard::default()
    };
    let busy = Arc::new(AtomicBool::new(false));
    tokio::spawn(do_what_is_asked(requests, takes, Arc::clone(&busy)));
    Worker::start(
        &link,
        &card,
        sender,
        move || !busy.load(Ordering::SeqCst),
        1,
        None,
    )
}

#[test]
#[ignore = "it is the process of a worker, which other tests start"]
fn worker_process() {
    let Ok(told) = std::env::var(WORKER) else {
        return;
    };
    let told: Vec<&str> = told.split(' ').collect();
    let takes = Duration::from_millis(told[2].parse().unwrap());
    runtime().block_on(async {
        let _worker = start_worker(told[0], told[1], takes).await;
        std::future::pending::<()>().await;
    });
}

/// A test of this binary that is a process of its own, and is told so much by the environment.
pub(crate) fn process_of(test: &str, variable: &str, told: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(variable, told);
    command
}

/// A worker process, which is started again when it has died.
pub(crate) struct Hand {
    child: Child,
    command: Command,
}

impl Hand {
    /// One whose work is to wait.
    pub(crate) fn start(url: &str, node: &str, takes_ms: u64) -> Hand {
        let told = format!("{url} {node} {takes_ms}");
        Hand::of(process_of("crew::worker_process", WORKER, &told))
    }

    /// The same in a network namespace.
    pub(crate) fn start_in(space: &str, url: &str, node: &str, takes_ms: u64) -> Hand {
        let told = format!("{url} {node} {takes_ms}");
        let process = process_of("crew::worker_process", WORKER, &told);
        let mut command = in_space(space, process.get_program().to_str().unwrap());
        command.args(process.get_args()).env(WORKER, told);
        Hand::of(command)
    }

    /// The same with another clock, as `faketime -f` takes it.
    pub(crate) fn start_at(offset: &str, url: &str, node: &str) -> Hand {
        let told = format!("{url} {node} 20");
        let process = process_of("crew::worker_process", WORKER, &told);
        let mut command = Command::new("faketime");
        command
            .args(["-f", offset])
            .arg(process.get_program())
            .args(process.get_args())
            .env(WORKER, told);
        Hand::of(command)
    }

    /// The daemon, with gemmad.toml and its state in `place`.
    pub(crate) fn daemon(place: &Path) -> Hand {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        command
            .args(["run", "--config"])
            .arg(place.join("gemmad.toml"))
            .arg("--state-dir")
            .arg(place.join("state"));
        Hand::of(command)
    }

    /// What a command does.
    pub(crate) fn of(mut command: Command) -> Hand {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Hand {
            child: command.spawn().unwrap(),
            command,
        }
    }

    /// SIGKILL, and another one.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = self.command.spawn().unwrap();
    }

    /// Another one, where it has died.
    pub(crate) fn look(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.child = self.command.spawn().unwrap();
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
