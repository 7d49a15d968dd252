//! `gemmad doctor` on a real broker and a private bus, with ALSA's `file` plugin as the microphone: what is well, and what is not.

mod brokers;
mod speaker;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::broker::{Broker, Observer, free_port, set_password, wait_until};
use crate::file_pcm::{raw_file, write_config};
use crate::private_bus::PrivateBus;
use crate::process::{Gemmad, heldout};

/// gemmad.toml and what it names.
struct Patient {
    dir: tempfile::TempDir,
}

impl Patient {
    fn new() -> Patient {
        let dir = tempfile::tempdir().unwrap();
        write_config(dir.path(), &["hall"]);
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Patient { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("gemmad.toml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        command
            .args(["doctor", "--config"])
            .arg(self.path("gemmad.toml"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .env("ALSA_CONFIG_PATH", self.path("asound.conf"))
            // Of no concern to anything that the doctor asks.
            .env("http_proxy", "http://127.0.0.1:9")
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("GEMMAD_ISA");
        command
    }

    /// What it found, and its exit code.
    fn examine(&self) -> Findings {
        let output = self.command().arg("--json").output().unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Findings {
            report,
            code: output.status.code(),
        }
    }
}

struct Findings {
    report: Value,
    code: Option<i32>,
}

impl Findings {
    /// The checks of that name.
    fn all(&self, check: &str) -> Vec<&Value> {
        let checks = self.report["checks"].as_array().unwrap();
        checks
            .iter()
            .filter(|found| found["check"] == check)
            .collect()
    }

    /// The one check of that name: it ended like this, and says all of these words.
    #[track_caller]
    fn expect(&self, check: &str, state: &str, words: &[&str]) {
        let found = self.all(check);
        assert_eq!(found.len(), 1, "{check}: {:#}", self.report);
        assert_eq!(found[0]["state"], state, "{:#}", found[0]);
        let text = found[0].to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {:#}", found[0]);
        }
        assert_eq!(
            found[0]["advice"].is_string(),
            state != "ok",
            "{}",
            found[0]
        );
    }

    /// Nothing fails but these.
    #[track_caller]
    fn failing(&self, names: &[&str]) {
        let checks = self.report["checks"].as_array().unwrap();
        let failing = checks.iter().filter(|found| found["state"] == "failing");
        let failing: Vec<&str> = failing
            .map(|found| found["check"].as_str().unwrap())
            .collect();
        assert_eq!(failing, names, "{:#}", self.report);
        let code = if names.is_empty() { 0 } else { 69 };
        assert_eq!(self.code, Some(code));
    }
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// A broker that wants a password, and lets its user have one node's topics.
fn locked_broker(dir: &Path, password: &str, access: &str) -> Broker {
    let users = dir.join("users");
    set_password(&users, password);
    let list = dir.join("access");
    std::fs::write(&list, format!("user gemmad\n{access}\n")).unwrap();
    let settings = format!(
        "allow_anonymous false\npassword_file {}\nacl_file {}\n",
        users.display(),
        list.display()
    );
    Broker::start_with(dir, free_port(), &settings)
}

/// What the user of a node has to be allowed.
const ALLOWED: &str = "topic readwrite gemmad/pi/#\ntopic readwrite homeassistant/device/#\ntopic read homeassistant/status";

#[test]
fn what_is_well_is_told_and_a_running_daemon_is_no_fault() {
    let patient = Patient::new();
    let bus = PrivateBus::open();
    let broker = locked_broker(patient.dir.path(), "right", ALLOWED);
    std::fs::write(patient.path("password"), "right\n").unwrap();
    // Noise, from the first sample on.
    let noise: Vec<u8> = (0..64_000_u32)
        .flat_map(|n| ((n.wrapping_mul(2_654_435_761) >> 20) as i16).to_le_bytes())
        .collect();
    std::fs::write(raw_file(patient.dir.path(), "hall"), noise).unwrap();
    let pictures = patient.path("pictures");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::copy(heldout("images/002_picture.png"), pictures.join("a.png")).unwrap();
    patient.write(&format!(
        "[model]\npath = {:?}\n[matformer]\nslice = \"half\"\n\
         [mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\nusername = \"gemmad\"\npassword_file = {:?}\n\
         [dbus]\nbus = {:?}\n[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {pictures:?}\n",
        demo(),
        broker.port,
        patient.path("password"),
        bus.address()
    ));
    let found = patient.examine();
    found.failing(&[]);
    found.expect("configuration", "ok", &["gemmad.toml"]);
    found.expect("state", "ok", &["state"]);
    found.expect("model", "ok", &["models/demo", "bf16", "half"]);
    found.expect("flash", "ok", &["MB/s", "row of", "page cache"]);
    found.expect("microphone", "ok", &["hall", "dB"]);
    found.expect("camera", "ok", &["porch", "320 x 240"]);
    found.expect("broker", "ok", &["gemmad/pi", "as gemmad"]);
    found.expect("bus", "ok", &["org.gemmad1 is free"]);
    // As good as the machine of the test.
    for check in ["cpu", "memory", "user", "sound cards", "video devices"] {
        assert_eq!(found.all(check).len(), 1, "{:#}", found.report);
    }
    let isa = String::from_utf8(
        Command::new(env!("CARGO_BIN_EXE_gemmad"))
            .arg("--version")
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let isa = isa
        .trim()
        .rsplit([' ', ')'])
        .find(|word| !word.is_empty())
        .unwrap();
    assert!(found.all("cpu")[0]["found"].as_str().unwrap().contains(isa));
    assert!(
        found.all("memory")[0]["found"]
            .as_str()
            .unwrap()
            .contains("the model needs")
    );

    // For people: a line for each, with the same words.
    let output = patient.command().output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.lines().count(),
        found.report["checks"].as_array().unwrap().len(),
        "{text}"
    );
    for line in text.lines() {
        let state = line.split_whitespace().next().unwrap();
        assert!(["ok", "warning"].contains(&state), "{line}");
    }
    assert!(
        text.contains("\nok       bus: org.gemmad1 is free"),
        "{text}"
    );

    // Beside the daemon itself.
    let observer = Observer::start_with(broker.port, &["-u", "gemmad", "-P", "right"]);
    let gemmad = Gemmad::spawn(patient.dir.path(), &[]);
    wait_until("the daemon is ready", || {
        !observer.on("gemmad/pi/health").is_empty()
    });
    let found = patient.examine();
    found.failing(&[]);
    let owner = format!("gemmad (process {})", gemmad.pid());
    found.expect("bus", "ok", &[&owner]);
    found.expect("broker", "ok", &["gemmad/pi"]);
    // Without a bus it is known by its command line.
    let text = std::fs::read_to_string(patient.path("gemmad.toml")).unwrap();
    let quiet = text.replace("[dbus]\n", "[dbus]\nenabled = false\n");
    patient.write(&quiet);
    patient.examine().expect("broker", "ok", &["gemmad/pi"]);
    // Another board with the same node.
    let other = Patient::new();
    other.write(&quiet);
    let found = other.examine();
    found.expect(
        "broker",
        "warning",
        &["a gemmad is connected as gemmad/pi", "mqtt.node"],
    );
    assert!(
        !gemmad.stop().contains("it is tried again"),
        "it kept its connection"
    );
    other.examine().expect("broker", "ok", &["gemmad/pi"]);
    let kept = retained_topics(broker.port, &["-u", "gemmad", "-P", "right"]);
    assert!(
        !kept.iter().any(|topic| topic.contains("doctor")),
        "{kept:?}"
    );
}

/// Topics that the broker keeps something on.
fn retained_topics(port: u16, login: &[&str]) -> Vec<String> {
    let output = Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-t",
            "#",
            "-F",
            "%t",
        ])
        .args(["--retained-only", "-W", "2"])
        .args(login)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_is_wrong_with_the_bus_is_told_with_what_to_do() {
    let patient = Patient::new();
    let examine = |bus: &str| {
        patient.write(&format!(
            "[model]\npath = {:?}\n[dbus]\nbus = {bus:?}\n",
            demo()
        ));
        patient.examine()
    };
    let strict = PrivateBus::like_the_system_bus("");
    let found = examine(&strict.address());
    found.failing(&["bus"]);
    found.expect(
        "bus",
        "failing",
        &["does not let this user own org.gemmad1", "gemmad.conf"],
    );
    let found = examine("unix:path=/nowhere/bus");
    found.expect("bus", "failing", &["cannot connect", "/nowhere/bus"]);
    // A stranger has the name.
    let open = PrivateBus::open();
    let mut stranger = Command::new("/usr/bin/python3")
        .args(["-c", "import dbus, sys, time\nb = dbus.bus.BusConnection(sys.argv[1])\nb.request_name('org.gemmad1')\nprint('ok', flush=True)\ntime.sleep(600)"])
        .arg(open.address())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(stranger.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let found = examine(&open.address());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    found.expect("bus", "warning", &["python3", "end it"]);
}

/// A Gemma 4 is well, too; a slice of it, also for a degraded board, is refused with what helps instead.
#[test]
fn a_model_without_slices_is_well_until_one_is_named() {
    let patient = Patient::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-gemma4");
    let quiet = "[dbus]\nenabled = false\n";
    patient.write(&format!("[model]\npath = {model:?}\n{quiet}"));
    let found = patient.examine();
    found.failing(&[]);
    found.expect(
        "model",
        "ok",
        &["models/demo-gemma4", "bf16", "slices full"],
    );
    for key in ["slice", "degraded_slice"] {
        patient.write(&format!(
            "[model]\npath = {model:?}\n[matformer]\n{key} = \"half\"\n{quiet}"
        ));
        let found = patient.examine();
        found.failing(&["model"]);
        let named = format!("[matformer] {key} = ");
        let helps = [
            "no MatFormer slices",
            "[degrade] threads",
            "[vision]",
            "small",
        ];
        let words = [&[named.as_str()][..], &helps].concat();
        found.expect("model", "failing", &words);
    }
}

#[test]
fn models_devices_and_configurations_that_cannot_be_used_are_told() {
    let patient = Patient::new();
    let quiet = "[dbus]\nenabled = false\n";
    let broken = patient.path("broken");
    std::fs::create_dir(&broken).unwrap();
    for entry in std::fs::read_dir(demo()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), broken.join(entry.file_name())).unwrap();
        }
    }
    let weights = broken.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    patient.write(&format!("[model]\npath = {broken:?}\n{quiet}"));
    let found = patient.examine();
    found.failing(&["model"]);
    found.expect("model", "failing", &["model.safetensors", "gemmad inspect"]);
    assert!(found.all("flash").is_empty());

    std::fs::write(&weights, &bytes).unwrap();
    patient.write(&format!(
        "[model]\npath = {broken:?}\n[matformer]\nslice = \"e9b\"\n{quiet}"
    ));
    patient
        .examine()
        .expect("model", "failing", &["e9b", "half"]);
    patient.write(&format!("[model]\npath = \"/nowhere/model\"\n{quiet}"));
    patient
        .examine()
        .expect("model", "failing", &["/nowhere/model", "put a model there"]);

    // The file of `hall` is not there yet; then it is silent.
    patient.write(&format!(
        "[model]\npath = {broken:?}\n{quiet}[ple]\ncache_dir = {:?}\n[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {:?}\n\
         [[camera]]\nid = \"door\"\ntype = \"http\"\nurl = \"http://127.0.0.1:{}/a.jpg\"\n",
        patient.path("cache"),
        patient.path("state"),
        free_port(),
    ));
    let found = patient.examine();
    found.failing(&["ple cache", "microphone", "camera", "camera"]);
    found.expect("ple cache", "failing", &["cache", "No such file"]);
    found.expect("microphone", "failing", &["does not exist"]);
    let cameras = found.all("camera");
    assert!(
        cameras[0]["found"]
            .as_str()
            .unwrap()
            .contains("holds no .jpg"),
        "{}",
        cameras[0]
    );
    assert!(
        cameras[1]["found"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{}",
        cameras[1]
    );
    std::fs::write(raw_file(patient.dir.path(), "hall"), vec![0; 64_000]).unwrap();
    std::fs::create_dir(patient.path("cache")).unwrap();
    let found = patient.examine();
    found.expect("microphone", "warning", &["digital silence", "alsamixer"]);
    found.expect("ple cache", "ok", &["no copy", "gemmad run makes it"]);
    // Whatever opens the model makes the copy.
    let asked = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["ask", "--max-tokens", "1", "Hello.", "--config"])
        .arg(patient.path("gemmad.toml"))
        .arg("--model")
        .arg(&broken)
        .output()
        .unwrap();
    assert!(asked.status.success());
    let found = patient.examine();
    found.expect("ple cache", "ok", &["cache/", "MB/s"]);

    // Without a configuration, what does not need one is still told.
    patient.write("[mqtt]\nenabeld = true\n");
    let found = patient.examine();
    found.failing(&["configuration"]);
    found.expect(
        "configuration",
        "failing",
        &["`enabeld`; did you mean `enabled`?"],
    );
    assert_eq!((found.all("cpu").len(), found.all("memory").len()), (1, 1));
    assert!(found.all("broker").is_empty());
    let output = patient.command().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "gemmad: failing: configuration\n");
}
