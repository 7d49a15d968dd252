//! The camera's thread on a directory of held-out pictures and on a small HTTP server.

mod http;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemmad::capture::{Camera, EventSink};
use gemmad::config::Config;
use gemmad::features::image::{ImageLimits, RgbImage};
use gemmad::media::{
    CameraControl, CameraEvent, CaptionTrigger, CaptureEvent, DeviceState, VideoFrame,
};

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(120);

fn heldout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/demo/heldout/images")
        .join(name)
}

fn start(text: &str, enabled: bool, captions: bool) -> (Camera, Receiver<CameraEvent>) {
    let text = format!("[[camera]]\nid = \"door\"\n{text}");
    let mut config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let (tell, events) = channel();
    let sink: EventSink = Box::new(move |event| match event {
        CaptureEvent::Camera { id, event } => {
            assert_eq!(id, "door");
            tell.send(event).is_ok()
        }
        CaptureEvent::Microphone { .. } | CaptureEvent::Speaker(_) => {
            panic!("a camera tells of another device")
        }
    });
    let config = config.camera.remove(0);
    let camera = Camera::start(config, ImageLimits::default(), enabled, captions, sink).unwrap();
    (camera, events)
}

/// The first event that fits, and what came before it.
fn until(
    events: &Receiver<CameraEvent>,
    fits: impl Fn(&CameraEvent) -> bool,
) -> (CameraEvent, Vec<CameraEvent>) {
    let mut before = Vec::new();
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(event) if fits(&event) => return (event, before),
            Ok(event) => before.push(event),
            Err(error) => panic!("{error}: only {before:?} came"),
        }
    }
}

fn state(events: &Receiver<CameraEvent>, wanted: DeviceState) {
    until(
        events,
        |e| matches!(e, CameraEvent::State(state) if *state == wanted),
    );
}

fn offline(events: &Receiver<CameraEvent>, words: &str) -> String {
    let fits = |event: &CameraEvent| matches!(event, CameraEvent::State(DeviceState::Offline { reason }) if reason.contains(words));
    match until(events, fits).0 {
        CameraEvent::State(DeviceState::Offline { reason }) => reason,
        _ => unreachable!("it fits"),
    }
}

fn snapshot(
    camera: &Camera,
    events: &Receiver<CameraEvent>,
    number: u64,
) -> Result<VideoFrame, String> {
    camera.control(CameraControl::Snapshot(number));
    let answers = |event: &CameraEvent| match event {
        CameraEvent::Frame { request, .. } => *request == Some(number),
        CameraEvent::FrameFailed { request, .. } => *request == number,
        _ => false,
    };
    match until(events, answers).0 {
        CameraEvent::Frame { frame, trigger, .. } => {
            assert_eq!(trigger, CaptionTrigger::Request);
            Ok(frame)
        }
        CameraEvent::FrameFailed { reason, .. } => Err(reason),
        _ => unreachable!("it answers"),
    }
}

/// A directory with these held-out pictures, named in this order.
fn directory(names: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        std::fs::copy(heldout(name), directory.path().join(format!("{i}.png"))).unwrap();
    }
    directory
}

#[test]
fn requests_get_the_next_picture_again_and_again() {
    let names = ["001_combo.png", "002_picture.png"];
    let directory = directory(&names);
    std::fs::write(directory.path().join("notes.txt"), "no picture").unwrap();
    let (camera, events) = start(
        &format!(
            "type = \"replay\"\ndirectory = \"{}\"\nmotion.enabled = false",
            directory.path().display()
        ),
        true,
        true,
    );
    // The first picture was taken to see whether the camera is there.
    state(&events, DeviceState::Online);
    for (number, name) in [(7, names[1]), (8, names[0]), (9, names[1])] {
        let frame = snapshot(&camera, &events, number).unwrap();
        assert_eq!(frame.encoded, std::fs::read(heldout(name)).unwrap());
        let image = RgbImage::open(&heldout(name), &ImageLimits::default()).unwrap();
        assert_eq!(
            (frame.width_px as usize, frame.height_px as usize),
            (image.width_px, image.height_px)
        );
    }

    camera.control(CameraControl::Enable(false));
    state(&events, DeviceState::Off);
    let reason = snapshot(&camera, &events, 10).unwrap_err();
    assert!(reason.contains("disabled"), "{reason}");
    camera.control(CameraControl::Enable(true));
    state(&events, DeviceState::Online);
    snapshot(&camera, &events, 11).unwrap();
    camera.stop();
    while events.recv_timeout(PATIENCE).is_ok() {}
}

