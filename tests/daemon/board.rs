//! What the board and its devices do to the daemon: heat, memory pressure, something that moves, a microphone that goes.

use std::path::Path;

use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::private_bus::PrivateBus;
use crate::process::{Bench, expected, heldout};

/// A replay camera on a front door: a package lies there; then for a moment a person stands there too.
fn front_door(bench: &Bench) -> String {
    let directory = bench.dir.path().join("door");
    std::fs::create_dir(&directory).unwrap();
    for n in 0..15 {
        let picture = if n < 12 {
            "014_picture.png"
        } else {
            "002_picture.png"
        };
        let from = heldout("images").join(picture);
        std::fs::copy(from, directory.join(format!("{n:02}.png"))).unwrap();
    }
    format!(
        "[[camera]]\nid = \"door\"\ntype = \"replay\"\ndirectory = {directory:?}\ncooldown_s = 3\n\
         [camera.motion]\noff_delay_s = 1\n"
    )
}

#[test]
fn what_moves_before_a_camera_is_described() {
    let bench = Bench::new();
    let bus = PrivateBus::open();
    let monitor = bus.monitor();
    let camera = front_door(&bench);
    bench.write_config(Some(&bus.address()), "vision_idle_unload_s = 600", &camera);
    let gemmad = bench.start();
    bench.wait_for_payload("camera/door/motion", "OFF");
    bench.wait_for_payload("camera/door/motion", "ON");
    let event = bench.wait_for("camera/door/event", 1)[0].json();
    assert_eq!(
        (&event["event_type"], &event["trigger"]),
        (&json!("caption"), &json!("motion")),
        "{event}"
    );
    // The picture in which it moved, not the one before.
    let wanted = expected("images", "002_picture.png", "caption");
    assert_eq!(event["caption"], wanted.as_str());
    let area = event["motion_area"].as_f64().unwrap();
    assert!(area > 0.0 && area < 0.8, "{event}");
    let bounds: Vec<f64> = event["motion_box"]
        .as_array()
        .unwrap()
        .iter()
        .map(|side| side.as_f64().unwrap())
        .collect();
    assert!(bounds[2] > 0.0 && bounds[0] + bounds[2] <= 1.0, "{event}");
    let file = std::fs::read(heldout("images/002_picture.png")).unwrap();
    assert_eq!(bench.wait_for("camera/door/image", 1)[0].payload, file);
    bench.wait_health("the vision tower is resident", |health| {
        health["group_states"]["vision"] == "resident"
    });
    // It ends, and begins again.
    wait_until("motion begins twice", || {
        let motion = bench.on("camera/door/motion");
        motion.iter().filter(|seen| seen.payload == b"ON").count() >= 2
    });
    bench.wait_for("camera/door/event", 2);
    monitor.wait_for("\"member\":\"Caption\"");
    bench.assert_schemas();
    gemmad.stop();
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_hot_board_and_one_short_of_memory_do_less_and_say_so() {
    let bench = Bench::new();
    let board = bench.dir.path().join("board");
    let heat =
        |millidegrees: &str| write(&board, "sys/class/thermal/thermal_zone0/temp", millidegrees);
    let pressure = |percent: &str| {
        let text = format!("some avg10={percent} avg60=0.00 avg300=0.00 total=0\n");
        write(&board, "proc/pressure/memory", &text);
    };
    write(&board, "proc/loadavg", "1.25 1.00 1.00 1/100 1000\n");
    heat("45000\n");
    pressure("0.00");
    let camera = front_door(&bench);
    bench.write_config(
        None,
        "",
        &format!("[matformer]\ndegraded_slice = \"half\"\n[log]\npublish = true\n{camera}"),
    );
    // The tests' own configuration switches both limits off.
    let file = bench.dir.path().join("gemmad.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("hot_c = 0\nmemory_pressure_percent = 0\n", "");
    assert!(text.contains("[degrade]\n["), "{text}");
    std::fs::write(&file, text).unwrap();
    let gemmad = bench.start_with(&["--board-root", board.to_str().unwrap()]);
    let first = bench.wait_for("health", 1)[0].json();
    assert_eq!(
        (&first["soc_temp_c"], &first["load_1m"]),
        (&json!(45.0), &json!(1.25)),
        "{first}"
    );
    assert_eq!(
        (&first["state"], &first["degraded"]),
        (&json!("ready"), &json!([]))
    );
    bench.wait_for("camera/door/event", 1);
    let whole = bench.on("matformer").last().unwrap().text().to_owned();
    assert_ne!(whole, "half");

    let degraded = |wanted: Value| {
        bench.wait_health(&format!("degraded: {wanted}"), |health| {
            health["degraded"] == wanted
        })
    };
    heat("85500\n");
    let health = degraded(json!(["the board is too hot"]));
    assert_eq!(
        (&health["state"], &health["soc_temp_c"]),
        (&json!("degraded"), &json!(85.5))
    );
    bench.wait_for_payload("matformer", "half");
    gemmad.wait_log("fewer threads, no captions of motion");
    let line = bench.wait_for("log", 1)[0].clone();
    assert!(!line.retain, "a line of the log is of the moment");
    assert_eq!(line.json()["level"], "warn");
    assert!(
        line.text().contains("the board is too hot"),
        "{}",
        line.text()
    );
    // What moves is not described any more; what is asked for is, by the smaller model.
    let dropped = |health: &Value| health["queues"]["dropped_captions"].as_u64().unwrap();
    let before = dropped(&health);
    let stats =
        |n: usize| bench.request("stats", &format!("s{n}"), json!({}))["data"]["details"].clone();
    wait_until("captions of motion are left out", || {
        dropped(&stats(bench.on("response/stats").len())) > before
    });
    let described = bench.on("camera/door/event").len();
    let answer = bench.request("describe", "d", json!({"camera": "door"}));
    assert_eq!(
        (&answer["status"], &answer["data"]["matformer"]),
        (&json!("ok"), &json!("half")),
        "{answer}"
    );
    let events = bench.wait_for("camera/door/event", described + 1);
    assert_eq!(events[described].json()["trigger"], "request");

    pressure("35.00");
    degraded(json!([
        "the board is too hot",
        "the board is short of memory"
    ]));
    heat("60000\n");
    degraded(json!(["the board is short of memory"]));
    pressure("0.50");
    let health = degraded(json!([]));
    assert_eq!(health["state"], "ready");
    wait_until("the whole model answers again", || {
        bench.on("matformer").last().unwrap().text() == whole
    });
    gemmad.wait_log("the board is well again");
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_microphone_that_goes_comes_back_and_is_heard_again() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    let file = raw_file(bench.dir.path(), "hall");
    bench.write_config(
        None,
        "",
        "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n",
    );
    // It is not plugged in.
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "offline");
    let health = bench.request("stats", "s", json!({}));
    let last_error = health["data"]["details"]["last_error"].as_str().unwrap();
    assert!(
        last_error.contains("hall: ALSA device `hall` does not exist"),
        "{last_error}"
    );
    write_speech(&file, "009_both.wav");
    let said = expected("audio", "009_both.wav", "transcript");
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["text"], said.as_str(), "{event}");
    let online = || {
        bench
            .on("mic/hall/state")
            .iter()
            .filter(|seen| seen.payload == b"online")
            .count()
    };
    assert_eq!(online(), 1);

    // Pulled out while it is closed: the plugin hides what happens to an open file.
    bench.publish("mic/hall/mute/set", "ON");
    bench.wait_for_payload("mic/hall/state", "muted");
    bench.wait_for_payload("mic/hall/transcript", "");
    std::fs::remove_file(&file).unwrap();
    bench.publish("mic/hall/mute/set", "OFF");
    wait_until("it is gone", || {
        bench.on("mic/hall/state").last().unwrap().payload == b"offline"
    });
    write_speech(&file, "003_both.wav");
    let said = expected("audio", "003_both.wav", "transcript");
    let event = bench.wait_for("mic/hall/event", 2)[1].json();
    assert_eq!(event["text"], said.as_str(), "{event}");
    assert_eq!(online(), 2);
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_property_that_was_set_is_announced_as_it_is_then() {
    let bench = Bench::new();
    let bus = PrivateBus::open();
    let camera = front_door(&bench);
    bench.write_config(Some(&bus.address()), "", &camera);
    let gemmad = bench.start();
    bench.wait_for_payload("camera/door/state", "online");
    let monitor = bus.monitor();
    let mut caller = bus.caller(&[]);
    let (path, interface) = ("/org/gemmad1/camera/door", "org.gemmad1.Camera");
    let set = json!([interface, "Enabled", ["b", false]]);
    caller
        .call(path, "org.freedesktop.DBus.Properties", "Set", &set)
        .unwrap();
    assert_eq!(caller.property(path, interface, "Enabled").unwrap(), false);
    bench.wait_for_payload("camera/door/state", "disabled");
    monitor.wait_for("\"State\":{\"type\":\"s\",\"data\":\"disabled\"}");
    let lines = monitor.text();
    let told: Vec<Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["member"] == "PropertiesChanged")
        .map(|message| message["payload"]["data"][1]["Enabled"]["data"].clone())
        .filter(|enabled| !enabled.is_null())
        .collect();
    assert!(
        !told.is_empty() && told.iter().all(|enabled| *enabled == false),
        "{told:?}"
    );
    gemmad.stop();
}
