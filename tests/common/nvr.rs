//! A stub of Frigate's API, and messages in the shape in which Frigate publishes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may fail this way"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::broker::free_port;
use crate::process::heldout;

pub(crate) const PICTURE: &str = "002_picture.png";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) token: Option<String>,
    pub(crate) body: String,
    /// How it was answered; 0: never.
    pub(crate) status: u16,
}

impl Asked {
    pub(crate) fn is_picture(&self) -> bool {
        self.line.starts_with("GET ")
    }

    /// Of the event that it asks about.
    pub(crate) fn id(&self) -> &str {
        self.line.split('/').nth(3).unwrap_or_default()
    }
}

pub(crate) type Answer = (u16, &'static str, Vec<u8>);

/// The API, on one port for all its lives.
pub(crate) struct Nvr {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    life: Mutex<Option<(Arc<AtomicBool>, JoinHandle<()>)>>,
}

impl Nvr {
    pub(crate) fn new() -> Nvr {
        Nvr {
            port: free_port(),
            asked: Arc::default(),
            life: Mutex::default(),
        }
    }

    /// It comes up, and answers as `answer` says, each client for itself; where that says nothing, never.
    pub(crate) fn start(&self, answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        let (all, answer) = (Arc::clone(&self.asked), Arc::new(answer));
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &all, &*answer));
            }
        });
        *self.life.lock().unwrap() = Some((is_over, thread));
    }

    /// It goes away.
    pub(crate) fn stop(&self) {
        let (is_over, thread) = self.life.lock().unwrap().take().unwrap();
        is_over.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        thread.join().unwrap();
    }

    pub(crate) fn asked(&self, line: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.line.starts_with(line))
            .cloned()
            .collect()
    }

    /// What was written into events, by their ids.
    pub(crate) fn descriptions(&self) -> Vec<(String, Value)> {
        let mut written = self.asked("POST /api/events/");
        written.retain(|asked| asked.status == 200);
        written
            .iter()
            .map(|asked| {
                (
                    asked.id().to_owned(),
                    serde_json::from_str(&asked.body).unwrap(),
                )
            })
            .collect()
    }
}

/// Everybody may see the picture and write what is in it.
pub(crate) fn open_to_all(asked: &Asked) -> Option<Answer> {
    Some(match asked.is_picture() {
        true => (200, "content-type: image/jpeg\r\n", picture()),
        false => (
            200,
            "content-type: application/json\r\n",
            b"{\"success\": true}".to_vec(),
        ),
    })
}

fn serve(
    mut stream: &TcpStream,
    all: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Option<Answer>,
) {
    let Some(mut asked) = read(stream) else {
        return;
    };
    let answer = answer(&asked);
    asked.status = answer.as_ref().map_or(0, |(status, ..)| *status);
    all.lock().unwrap().push(asked);
    let Some((status, headers, body)) = answer else {
        // It is let go when the other side gives up.
        stream.read_to_end(&mut Vec::new()).ok();
        return;
    };
    let head = format!(
        "HTTP/1.1 {status} It\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok();
    stream.write_all(&body).ok();
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut token, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line: line.trim().to_owned(),
        token,
        body: String::from_utf8(body).ok()?,
        status: 0,
    })
}

pub(crate) fn picture() -> Vec<u8> {
    std::fs::read(heldout("images").join(PICTURE)).unwrap()
}

/// A message of `frigate/events`, with all keys that `TrackedObject.to_dict` of Frigate (e3fa701, of July 2026) gives.
pub(crate) fn message(kind: &str, id: &str, more: &[(&str, Value)]) -> String {
    let mut after = json!({
        "id": id, "camera": "Front", "frame_time": 1_764_527_000.5, "snapshot": {"frame_time": 1_764_526_999.1, "box": [424, 500, 536, 712],
        "area": 23744, "region": [264, 450, 667, 853], "score": 0.84, "attributes": [], "current_estimated_speed": 0, "velocity_angle": 0,
        "path_data": [], "recognized_license_plate": null, "recognized_license_plate_score": null}, "snapshot_clean": true,
        "label": "person", "sub_label": null, "top_score": 0.84, "false_positive": false, "start_time": 1_764_526_990.0, "end_time": null,
        "score": 0.8, "computed_score": 0.82, "box": [424, 500, 536, 712], "area": 23744, "ratio": 0.5, "region": [264, 450, 667, 853],
        "active": true, "stationary": false, "motionless_count": 0, "position_changes": 2, "current_zones": [], "entered_zones": ["porch"],
        "has_clip": false, "has_snapshot": true, "attributes": {}, "current_attributes": [], "pending_loitering": false,
        "max_severity": "alert", "current_estimated_speed": 0, "average_estimated_speed": 0, "velocity_angle": 0,
        "path_data": [[[0.48, 0.71], 1_764_526_991.2]], "recognized_license_plate": null, "detector": "ov"
    });
    for (key, value) in more {
        after[*key] = value.clone();
    }
    json!({"type": kind, "before": after, "after": after}).to_string()
}
