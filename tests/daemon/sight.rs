//! From a camera to a caption.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use gemmad::features::image::{ImageLimits, RgbImage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::broker::wait_until;
use crate::private_bus::{PrivateBus, repository};
use crate::process::{Bench, expected, heldout};
use crate::voice::signals;

/// As events have it.
fn digest(picture: &[u8]) -> String {
    let digest = Sha256::digest(picture);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_picture_becomes_a_caption_when_asked_for_and_when_its_time_comes() {
    let bench = Bench::new();
    let bus = PrivateBus::open();
    let monitor = bus.monitor();
    let mut cameras = String::new();
    for (id, file, more) in [
        ("porch", "002_picture.png", ""),
        (
            "drive",
            "005_combo.png",
            "every_s = 2\ncooldown_s = 1\npublish_image = false",
        ),
    ] {
        let directory = bench.dir.path().join(id);
        std::fs::create_dir(&directory).unwrap();
        std::fs::copy(heldout("images").join(file), directory.join(file)).unwrap();
        cameras += &format!(
            "[[camera]]\nid = \"{id}\"\ntype = \"replay\"\ndirectory = {directory:?}\n{more}\n[camera.motion]\nenabled = false\n"
        );
    }
    bench.write_config(Some(&bus.address()), "vision_idle_unload_s = 1", &cameras);
    let gemmad = bench.start();
    let vision = |health: &Value| health["group_states"]["vision"] == "resident";
    assert!(!vision(&bench.wait_for("health", 1)[0].json()));
    let before = gemmad.mapped_weights();

    let response = bench.request("describe", "t1", json!({"camera": "porch"}));
    assert_eq!(response["status"], "ok", "{response}");
    let wanted = expected("images", "002_picture.png", "caption");
    assert_eq!(response["data"]["text"], wanted.as_str());
    let seen = bench.wait_for("camera/porch/event", 1)[0].clone();
    assert!(!seen.retain && seen.qos == 1);
    let event = seen.json();
    assert_eq!(event["event_type"], "caption", "{event}");
    assert_eq!(
        (&event["caption"], &event["short"]),
        (&json!(wanted), &json!(wanted))
    );
    assert_eq!(
        (&event["trigger"], &event["id"]),
        (&json!("request"), &response["id"])
    );
    assert!(event["timing"]["encode_ms"].as_f64().unwrap() > 0.0);
    assert!(event["frame_ts"].as_str().unwrap() <= event["ts"].as_str().unwrap());
    let picture = bench.wait_for("camera/porch/image", 1)[0].clone();
    assert!(picture.is_retained());
    assert_eq!(event["image_sha256"], digest(&picture.payload).as_str());
    let file = std::fs::read(heldout("images/002_picture.png")).unwrap();
    assert_eq!(picture.payload, file, "the picture that was described");
    let caption = bench.wait_for("camera/porch/caption", 1)[0].clone();
    assert!(caption.is_retained());
    assert_eq!(caption.json()["id"], event["id"]);

    // The other camera is looked at every two seconds.
    let scheduled = bench.wait_for("camera/drive/event", 2);
    let wanted = expected("images", "005_combo.png", "caption");
    for seen in &scheduled {
        let event = seen.json();
        assert_eq!(
            (&event["trigger"], &event["caption"]),
            (&json!("schedule"), &json!(wanted))
        );
    }
    assert_ne!(scheduled[0].json()["id"], scheduled[1].json()["id"]);
    assert!(bench.on("camera/drive/image").is_empty());
    bench.wait_health("the vision tower is resident", vision);
    assert!(gemmad.mapped_weights() > before);

    // Not any more, by a switch; then the tower goes.
    bench.publish("camera/drive/captions/set", "OFF");
    bench.wait_for_payload("camera/drive/captions", "OFF");
    bench.wait_health("the vision tower is gone", |health| !vision(health));
    assert_eq!(gemmad.mapped_weights(), before);
    // What is asked for still comes, on the camera's own topic too.
    bench.publish("camera/drive/describe", "");
    wait_until("a caption by request", || {
        let last = bench.on("camera/drive/event");
        last.last()
            .is_some_and(|seen| seen.json()["trigger"] == "request")
    });

    monitor.wait_for("\"member\":\"Caption\"");
    let told = signals(&monitor.text(), "Caption");
    let porch = told.iter().find(|signal| signal[0] == "porch").unwrap();
    assert_eq!(porch[1]["id"]["data"], event["id"]);
    assert_eq!(porch[1]["caption"]["data"], event["caption"]);

    // A picture that is none, and a camera that is not there.
    let unknown = bench.request("describe", "t2", json!({"camera": "cellar"}));
    assert_eq!(unknown["error"]["code"], "not_found", "{unknown}");
    let damaged = bench.request("describe", "t3", json!({"image": "Zm9vYmE="}));
    assert_eq!(damaged["error"]["code"], "invalid_image", "{damaged}");
    // A number of soft tokens that no model knows.
    for (kind, name, mut request) in [
        ("describe", "t5", json!({"camera": "porch"})),
        ("ask", "t6", json!({"prompt": "Who is there?"})),
    ] {
        request["soft_tokens"] = json!(71);
        let refused = bench.request(kind, name, request);
        assert_eq!(refused["error"]["code"], "invalid", "{refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("soft_tokens"), "{message}");
    }
    bench.publish("camera/porch/enabled/set", "OFF");
    bench.wait_for_payload("camera/porch/state", "disabled");
    let disabled = bench.request("describe", "t4", json!({"camera": "porch"}));
    assert_eq!(disabled["error"]["code"], "busy", "{disabled}");
    bench.assert_schemas();
    let log = gemmad.stop();
    assert!(
        !log.contains("bicycle") && !log.contains("standing"),
        "{log}"
    );
}

/// What a webcam gives whose driver leaves the usual Huffman tables out, as the rules for its class of devices allow.
fn without_huffman_tables(jpeg: &[u8]) -> Vec<u8> {
    let mut bare = jpeg[..2].to_vec();
    let mut at = 2;
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != 0xc4 {
            bare.extend(&jpeg[at..end]);
        }
        at = end;
    }
    bare.extend(&jpeg[at..]);
    assert!(bare.len() + 300 < jpeg.len(), "there were tables");
    bare
}

#[test]
fn a_webcam_s_bare_pictures_are_described_and_a_failure_is_told_as_one() {
    let bench = Bench::new();
    let file = heldout("images").join("002_picture.png");
    let seen = RgbImage::open(&file, &ImageLimits::default()).unwrap();
    let mut jpeg = Vec::new();
    let (width, height) = (seen.width_px as u16, seen.height_px as u16);
    jpeg_encoder::Encoder::new(&mut jpeg, 95)
        .encode(&seen.pixels, width, height, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    let directory = bench.dir.path().join("webcam");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("a.jpg"), without_huffman_tables(&jpeg)).unwrap();
    let camera = |id: &str, more: &str| {
        format!(
            "[[camera]]\nid = \"{id}\"\ntype = \"replay\"\ndirectory = {directory:?}\n{more}\n[camera.motion]\nenabled = false\n"
        )
    };
    // More is asked than the model can read.
    let long = format!("prompt = \"{}\"", "word ".repeat(20_000));
    let cameras = [camera("webcam", ""), camera("asked", &long)].concat();
    bench.write_config(None, "", &cameras);
    let gemmad = bench.start();
    let response = bench.request("describe", "t1", json!({"camera": "webcam"}));
    assert_eq!(response["status"], "ok", "{response}");
    let wanted = expected("images", "002_picture.png", "caption");
    assert_eq!(response["data"]["text"], wanted.as_str());
    let response = bench.request("describe", "t2", json!({"camera": "asked"}));
    assert_eq!(response["status"], "error", "{response}");
    let log = gemmad.stop();
    let told = |level: &str, words: &str| {
        log.lines()
            .any(|line| line.contains(level) && line.contains(words))
    };
    assert!(told("INFO", "] described a picture"), "{log}");
    assert!(told("WARN", "] could not describe a picture: "), "{log}");
    assert!(!log.contains("described a picture: "), "{log}");
}

/// What the command line says of each picture, in their order.
fn by_command_line(pictures: &[PathBuf]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["describe", "--model"])
        .arg(repository("models/demo"))
        .args(pictures)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_held_out_picture_gets_the_caption_that_the_command_line_gives_it() {
    let bench = Bench::new();
    let directory = heldout("images");
    let entries = std::fs::read_dir(&directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut pictures: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|is| is == "png"))
        .collect();
    pictures.sort();
    assert_eq!(pictures.len(), 24);
    let wanted = by_command_line(&pictures);
    let camera = format!(
        "[[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {directory:?}\n[camera.motion]\nenabled = false\n"
    );
    bench.write_config(None, "", &camera);
    let gemmad = bench.start();
    // The camera shows the next picture each time that it is asked, and begins anew after the last: the first may have been shown
    // when it was opened. Which one it was, the event tells.
    let mut captions = BTreeMap::new();
    for n in 0..2 * pictures.len() {
        let response = bench.request("describe", &format!("t{n}"), json!({"camera": "porch"}));
        assert_eq!(response["status"], "ok", "{response}");
        let event = bench.wait_for("camera/porch/event", n + 1)[n].json();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        let caption = captions.insert(text("image_sha256"), text("caption"));
        assert!(caption.is_none_or(|before| before == event["caption"]));
        if captions.len() == pictures.len() {
            break;
        }
    }
    let mut right = 0;
    for (path, wanted) in pictures.iter().zip(&wanted) {
        let published = &captions[&digest(&std::fs::read(path).unwrap())];
        assert_eq!(published, wanted, "{}", path.display());
        let file = path.file_name().unwrap().to_str().unwrap();
        right += usize::from(*published == expected("images", file, "caption"));
    }
    // As good as the reference, within one: tests/cli/describe.rs.
    assert!(right >= 22, "{right} of 24 are right");
    bench.assert_schemas();
    gemmad.stop();
}
