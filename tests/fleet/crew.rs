//! Workers that are processes, and sources in this one.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemmad::fleet::{FleetOptions, Job, Kind, Link, Role, Source, Work, Worker};
use gemmad::report::{
    AskFields, Attachment, DescribeFields, JobUpdate, ModelCard, Payload, Picture, Reply, Request,
};
use tokio::sync::mpsc;

/// What a worker process is told: the server, its name, and milliseconds that a job takes it.
const WORKER: &str = "GEMMAD_TEST_WORKER";

/// Whoever gets a job of these words dies.
pub(crate) const POISON: &str = "poison";

pub(crate) fn options(url: &str, role: Role) -> FleetOptions {
    FleetOptions {
        enabled: true,
        url: url.to_owned(),
        role,
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

/// What a request says, and how many bytes came with it.
fn words(payload: &Payload) -> Option<(String, usize)> {
    match payload {
        Payload::Ask(ask) => Some((ask.prompt.clone(), 0)),
        Payload::Describe(describe) => {
            let Picture::Attached(image) = &describe.picture else {
                return None;
            };
            Some((describe.wish.prompt.clone().unwrap(), image.0.len()))
        }
        _ => None,
    }
}

/// Does what it is asked, one after the other, as the inference thread does.
async fn do_what_is_asked(
    mut requests: mpsc::Receiver<Request>,
    takes: Duration,
    idle: Arc<AtomicU64>,
) {
    while let Some(request) = requests.recv().await {
        let Some((text, bytes)) = words(&request.payload) else {
            continue;
        };
        if text == POISON {
            std::process::abort();
        }
        idle.store(1, Ordering::SeqCst);
        tokio::time::sleep(takes).await;
        idle.store(0, Ordering::SeqCst);
        let reply = Reply {
            text: Some(format!("{text} {bytes}")),
            ..Reply::default()
        };
        request
            .reply
            .tell(&JobUpdate::end(&request.header, Ok(reply)));
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
    let busy = Arc::new(AtomicU64::new(0));
    tokio::spawn(do_what_is_asked(requests, takes, Arc::clone(&busy)));
    Worker::start(
        &link,
        &card,
        sender,
        move || busy.load(Ordering::SeqCst) == 0,
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

/// A worker process, which is started again when it has died.
pub(crate) struct Hand {
    child: Child,
    told: String,
}

impl Hand {
    pub(crate) fn start(url: &str, node: &str, takes_ms: u64) -> Hand {
        let told = format!("{url} {node} {takes_ms}");
        Hand {
            child: Hand::spawn(&told),
            told,
        }
    }

    fn spawn(told: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "crew::worker_process",
                "--nocapture",
            ])
            .env(WORKER, told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// SIGKILL, and another one.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Hand::spawn(&self.told);
    }

    /// Another one, where it has died.
    pub(crate) fn look(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.child = Hand::spawn(&self.told);
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
