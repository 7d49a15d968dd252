//! From a camera to a caption.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::broker::wait_until;
use crate::private_bus::PrivateBus;
use crate::process::{Bench, expected, heldout};
use crate::voice::signals;

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
    assert!(picture.retain);
    let digest: String = Sha256::digest(&picture.payload)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(event["image_sha256"], digest.as_str());
    let file = std::fs::read(heldout("images/002_picture.png")).unwrap();
    assert_eq!(picture.payload, file, "the picture that was described");
    let caption = bench.wait_for("camera/porch/caption", 1)[0].clone();
    assert!(caption.retain);
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
