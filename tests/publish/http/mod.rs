//! The HTTP door over real sockets, with a daemon that says what a test wants: protocols, limits, and who may ask. With a model it is
//! tested in `tests/daemon/http.rs`.

mod bad_input;
mod ollama;
mod openai;
mod page;
mod security;
mod tools;
mod wire;

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemmad::publish::http::{Http, HttpServerOptions};
use gemmad::publish::{Door, Inside};
use gemmad::report::{
    ErrorBody, Info, JobState, JobUpdate, ModelCard, Payload, Reply, Report, ReportTiming, Request,
};
use serde_json::{Value, json};

use crate::broker::{PATIENCE, free_port, wait_until};
use crate::http_client::{Response, connect, request};

/// What the daemon of a test does with a request: it tells updates, the last of which ends it, or nothing.
type Daemon = dyn Fn(&Request) -> Vec<JobUpdate> + Send + Sync;

/// A door, and what it asked for.
pub(super) struct Bench {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    reports: tokio::sync::mpsc::UnboundedSender<Report>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: tokio::sync::mpsc::Sender<()>,
}

pub(super) fn card() -> ModelCard {
    ModelCard {
        name: "demo".to_owned(),
        family: "Gemma 4".to_owned(),
        quantisation: "balanced".to_owned(),
        slices: vec!["full".to_owned(), "half".to_owned()],
        context: 4096,
        width: 64,
        layers: 4,
        vocabulary: 1000,
        parameters: 5_100_000_000,
        bytes: 4_000_000,
        digest: "0123456789abcdef".repeat(4),
        sees: true,
        hears: true,
        thinks: true.into(),
        calls: true,
        soft_tokens: vec![70, 280],
        ..ModelCard::default()
    }
}

/// An answer of four tokens.
pub(super) fn reply(text: &str) -> Reply {
    Reply {
        text: Some(text.to_owned()),
        finish: Some("stop".to_owned()),
        timing: Some(ReportTiming {
            prompt_tokens: 20,
            cached_tokens: 12,
            tokens: 4,
            prefill_ms: 2.0,
            decode_ms: 8.0,
            ..ReportTiming::default()
        }),
        ..Reply::default()
    }
}

/// Says "Hello there." to whatever is asked, in three pieces.
pub(super) fn hello(request: &Request) -> Vec<JobUpdate> {
    let piece = |text: &str| JobUpdate {
        partial: Some(text.to_owned()),
        ..JobUpdate::new(&request.header, JobState::Running)
    };
    let end = JobUpdate::end(&request.header, Ok(reply("Hello there.")));
    match &request.payload {
        Payload::Chat(chat) if !chat.stream => vec![end],
        Payload::Chat(_) => vec![
            JobUpdate::new(&request.header, JobState::Running),
            piece("Hello"),
            piece(" there"),
            piece("."),
            end,
        ],
        Payload::Stats => {
            let details = json!({
                "degraded": [], "rss_mib": 2.0, "anonymous_mib": 1.0, "memory_groups_mib": {"text": 1.5, "audio": 0.0},
                "soc_temp_c": 51.5, "ple_rows": 10, "ple_row_reads": 4,
                "queues": {"jobs": 1, "refused_requests": 3, "early_answers": 5, "early_thrown_away": 2},
            });
            let details = details.as_object().cloned().unwrap();
            vec![JobUpdate::end(
                &request.header,
                Ok(Reply {
                    details,
                    ..Reply::default()
                }),
            )]
        }
        Payload::Transcribe(_) => {
            let details = json!({ "duration_s": 40.5, "pieces": [
                {"start_s": 0.0, "end_s": 25.0, "text": "Hello there.", "speech": true},
                {"start_s": 25.0, "end_s": 40.5, "text": "", "speech": false},
            ]});
            let details = details.as_object().cloned().unwrap();
            let reply = Reply {
                details,
                ..reply("Hello there.")
            };
            vec![
                piece("Hello there."),
                JobUpdate::end(&request.header, Ok(reply)),
            ]
        }
        _ => vec![end],
    }
}

/// What is thought before it, in pieces of which the last comes with the end.
pub(super) const THOUGHTS: [&str; 3] = ["Hm, ", "so", " be it."];

