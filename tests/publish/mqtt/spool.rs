//! Events on disk: what outlives a process that is killed, a torn line, a disk that was full, and what does not come again.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use gemmad::publish::mqtt::MqttOptions;

use super::bench::{Broker, Node, Observer, config, free_port, voice, wait_until};
use super::faults::{event, ids};
use super::silent::{Manners, Silent};

fn lines(spool: &Path) -> usize {
    let text = std::fs::read(spool).unwrap_or_default();
    text.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .count()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("event-{n:04}")).collect()
}

#[test]
fn the_spool_outlives_a_killed_process_and_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let port = free_port();
    let config = MqttOptions {
        spool_file: Some(spool.clone()),
        ..config(port)
    };
    let node = Node::start(&config);
    for n in 0..20 {
        node.publish(event(n));
    }
    wait_until("the events are on disk", || lines(&spool) == 20);
    node.kill();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&spool)
        .unwrap();
    file.write_all(br#"{"topic":"gemmad/pi/mic/kitchen/event","payl"#)
        .unwrap();
    drop(file);

    let node = Node::start(&config);
    assert_eq!(node.mqtt().health().queued, 20);
    node.publish(event(20));
    wait_until("the torn line is gone", || lines(&spool) == 21);
    node.kill();
    let broker = Broker::start_with(dir.path(), port, "allow_anonymous true\n");
    let observer = Observer::start(&broker);
    let node = Node::start(&config);
    observer.wait_for("gemmad/pi/mic/kitchen/event", 21);
    assert_eq!(ids(&observer), numbers(0, 21));
    node.wait_empty();
    wait_until("the spool is empty", || lines(&spool) == 0);
    node.stop();
}

#[test]
fn a_full_spool_keeps_the_newest_events() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let config = MqttOptions {
        spool_file: Some(spool.clone()),
        spool_max_bytes: 131_072,
        ..config(free_port())
    };
    let node = Node::start(&config);
    // Each takes more than 1 KiB: 600 of them do not fit.
    for n in 0..600 {
        node.publish(voice(&format!("event-{n:04}"), &"word ".repeat(200)));
        if n % 50 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    wait_until("the last is on disk", || {
        std::fs::read_to_string(&spool).is_ok_and(|text| text.contains("event-0599"))
    });
    node.kill();
    assert!(std::fs::metadata(&spool).unwrap().len() <= 131_072);
    let node = Node::start(&config);
    let kept = node.mqtt().health().queued;
    assert!((20..600).contains(&kept), "{kept}");
    node.kill();
}

/// A line of the spool, as it is written.
fn line(n: usize) -> Vec<u8> {
    let payload = format!("{{\"id\":\"event-{n:04}\",\"text\":\"{{\\\"topic\\\":\"}}");
    let record = serde_json::json!({"topic": "gemmad/pi/mic/kitchen/event", "payload": payload});
    let mut line = serde_json::to_vec(&record).unwrap();
    line.push(b'\n');
    line
}

#[test]
fn a_torn_line_swallows_neither_the_next_nor_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let port = free_port();
    let config = MqttOptions {
        spool_file: Some(spool.clone()),
        ..config(port)
    };
    let torn = |n: usize| line(n)[..40].to_vec();
    // As a power cut leaves them: half a line with the next behind it, blocks that were never written, no end.
    let whole = line(5);
    let parts = [
        line(0),
        torn(1),
        line(2),
        vec![0; 4096],
        line(3),
        b"\n{}\n\xff\xfe\n".to_vec(),
        line(4),
        whole[..whole.len() - 1].to_vec(),
    ];
    std::fs::write(&spool, parts.concat()).unwrap();
    let node = Node::start(&config);
    assert_eq!(node.mqtt().health().queued, 5);
    node.publish(event(6));
    let text = || String::from_utf8_lossy(&std::fs::read(&spool).unwrap()).into_owned();
    wait_until("the next is on disk", || text().contains("event-0006"));
    node.kill();
    // A process that is killed in the middle of a line leaves the next one's end behind it at worst.
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&spool)
        .unwrap();
    file.write_all(&torn(7)).unwrap();
    drop(file);
    let node = Node::start(&config);
    assert_eq!(node.mqtt().health().queued, 6);
    node.publish(event(8));
    wait_until("it is written over", || text().contains("event-0008"));
    node.kill();
    let broker = Broker::start_with(dir.path(), port, "allow_anonymous true\n");
    let observer = Observer::start(&broker);
    let node = Node::start(&config);
    node.wait_empty();
    observer.wait_for("gemmad/pi/mic/kitchen/event", 7);
    let expected = [0, 2, 3, 4, 5, 6, 8].map(|n| format!("event-{n:04}"));
    assert_eq!(ids(&observer), expected);
    node.stop();
}

