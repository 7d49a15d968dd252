//! Two nodes of one name at one broker.

use gemmad::publish::mqtt::MqttOptions;

use super::bench::{Broker, Node, Observer, config, wait_until};
use super::faults::{event, ids};

#[test]
fn two_nodes_of_one_name_both_say_so_and_stop_the_fight() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let one = Node::start(&config(broker.port));
    observer.wait_for("gemmad/pi/instance", 1);
    let other = Node::start(&config(broker.port));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for node in [&one, &other] {
        wait_until("it says so", || node.mqtt().health().namesake.is_some());
        let who = node.mqtt().health().namesake.unwrap();
        assert!(who.contains(host.trim()), "{who}");
        assert!(who.contains("2026-11-23T15:40:00+01:00"), "{who}");
    }
    // Each came back once to see who is there, or twice where they met on the way; a fight would go on without an end.
    let connections = observer.wait_for("gemmad/pi/instance", 4).len();
    assert!(connections <= 6, "{connections}");
    // Whoever has the connection publishes; the other one's events wait.
    one.publish(event(1));
    other.publish(event(2));
    observer.wait_for("gemmad/pi/mic/kitchen/event", 1);
    let waiting = one.mqtt().health().queued + other.mqtt().health().queued;
    assert!(waiting + ids(&observer).len() >= 2);
    one.kill();
    other.kill();
}

#[test]
fn a_restart_is_no_namesake_and_nodes_of_other_topics_are_not_pushed_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let node = Node::start(&config(broker.port));
    observer.wait_for("gemmad/pi/instance", 1);
    node.kill();
    let node = Node::start(&config(broker.port));
    observer.wait_for("gemmad/pi/instance", 2);
    // The same name, below other topics.
    let elsewhere = Node::start(&MqttOptions {
        base_topic: "other/house".to_owned(),
        ..config(broker.port)
    });
    observer.wait_for("other/house/pi/instance", 1);
    for node in [&node, &elsewhere] {
        node.publish(event(1));
        node.wait_empty();
        let health = node.mqtt().health();
        assert_eq!((health.reconnects, health.namesake), (0, None));
    }
    // A broker that comes back without its memory tells of nobody else.
    broker.kill();
    broker.restart();
    for node in [&node, &elsewhere] {
        wait_until("it is back", || node.mqtt().health().reconnects == 1);
        node.publish(event(2));
        node.wait_empty();
        assert_eq!(node.mqtt().health().namesake, None);
    }
    node.stop();
    elsewhere.stop();
}