/// Thinks, then says "Hello there.".
pub(super) fn thinks(request: &Request) -> Vec<JobUpdate> {
    let update = |text: &str, thoughts: &str| JobUpdate {
        partial: Some(text.to_owned()),
        thoughts: Some(thoughts.to_owned()),
        ..JobUpdate::new(&request.header, JobState::Running)
    };
    let reply = Reply {
        thoughts: Some(THOUGHTS.concat()),
        ..reply("Hello there.")
    };
    let end = JobUpdate::end(&request.header, Ok(reply));
    match &request.payload {
        Payload::Chat(chat) if chat.stream => vec![
            update("", THOUGHTS[0]),
            // As they come to a client that is slow.
            update("Hello", THOUGHTS[1]),
            update(" there.", ""),
            end,
        ],
        _ => vec![end],
    }
}

/// Refuses whatever is asked.
pub(super) fn refusing(error: ErrorBody) -> impl Fn(&Request) -> Vec<JobUpdate> {
    move |request| vec![JobUpdate::end(&request.header, Err(error.clone()))]
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(|_| (), hello)
    }

    pub(super) fn with(
        change: impl FnOnce(&mut HttpServerOptions),
        daemon: impl Fn(&Request) -> Vec<JobUpdate> + Send + Sync + 'static,
    ) -> Bench {
        let mut options = HttpServerOptions {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], free_port())),
            ..HttpServerOptions::default()
        };
        change(&mut options);
        options.check().unwrap();
        let address = options.listen;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reports, mut to_publish) = tokio::sync::mpsc::unbounded_channel();
        let (stop, mut stopped) = tokio::sync::mpsc::channel(1);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let daemon: Box<Daemon> = Box::new(daemon);
        let kept = Arc::clone(&asked);
        let body = move || async move {
            let (requests, mut coming) = tokio::sync::mpsc::channel::<Request>(64);
            let info = Info {
                version: "1.2.3".to_owned(),
                ..Info::default()
            };
            let inside = Inside {
                info,
                card: Arc::new(card()),
                requests,
            };
            let http = Http::start(&options, inside).await.unwrap();
            ready.send(()).unwrap();
            loop {
                tokio::select! {
                    _ = stopped.recv() => break,
                    Some(report) = to_publish.recv() => http.publish(&report),
                    Some(request) = coming.recv() => {
                        for update in daemon(&request) {
                            request.reply.tell(&update);
                        }
                        kept.lock().unwrap().push(request);
                    }
                }
            }
            Box::new(http).stop(Duration::from_secs(1)).await;
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(body());
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Bench {
            address,
            asked,
            reports,
            thread: Some(thread),
            stop,
        }
    }

    pub(super) fn publish(&self, report: Report) {
        self.reports.send(report).unwrap();
    }

    /// What the daemon was asked for so far, the way back taken out.
    pub(super) fn asked(&self) -> Vec<Payload> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|request| request.payload.clone())
            .collect()
    }

    pub(super) fn chats(&self) -> Vec<gemmad::report::chat::Chat> {
        let chat = |payload| match payload {
            Payload::Chat(chat) => Some(*chat),
            _ => None,
        };
        self.asked().into_iter().filter_map(chat).collect()
    }

    pub(super) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends bytes as they are, and reads until the server closes or one answer is whole.
    pub(super) fn raw(&self, bytes: &[u8]) -> Response {
        Response::to(self.address, bytes)
    }

    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        self.raw(&request(method, path, headers, body))
    }

    pub(super) fn get(&self, path: &str) -> Response {
        self.send("GET", path, "", b"")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Response {
        self.send(
            "POST",
            path,
            "Content-Type: application/json\r\n",
            body.to_string().as_bytes(),
        )
    }

    /// A form with these fields.
    pub(super) fn form(&self, path: &str, fields: &[(&str, &[u8])]) -> Response {
        let mut body = Vec::new();
        for (name, value) in fields {
            let file = if *name == "file" {
                "; filename=\"audio.wav\""
            } else {
                ""
            };
            body.extend_from_slice(
                format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                    .as_bytes(),
            );
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xyz--\r\n");
        self.send(
            "POST",
            path,
            "Content-Type: multipart/form-data; boundary=xyz\r\n",
            &body,
        )
    }

    /// Waits until so many jobs have been cancelled.
    pub(super) fn wait_cancelled(&self, n: usize) {
        wait_until("the jobs are cancelled", || {
            let cancels = |payload: &&Payload| matches!(payload, Payload::Cancel(_));
            self.asked().iter().filter(cancels).count() >= n
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.try_send(()).ok();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the door panicked"
            );
        }
    }
}
