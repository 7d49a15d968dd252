//! nats-server as the broker of a home. The other tests here run with it, too, where `GEMMAD_TEST_BROKER` is `nats` (`make nats-test`).

use gemmad::report::{JobUpdate, Reply};

use super::bench::{Broker, Node, Observer, config, retained, voice};
use super::{publish_states, topics};
use crate::broker::free_port;

#[test]
fn nats_server_keeps_what_lasts_carries_requests_and_may_be_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_nats(dir.path(), free_port());
    let observer = Observer::start(&broker);
    let mut node = Node::start(&config(broker.port));
    node.wait_connected();
    publish_states(&node);
    observer.wait_for_payload("gemmad/pi/mic/kitchen/state", "muted");
    observer.wait_for_payload("gemmad/pi/max_tokens", "256");
    broker.publish("gemmad/pi/request/ask", b"{\"prompt\":\"Why?\"}", &[]);
    let request = node.request();
    let reply = Reply {
        text: Some("Because".to_owned()),
        ..Reply::default()
    };
    node.answer(&request, JobUpdate::end(&request.header, Ok(reply)));
    let response = observer.wait_for("gemmad/pi/response/ask", 1)[0].json();
    assert_eq!(response["data"]["text"], "Because");
    let kept = retained(&broker);
    let kept = topics(&kept);
    for topic in ["state", "info", "mic/kitchen/mute", "camera/kitchen/motion"] {
        assert!(kept.contains(&*format!("gemmad/pi/{topic}")), "{kept:?}");
    }
    assert!(kept.contains("homeassistant/device/gemmad_pi/config"));
    assert!(!kept.contains("gemmad/pi/response/ask"), "{kept:?}");

    broker.kill();
    node.publish(voice("1", "turn on the lamp"));
    broker.restart();
    node.wait_empty();
    let observer = Observer::start(&broker);
    // It remembers nothing, and is told all that lasts again.
    observer.wait_for_payload("gemmad/pi/state", "online");
    observer.wait_for_payload("gemmad/pi/mic/kitchen/state", "muted");
    node.kill();
    observer.wait_for_payload("gemmad/pi/state", "offline");
}
