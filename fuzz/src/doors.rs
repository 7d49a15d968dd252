//! What comes from the broker, from clients of the Wyoming server and of the HTTP server, and over the bus.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gemmad::publish::http::HttpServerOptions;
use gemmad::publish::mqtt::MqttOptions;
use gemmad::publish::wyoming::WyomingOptions;
use gemmad::publish::{Inside, dbus, http, mqtt, wyoming};
use gemmad::report::{Info, JobUpdate, ModelCard, Payload, Reply, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::unconstrained;

/// What may be told of an input: it is read by a person, and goes back over the network.
const LONGEST_ERROR_BYTES: usize = 4096;

/// Samples of the longest utterance, 30 s.
const LONGEST_UTTERANCE: usize = 30 * 16_000;

/// The first line is a topic below the node's, the rest a payload.
pub(crate) fn mqtt(bytes: &[u8]) {
    let at = bytes.iter().position(|&byte| byte == b'\n');
    let (topic, payload) = bytes.split_at(at.unwrap_or(bytes.len()));
    let Ok(topic) = std::str::from_utf8(topic) else {
        return;
    };
    let payload = payload.get(1..).unwrap_or_default();
    let config = MqttOptions {
        node: "node".to_owned(),
        ..MqttOptions::default()
    };
    match mqtt::read_request(&config, topic, payload) {
        None => {}
        Some(Ok(payload)) => read(&payload),
        Some(Err(error)) => {
            assert!(error.message.len() < LONGEST_ERROR_BYTES + topic.len());
        }
    }
}

/// What came through the reading of a door is complete.
fn read(payload: &Payload) {
    if let Payload::Ask(ask) = payload {
        let media = ask.image.is_some() || ask.audio.is_some();
        assert!(media || !ask.prompt.trim().is_empty());
    }
}

/// The first line is the name of a method, the rest its options as they lie in a message.
pub(crate) fn dbus(bytes: &[u8]) {
    let at = bytes.iter().position(|&byte| byte == b'\n');
    let (method, options) = bytes.split_at(at.unwrap_or(bytes.len()));
    let Ok(method) = std::str::from_utf8(method) else {
        return;
    };
    let options = options.get(1..).unwrap_or_default();
    const MOST: usize = 65_536;
    match dbus::read_options(method, options, MOST) {
        Ok(Some(ask)) => {
            assert!(ask.system.is_none_or(|text| text.len() <= MOST));
            assert!(ask.temperature.is_none_or(f32::is_finite));
        }
        Ok(None) => {}
        Err(told) => assert!(told.len() < LONGEST_ERROR_BYTES + method.len(), "{told}"),
    }
}

/// What a client sends, in one piece and in pieces of one and of seven bytes: it gets the same answers.
pub(crate) fn wyoming(bytes: &[u8]) {
    let whole = converse(bytes, bytes.len().max(1));
    for piece in [1, 7] {
        assert_eq!(converse(bytes, piece), whole, "in pieces of {piece}");
    }
}

/// What a client sends over a connection: whatever it is, the server answers, or closes, and has no fault of its own.
pub(crate) fn http(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let answers = runtime.block_on(async {
        let (requests, mut asked) = mpsc::channel::<Request>(8);
        let inside = Inside {
            info: info(),
            card: Arc::new(ModelCard {
                name: "model".to_owned(),
                family: "Gemma 4".to_owned(),
                hears: true,
                ..ModelCard::default()
            }),
            requests,
        };
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let options = HttpServerOptions::default();
        let serve = http::converse(&options, inside, server);
        let answer = async {
            while let Some(request) = asked.recv().await {
                let text = Some("said".to_owned());
                let reply = Reply {
                    text,
                    ..Reply::default()
                };
                request
                    .reply
                    .tell(&JobUpdate::end(&request.header, Ok(reply)));
            }
            std::future::pending().await
        };
        let ask = async {
            client.write_all(bytes).await.ok();
            client.shutdown().await.ok();
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.ok();
            answers
        };
        tokio::select! {
            ((), answers) = async { tokio::join!(serve, ask) } => answers,
            () = answer => Vec::new(),
        }
    });
    let fault = b"HTTP/1.1 500";
    assert!(!answers.windows(fault.len()).any(|window| window == fault));
}

/// What the client is sent, and why it is let go where it is.
fn converse(bytes: &[u8], piece: usize) -> (String, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut output = Vec::new();
    let config = WyomingOptions::default();
    let input = Pieces { bytes, piece };
    let client = wyoming::converse(&config, info(), input, &mut output, reply);
    let ended = runtime.block_on(unconstrained(client));
    (String::from_utf8(output).unwrap(), ended)
}

/// Bytes that come in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let most = self.piece.min(into.remaining());
        let read = Read::read(&mut self.bytes, into.initialize_unfilled_to(most))?;
        into.advance(read);
        Poll::Ready(Ok(()))
    }
}

/// The daemon's part: a transcript when the sound has ended, an intent at once.
fn reply(request: &Request) -> Option<JobUpdate> {
    let text = match &request.payload {
        Payload::Dictate(dictation) => {
            let (samples, progress) = dictation.sound.state();
            assert!(samples <= LONGEST_UTTERANCE);
            if progress.is_open() {
                return None;
            }
            "heard".to_owned()
        }
        Payload::Recognize { text, .. } => text.clone(),
        _ => return None,
    };
    let reply = Reply {
        text: Some(text),
        ..Reply::default()
    };
    Some(JobUpdate::end(&request.header, Ok(reply)))
}

fn info() -> Info {
    Info {
        schema: 1,
        version: "0".to_owned(),
        started_at: String::new(),
        model: "model".to_owned(),
        quantisation: "bf16".to_owned(),
        matformer: "full".to_owned(),
        matformer_options: Vec::new(),
        context: 4096,
        isa: String::new(),
        threads: 1,
        microphones: Vec::new(),
        speaker: None,
        cameras: Vec::new(),
        commands: Vec::new(),
        config_sha256: String::new(),
    }
}