#[test]
fn what_the_broker_acknowledged_does_not_come_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let broker = Silent::start(&[
        Manners {
            events: 4,
            ..Manners::GOOD
        },
        Manners::GOOD,
    ]);
    let config = MqttOptions {
        spool_file: Some(spool.clone()),
        ..config(broker.port)
    };
    let node = Node::start(&config);
    for n in 0..10 {
        node.publish(event(n));
    }
    // The fifth is on its way; those behind it wait for its acknowledgement.
    wait_until("four are acknowledged", || {
        broker.ids(0).len() == 5 && node.mqtt().health().queued == 6
    });
    wait_until("and struck out", || {
        let text = std::fs::read_to_string(&spool).unwrap();
        text.lines().filter(|line| line.starts_with('{')).count() == 6
    });
    node.kill();
    let node = Node::start(&config);
    node.wait_empty();
    // Of the fifth nobody can know whether it came: MQTT says no more. No other comes twice.
    assert_eq!(broker.ids(0), numbers(0, 5));
    assert_eq!(broker.ids(1), numbers(4, 10));
    wait_until("the spool is empty", || {
        std::fs::metadata(&spool).unwrap().len() == 0
    });
    node.stop();
}

static LOG: Mutex<String> = Mutex::new(String::new());

/// Keeps what is logged.
struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap().push_str(&record.args().to_string());
    }

    fn flush(&self) {}
}

/// Runs itself a second time, with a limit on the size of files: the kernel refuses then as it does on a full disk, in the middle of a
/// line, and a raised limit is room that was made.
#[test]
fn eleven_heard_on_a_full_disk_are_eleven_when_there_is_room() {
    const CHILD: &str = "GEMMAD_TEST_FULL_DISK";
    if std::env::var_os(CHILD).is_none() {
        let limited = "trap '' XFSZ; ulimit -S -f 4; exec \"$0\" --exact \"$1\" --nocapture";
        let name = "mqtt::spool::eleven_heard_on_a_full_disk_are_eleven_when_there_is_room";
        let output = Command::new("bash")
            .args(["-c", limited])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    log::set_boxed_logger(Box::new(Keep)).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let logged = |words: &str| LOG.lock().unwrap().contains(words);
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let config = MqttOptions {
        spool_file: Some(spool.clone()),
        ..config(free_port())
    };
    let node = Node::start(&config);
    let heard = |n: usize| voice(&format!("event-{n:04}"), &"word ".repeat(150));
    for n in 0..11 {
        node.publish(heard(n));
    }
    wait_until("the disk is full", || logged("cannot write"));
    assert!((1..11).contains(&lines(&spool)));
    assert_eq!(node.mqtt().health().queued, 11);
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(raised.unwrap().success());
    wait_until("there is room", || logged("can be written again"));
    wait_until("all are on disk", || lines(&spool) == 11);
    node.kill();
    let text = std::fs::read_to_string(&spool).unwrap();
    for (n, line) in text.lines().enumerate() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let payload = record["payload"].as_str().unwrap();
        let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
        assert_eq!(payload["id"], format!("event-{n:04}"));
    }
    let node = Node::start(&config);
    assert_eq!(node.mqtt().health().queued, 11);
    node.kill();
}
