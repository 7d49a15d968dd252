//! How much of the time there is a connection to a mosquitto that restarts again and again.

use std::time::{Duration, Instant};

use super::bench::{Broker, Node, config};

/// Restarts in each row.
const RESTARTS: u32 = 6;

/// A table for people, which takes four minutes: `cargo test --test publish restarts -- --ignored --nocapture`. What it shows is asserted
/// without a clock beside the back-off.
#[test]
#[ignore = "measures by the clock"]
#[allow(clippy::print_stdout, reason = "a table")]
fn share_of_time_connected() {
    let rows = [10, 20, 40].map(|every_s| {
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let mut broker = Broker::start(dir.path());
            let node = Node::start(&config(broker.port));
            node.wait_connected();
            let (mut connected, mut samples) = (0_u32, 0_u32);
            for _ in 0..RESTARTS {
                let next = Instant::now() + Duration::from_secs(every_s);
                broker.kill();
                broker.restart();
                while Instant::now() < next {
                    samples += 1;
                    connected += u32::from(node.mqtt().health().connected);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            (every_s, f64::from(connected) / f64::from(samples))
        })
    });
    for row in rows {
        let (every_s, share) = row.join().unwrap();
        println!("| {every_s} s | {:.1} % |", 100.0 * share);
    }
}