#[test]
fn motion_is_told_and_described_once() {
    // The same scene, and the same scene with a square in it.
    let directory = directory(&["001_combo.png", "001_combo.png"]);
    let still = RgbImage::open(&heldout("001_combo.png"), &ImageLimits::default()).unwrap();
    let mut moved = still.clone();
    let (width, height) = (moved.width_px, moved.height_px);
    for y in height / 4..height / 2 {
        for x in width / 4..width / 2 {
            for channel in &mut moved.pixels[(y * width + x) * 3..][..3] {
                *channel = if *channel > 127 { 0 } else { 255 };
            }
        }
    }
    let (camera, events) = start(
        &format!(
            "type = \"replay\"\ndirectory = \"{}\"\nfps = 20\nmotion = {{ off_delay_s = 1 }}",
            directory.path().display()
        ),
        true,
        true,
    );
    state(&events, DeviceState::Online);
    // Put in at once, so that no half a file is seen.
    let new = directory.path().join("1.new");
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&moved.pixels)
        .unwrap();
    std::fs::write(&new, &file).unwrap();
    std::fs::rename(&new, directory.path().join("1.png")).unwrap();

    let (started, before) = until(&events, |e| matches!(e, CameraEvent::MotionStarted(_)));
    assert!(before.is_empty(), "{before:?}");
    let CameraEvent::MotionStarted(extent) = started else {
        unreachable!("it fits")
    };
    let [x, y, w, h] = extent.bounds;
    for (found, true_value) in [
        (x, 0.25),
        (y, 0.25),
        (w, 0.25),
        (h, 0.25),
        (extent.area, 0.0625),
    ] {
        assert!((found - true_value).abs() < 0.03, "{extent:?}");
    }
    let (frame, before) = until(&events, |e| matches!(e, CameraEvent::Frame { .. }));
    assert!(before.is_empty(), "{before:?}");
    let CameraEvent::Frame {
        frame,
        trigger,
        motion,
        request,
    } = frame
    else {
        unreachable!("it fits")
    };
    assert_eq!(
        (trigger, motion, request),
        (CaptionTrigger::Motion, Some(extent), None)
    );
    assert_eq!(frame.encoded, file);

    // Nothing moves any more: the next event is the end, and no second picture was sent.
    std::fs::copy(heldout("001_combo.png"), &new).unwrap();
    std::fs::rename(&new, directory.path().join("1.png")).unwrap();
    let (_, before) = until(&events, |e| matches!(e, CameraEvent::MotionEnded));
    assert!(before.is_empty(), "{before:?}");
    camera.stop();
}

#[test]
fn the_schedule_gives_pictures_unless_captions_are_off() {
    let directory = directory(&["001_combo.png"]);
    let text = format!(
        "type = \"replay\"\ndirectory = \"{}\"\nmotion.enabled = false\nevery_s = 1\ncooldown_s = 0",
        directory.path().display()
    );
    let (camera, events) = start(&text, true, false);
    state(&events, DeviceState::Online);
    assert!(events.recv_timeout(Duration::from_secs(3)).is_err());
    camera.control(CameraControl::Captions(true));
    for _ in 0..2 {
        let (event, before) = until(&events, |e| matches!(e, CameraEvent::Frame { .. }));
        assert!(before.is_empty(), "{before:?}");
        assert!(matches!(
            event,
            CameraEvent::Frame {
                trigger: CaptionTrigger::Schedule,
                motion: None,
                request: None,
                ..
            }
        ));
    }
    camera.stop();
}

