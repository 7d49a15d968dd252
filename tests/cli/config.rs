//! config/gemmad.toml is the reference: it names every key, and with its default.

use std::path::Path;

use assert_cmd::Command;
use gemmad::config::Config;
use gemmad::pipeline::SoftTokenPadding;

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gemmad.toml"))
        .unwrap()
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("gemmad.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_reference_has_every_key_with_its_default() {
    assert_eq!(parse(&reference()).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    let known = format!("{:?}", Config::default());
    assert_names_every_key(&known, &reference());
}

/// A key that the program knows and the reference does not would go unnoticed where values are compared: the debug form
/// names them all.
fn assert_names_every_key(known: &str, reference: &str) {
    let keys = known
        .split([' ', ',', '{'])
        .filter_map(|word| word.strip_suffix(':'));
    let sections = [
        "tasks",
        "audio",
        "vision",
        "limits",
        "image",
        "grammar",
        "model",
        "ple",
        "prefix_cache",
        "matformer",
        "threads",
        "microphone",
        "speaker",
        "files",
        "guess",
        "homeassistant",
        "frigate",
        "speech",
        "wake",
        "camera",
        "motion",
        "command",
        "commands",
        "mqtt",
        "dbus",
        "wyoming",
        "http",
        "fleet",
        "queue",
        "degrade",
        "log",
    ];
    for key in keys.filter(|key| !sections.contains(key)) {
        // `type` is a word of Rust.
        let key = if key == "kind" { "type" } else { key };
        assert!(
            reference.contains(&format!("{key} = ")),
            "config/gemmad.toml does not name {key}"
        );
    }
}

/// The section that the reference shows as a comment, for one type of camera, or for none.
fn example(section: &str, kind: &str) -> String {
    let reference = reference();
    let begin = reference.find(&format!("# [[{section}]]")).unwrap();
    let lines = reference[begin..]
        .lines()
        .take_while(|line| line.starts_with('#'));
    let mut text = String::new();
    for line in lines {
        let content = match line.strip_prefix(&format!("#({kind}) ")) {
            Some(content) => content,
            None => line.trim_start_matches("# "),
        };
        // Sentences begin with a capital letter or say more than a value.
        let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_value = content
            .split_once(" = ")
            .is_some_and(|(key, _)| is_key(key));
        let other_device = kind != "v4l2" && content.starts_with("device = ");
        if (content.starts_with('[') || is_value) && !(section == "camera" && other_device) {
            let line = match content.strip_prefix("type = ") {
                Some(_) => format!("type = \"{kind}\""),
                None => content.to_owned(),
            };
            text += &line;
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_examples_of_devices_are_complete_and_hold_the_defaults() {
    let microphone = parse(&example("microphone", "alsa"))
        .unwrap()
        .microphone
        .remove(0);
    let minimal = "[[microphone]]\nid = \"kitchen\"\ndevice = \"plughw:CARD=Device,DEV=0\"\n\
        name = \"Kitchen\"\nwake_phrases = [\"hello board\"]\n\
        wake.models = [\"/etc/gemmad/wake/okay_nabu.json\"]\n\
        wake.stop_models = [\"/etc/gemmad/wake/stop.json\"]";
    assert_eq!(microphone, parse(minimal).unwrap().microphone.remove(0));
    assert_names_every_key(&format!("{microphone:?}"), &reference());

    let own = "soft_tokens = 70\nprompt = \"Describe what the camera sees.\"\nmotion.zones = [[0.0, 0.5, 1.0, 0.5]]";
    for (kind, source) in [
        (
            "v4l2",
            "device = \"/dev/v4l/by-id/usb-Example_Webcam-video-index0\"",
        ),
        (
            "http",
            "url = \"http://127.0.0.1:1984/api/frame.jpeg?src=door\"",
        ),
        ("replay", "directory = \"/var/lib/gemmad/pictures\""),
    ] {
        let camera = parse(&example("camera", kind)).unwrap().camera.remove(0);
        let minimal = format!(
            "[[camera]]\nid = \"door\"\nname = \"Front door\"\ntype = \"{kind}\"\n{source}\n{own}"
        );
        assert_eq!(camera, parse(&minimal).unwrap().camera.remove(0));
        assert_names_every_key(&format!("{camera:?}"), &reference());
    }
}

#[test]
fn devices_that_cannot_be_are_refused() {
    let microphone = "[[microphone]]\nid = \"a\"\ndevice = \"default\"\n";
    let camera = "[[camera]]\nid = \"a\"\ndevice = \"/dev/video0\"\n";
    let http = "[[camera]]\nid = \"a\"\ntype = \"http\"\n";
    for (text, words) in [
        (
            microphone.replace("\"a\"", "\"A b\""),
            ["microphone.id", "a-z"],
        ),
        (
            microphone.replace("\"a\"", &format!("\"{}\"", "a".repeat(65))),
            ["microphone.id", "up to 64"],
        ),
        (
            camera.replace("\"a\"", &format!("\"{}\"", "a".repeat(66_000))),
            ["camera.id", "up to 64"],
        ),
        (microphone.repeat(2), ["twice", "microphone"]),
        (camera.repeat(2), ["twice", "camera"]),
        (
            microphone.replace("default", ""),
            ["microphone `a`", "gemmad devices"],
        ),
        (
            format!("{}type = \"replay\"", microphone.replace("default", "")),
            ["microphone `a`", "path of a file or pipe"],
        ),
        (
            format!("{microphone}trigger = \"wake_phrase\""),
            ["wake_phrase", "wake_phrases = "],
        ),
        (
            format!("{microphone}wake_phrases = [\"!\"]"),
            ["wake_phrases", "no word"],
        ),
        (
            format!("{microphone}wake.stop_models = [\"stop.json\"]\nwake.sensitivity = -400"),
            ["wake.sensitivity", "-1"],
        ),
        (
            format!("{microphone}speech.threshold = 1.0"),
            ["speech.threshold", "between 0 and 1"],
        ),
        (
            format!("{microphone}speech.threshold = nan"),
            ["speech.threshold", "between 0 and 1"],
        ),
        (
            format!("{microphone}speech.early_ms = 5"),
            ["speech.early_ms is 5", "100 to 10000"],
        ),
        (
            format!("{microphone}speech.hangover_ms = 5"),
            ["speech.hangover_ms is 5", "100 to 10000"],
        ),
        (
            format!("{microphone}speech.lead_ms = 10001"),
            ["speech.lead_ms", "10000"],
        ),
        (
            format!("{microphone}speech.max_speech_ms = 30001"),
            ["speech.max_speech_ms", "30000"],
        ),
        (
            format!("{microphone}speech = {{ min_speech_ms = 2000, max_speech_ms = 2000 }}"),
            ["min_speech_ms", "max_speech_ms"],
        ),
        (
            format!("{microphone}speech = {{ lead_ms = 2000, max_speech_ms = 2000 }}"),
            ["lead_ms", "max_speech_ms"],
        ),
        (
            format!("{microphone}speech.listen_timeout_ms = 1"),
            ["listen_timeout_ms", "500"],
        ),
        ("[[camera]]\nid = \"a\"".into(), ["\"v4l2\"", "`device`"]),
        (format!("{camera}type = \"http\""), ["\"http\"", "`"]),
        (
            format!("{camera}url = \"http://cat:s3cret@host\""),
            ["`url`", "does not use it"],
        ),
        (
            "[[camera]]\nid = \"a\"\ntype = \"http\"\nurl = \"ftp://cat:s3cret@host/\"".into(),
            ["url", "https://"],
        ),
        (
            format!("{camera}ca_file = \"a.pem\""),
            ["`ca_file`", "\"http\""],
        ),
        (
            format!("{camera}bearer_token_file = \"a\""),
            ["`bearer_token_file`", "\"http\""],
        ),
        (
            format!("{camera}redirect_hosts = [\"a\"]"),
            ["`redirect_hosts`", "\"http\""],
        ),
        (
            format!("{http}url = \"http://cat:s3cret/@host/\""),
            ["bad port", "%2F"],
        ),
        (
            format!("{http}url = \"http://cat:s3cret@ho st/\""),
            ["bad host", "USER:PASSWORD@ before the host"],
        ),
        (
            format!("{http}url = \"http://cat:s3cret@host/\"\nbearer_token_file = \"a\""),
            ["bearer_token_file", "keep one"],
        ),
        (
            format!("{http}url = \"http://host/\"\nca_file = \"a.pem\""),
            ["ca_file", "https://"],
        ),
        (
            format!("{http}url = \"http://host/\"\nredirect_hosts = [\"http://x\"]"),
            ["redirect_hosts", "HOST:PORT"],
        ),
        (format!("{camera}width = 0"), ["width is 0", "16"]),
        (format!("{camera}height = 99999"), ["height", "16384"]),
        (
            format!("{camera}warm_up_frames = 5000"),
            ["warm_up_frames", "1000"],
        ),
        (format!("{camera}timeout_ms = 0"), ["timeout_ms", "100"]),
        (format!("{camera}fps = 0"), ["fps", "0.01"]),
        (format!("{camera}fps = inf"), ["fps", "60"]),
        (
            format!("{camera}every_s = 10"),
            ["every_s is 10", "cooldown_s (30)"],
        ),
        (
            format!("{camera}motion.area = 0.0"),
            ["motion.area", "0.0001"],
        ),
        (
            format!("{camera}motion.area_off = 0.01"),
            ["motion.area_off", "less than motion.area"],
        ),
        (
            format!("{camera}motion.zones = [[0.5, 0.0, 0.6, 1.0]]"),
            ["motion.zones", "within 0 to 1"],
        ),
        (
            format!("{camera}motion.zones = [[0.5, 0.0, 0.0, 1.0]]"),
            ["motion.zones", "within 0 to 1"],
        ),
        (
            format!("{camera}motion.zones = [[nan, 0.0, 0.5, 1.0]]"),
            ["motion.zones", "within 0 to 1"],
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{text}\n{error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
    }
    parse(&format!("{microphone}{camera}every_s = 30")).unwrap();
}

#[test]
fn a_cameras_source_is_shown_without_its_secrets() {
    let camera = |url: &str| {
        let text = format!("[[camera]]\nid = \"a\"\ntype = \"http\"\nurl = \"{url}\"");
        parse(&text).unwrap().camera.remove(0)
    };
    for (url, shown) in [
        (
            "http://host:1984/a.jpeg?src=x&key=1",
            "http://host:1984/a.jpeg",
        ),
        ("https://cat:s3cret@host", "https://host"),
        ("https://cat:s3@cret@host/a@b?c#d", "https://host/a@b"),
    ] {
        assert_eq!(camera(url).source(), shown);
    }
}

#[test]
fn values_are_taken_and_mistakes_are_told() {
    let config = parse(
        "[audio]\nsoft_token_padding = \"none\"\nbatch_ms = 80\n[vision]\nresolution_px = 256",
    )
    .unwrap();
    assert_eq!(
        config.audio.soft_token_padding,
        Some(SoftTokenPadding::None)
    );
    assert_eq!(
        (config.audio.batch_ms, config.vision.resolution_px),
        (Some(80), Some(256))
    );
    let config = parse(
        "[vision]\nsoft_tokens = 140\n[[camera]]\nid = \"door\"\ndevice = \"/dev/video0\"\nsoft_tokens = 70\n\
         [[camera]]\nid = \"porch\"\ndevice = \"/dev/video1\"",
    )
    .unwrap();
    assert_eq!(config.vision.soft_tokens, Some(140));
    assert_eq!(config.camera[0].soft_tokens, Some(70));
    assert_eq!(config.camera[1].soft_tokens, None);
    for (text, words) in [
        ("[audio]\nbatch_mss = 80", ["batch_mss", "batch_ms"]),
        ("[audio]\nbatch_ms = 50", ["audio.batch_ms", "40"]),
        (
            "[audio]\nbatch_budget_ms = 0",
            ["audio.batch_budget_ms", "1 and 10000"],
        ),
        (
            "[vision]\nresolution_px = \"big\"",
            ["resolution_px", "string"],
        ),
        ("[dbus]\nbus = \"sytem\"", ["dbus.bus", "session"]),
        ("[wyoming]\nmax_clients = 0", ["max_clients", "enabled"]),
        ("[wyoming]\nmax_utterance_s = 31", ["max_utterance_s", "30"]),
        (
            "[wyoming]\nmax_event_bytes = 10",
            ["max_event_bytes", "4096"],
        ),
        (
            "[wyoming]\nlisten = \"localhost\"",
            ["listen", "socket address"],
        ),
        ("[wyoming]\nlanguages = {}", ["wyoming.languages", "en"]),
        (
            "[dbus]\njobs_per_user = 0",
            ["dbus.jobs_per_user", "enabled"],
        ),
        (
            "[dbus]\nattachment_timeout_ms = 60000",
            ["dbus.attachment_timeout_ms", "20000"],
        ),
        (
            "[[camera]]\nid = \"a-b\"\ndevice = \"/dev/video0\"\n[[camera]]\nid = \"a_b\"\ndevice = \"/dev/video1\"",
            ["\"a-b\"", "\"a_b\""],
        ),
        ("[mqtt]\nurl = \"http://x\"", ["mqtt.url", "mqtts://"]),
        ("[fleet]\nurl = \"http://x\"", ["fleet.url", "tls://"]),
        ("[fleet]\ngroup = \"a.b\"", ["fleet.group", "a-z"]),
        ("[fleet]\nca_file = \"c\"", ["fleet.url", "tls://"]),
        ("[fleet]\nreplicas = 6", ["fleet.replicas", "1 to 5"]),
        ("[mqtt]\nnode = \"Küche\"", ["mqtt.node", "a-z"]),
        ("[mqtt]\nbase_topic = \"a/#\"", ["mqtt.base_topic", "#"]),
        (
            "[mqtt]\ndiscovery_prefix = \"\"",
            ["mqtt.discovery_prefix", "topic"],
        ),
        (
            "[mqtt]\nurl = \"mqtts://x\"\nclient_certificate_file = \"c\"",
            ["mqtt.client_key_file", "missing"],
        ),
        ("[mqtt]\nca_file = \"c\"", ["mqtt.url", "mqtts://"]),
        (
            "[mqtt]\npassword_file = \"p\"",
            ["password", "mqtt.username"],
        ),
        (
            "[mqtt]\nmax_payload_bytes = 1",
            ["mqtt.max_payload_bytes", "16384"],
        ),
        ("[mqtt]\noutbox_events = 0", ["mqtt.outbox_events", "1 to"]),
        ("[mqtt]\nkeep_alive_s = 1", ["mqtt.keep_alive_s", "5 to"]),
        (
            "[mqtt]\nspool_max_bytes = 1",
            ["mqtt.spool_max_bytes", "131072"],
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn the_nearest_known_key_is_named() {
    let microphone = "[[microphone]]\nid = \"a\"\ndevice = \"b\"\n";
    for (text, told) in [
        (
            "[modell]\n",
            "line 1, column 2: unknown key `modell`; did you mean `model`?",
        ),
        (
            "[mqtt]\nenabeld = true\n",
            "line 2, column 1: unknown key `enabeld`; did you mean `enabled`?",
        ),
        (
            "[mqtt]\n  user = \"x\"\n",
            "line 2, column 3: unknown key `user`; did you mean `username`?",
        ),
        (
            "[queue]\ndeadline = 3\n",
            "unknown key `deadline`; did you mean `deadline_s`?",
        ),
        (
            "[degrade]\nmax_temperature = 3\n",
            "unknown key `max_temperature`; known here: hot_c, cool_c,",
        ),
        (
            &format!("{microphone}triger = \"voice\"\n"),
            "line 4, column 1: unknown key `triger`; did you mean `trigger`?",
        ),
        (
            &format!("{microphone}trigger = \"push-to-talk\"\n"),
            "unknown value `push-to-talk`; did you mean `push_to_talk`?",
        ),
        (
            &format!("{microphone}[microphone.speech]\nlead = 3\n"),
            "unknown key `lead`; did you mean `lead_ms`?",
        ),
        (
            "[audio]\nbatch_ms = \"x\"\n",
            "line 2, column 12 (batch_ms): invalid type",
        ),
        ("[audio]\nbatch_ms = \n", "line 2, column 12 (batch_ms): "),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(told), "{text}\n{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_command_line_reads_it() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gemmad.toml");
    // The demo model answers this prompt with a command, the default one with a sentence.
    std::fs::write(
        &file,
        "[tasks]\ntranscribe = \"Return the command as JSON:\"\n",
    )
    .unwrap();
    let transcribe = || {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        command
            .arg("transcribe")
            .arg("--model")
            .arg(&demo)
            .arg("--config")
            .arg(&file);
        command.arg(demo.join("heldout/audio/002_combo.wav"));
        command
    };
    let output = transcribe().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.trim(),
        r#"{"action":"turn_off","device":"fan","area":"hallway"}"#
    );

    std::fs::write(&file, "[limits.audio]\nmax_duration_s = 1\n").unwrap();
    let output = transcribe().output().unwrap();
    assert_eq!(output.status.code(), Some(65));

    std::fs::write(&file, "[limit]\n").unwrap();
    let output = transcribe().output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("gemmad.toml") && told.contains("limits"),
        "{told}"
    );
}

/// A list is written with two pairs of brackets, a section with one; both are easily mistaken for the other.
#[test]
fn the_wrong_number_of_brackets_is_told() {
    for (text, line, right) in [
        ("[microphone]\nid = \"a\"\n", 1, "[[microphone]]"),
        (
            "[log]\n\n [ camera ] # the door\nid = \"a\"\n",
            3,
            "[[camera]]",
        ),
        ("[command]\nname = \"a\"\n", 1, "[[command]]"),
        (
            "[microphone]\nid = \"a\"\n[microphone]\nid = \"b\"\n",
            3,
            "[[microphone]]",
        ),
        (
            "[[command]]\nname = \"a\"\n[command.slots]\nname = \"b\"\n",
            3,
            "[[command.slots]]",
        ),
        ("[[mqtt]]\nhost = \"a\"\n", 1, "write [mqtt]"),
        ("[[log]]\npublish = true\n", 1, "write [log]"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(&format!("line {line}, ")), "{text}: {error}");
        assert!(error.contains(right), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