#[test]
fn a_directory_that_goes_comes_back() {
    let directory = directory(&["001_combo.png"]);
    let (path, aside) = (
        directory.path().join("0.png"),
        directory.path().join("0.aside"),
    );
    let text = format!(
        "type = \"replay\"\ndirectory = \"{}\"",
        directory.path().display()
    );
    let (camera, events) = start(&text, true, true);
    state(&events, DeviceState::Online);
    std::fs::rename(&path, &aside).unwrap();
    offline(&events, "holds no .jpg");
    let reason = snapshot(&camera, &events, 1).unwrap_err();
    assert!(reason.contains("holds no .jpg"), "{reason}");
    std::fs::rename(&aside, &path).unwrap();
    // Whoever asks need not wait for the next try.
    snapshot(&camera, &events, 2).unwrap();

    // A damaged picture now and then is dropped; nothing else is a failure.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let reason = offline(&events, "no picture that can be used");
    assert!(
        reason.contains("cut off") || reason.contains("damaged"),
        "{reason}"
    );
    camera.stop();
}

/// Answers every request with what `answer` gives; the requests' heads are kept.
struct Server {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

fn serve() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server {
        address: listener.local_addr().unwrap().to_string(),
        heads: Arc::default(),
        answer: Arc::default(),
        asked: Arc::default(),
    };
    let (heads, answer, asked) = (
        server.heads.clone(),
        server.answer.clone(),
        server.asked.clone(),
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            heads.lock().unwrap().push(String::from_utf8(head).unwrap());
            let answer = answer.lock().unwrap().clone();
            // The client may have had enough.
            stream.write_all(&answer).ok();
            asked.fetch_add(1, Ordering::SeqCst);
        }
    });
    server
}

fn ok(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_still_over_http_is_fetched_and_its_failures_are_told_without_secrets() {
    let server = serve();
    let picture = std::fs::read(heldout("003_combo.png")).unwrap();
    *server.answer.lock().unwrap() = ok("image/png", &picture);
    let text = format!(
        "type = \"http\"\nurl = \"http://cat:s3cret@{}/api/frame.jpeg?token=hush\"\nmotion.enabled = false\ntimeout_ms = 2000",
        server.address
    );
    let (camera, events) = start(&text, true, true);
    state(&events, DeviceState::Online);
    assert_eq!(snapshot(&camera, &events, 1).unwrap().encoded, picture);
    let head = server.heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with("GET /api/frame.jpeg?token=hush HTTP/1.1"),
        "{head}"
    );
    // Nobody asked for the password.
    assert!(!head.to_lowercase().contains("authorization"), "{head}");

    let huge = ok(
        "image/png",
        &vec![0; ImageLimits::default().max_file_bytes + 1],
    );
    let cut = ok("image/png", &picture);
    for (number, (answer, words)) in (2..).zip([
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            "401",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            "404",
        ),
        (ok("text/html", b"<html>a page</html>"), "text/html"),
        (huge, "max_file_bytes"),
        (b"220 mail.example.org ESMTP\r\n".to_vec(), "not HTTP"),
        (cut[..cut.len() - 100].to_vec(), "ends early"),
    ]) {
        *server.answer.lock().unwrap() = answer;
        let reason = snapshot(&camera, &events, number).unwrap_err();
        assert!(reason.contains(words), "{words}: {reason}");
        assert!(
            reason.contains(&server.address)
                && !reason.contains("s3cret")
                && !reason.contains("hush"),
            "{reason}"
        );
    }
    *server.answer.lock().unwrap() = ok("image/png", &picture);
    assert_eq!(snapshot(&camera, &events, 20).unwrap().encoded, picture);
    camera.stop();
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    // It accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "type = \"http\"\nurl = \"http://{}/\"\ntimeout_ms = 300",
        silent.local_addr().unwrap()
    );
    let (camera, events) = start(&text, true, true);
    offline(&events, "in time");
    camera.stop();

    drop(silent);
    let (camera, events) = start(&text, true, true);
    offline(&events, "cannot be reached");
    camera.stop();
}

#[test]
fn a_device_that_is_not_there_is_told() {
    let (camera, events) = start("device = \"/dev/v4l/by-id/none\"", true, true);
    let reason = offline(&events, "does not exist");
    assert!(reason.contains("/dev/v4l/by-id/none"), "{reason}");
    camera.stop();
    let (camera, events) = start("device = \"/dev/null\"", true, true);
    offline(&events, "/dev/null");
    camera.stop();
}
