//! A broker of the test's own, which answers what it is told to answer, and what gemmad makes of one that leaves things unanswered.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gemmad::publish::mqtt::MqttOptions;

use super::bench::{Node, config, wait_until};
use super::faults::event;

/// What a connection is answered.
#[derive(Clone, Copy)]
pub(crate) struct Manners {
    /// Events that are acknowledged; all else that is published is, if one is.
    pub(crate) events: usize,
    /// Whether subscriptions are.
    pub(crate) subscriptions: bool,
}

impl Manners {
    pub(crate) const GOOD: Manners = Manners {
        events: usize::MAX,
        subscriptions: true,
    };
}

/// What came on a connection.
#[derive(Default)]
struct Came {
    ids: Vec<String>,
    pings: usize,
    ended: bool,
}

/// MQTT 3.1.1 as far as gemmad needs it, without passing anything on.
pub(crate) struct Silent {
    pub(crate) port: u16,
    connections: Arc<Mutex<Vec<Came>>>,
}

impl Silent {
    /// Its manners on the first connection, the second, …; the last ones hold for all that follow.
    pub(crate) fn start(manners: &[Manners]) -> Silent {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<Mutex<Vec<Came>>> = Arc::default();
        let (into, manners) = (Arc::clone(&connections), manners.to_vec());
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let manners = manners[n.min(manners.len() - 1)];
                into.lock().unwrap().push(Came::default());
                let into = Arc::clone(&into);
                std::thread::spawn(move || {
                    serve(stream, manners, &into, n);
                    into.lock().unwrap()[n].ended = true;
                });
            }
        });
        Silent { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Ids of the events that came on a connection.
    pub(crate) fn ids(&self, n: usize) -> Vec<String> {
        let connections = self.connections.lock().unwrap();
        connections
            .get(n)
            .map_or(Vec::new(), |came| came.ids.clone())
    }
}

/// A packet: its first byte, and what follows its length.
fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

fn serve(mut stream: TcpStream, manners: Manners, into: &Mutex<Vec<Came>>, n: usize) -> Option<()> {
    let mut left = manners.events;
    loop {
        let (kind, body) = packet(&mut stream)?;
        match kind >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
            3 if kind & 6 != 0 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(length);
                let mut acknowledged = manners.events > 0;
                if topic.ends_with(b"/mic/kitchen/event") {
                    let event: serde_json::Value = serde_json::from_slice(&rest[2..]).unwrap();
                    let id = event["id"].as_str().unwrap().to_owned();
                    into.lock().unwrap()[n].ids.push(id);
                    acknowledged = left > 0;
                    left = left.saturating_sub(1);
                }
                if acknowledged {
                    stream.write_all(&[0x40, 2, rest[0], rest[1]]).ok()?;
                }
            }
            8 if manners.subscriptions => {
                let mut topics = &body[2..];
                let mut codes = Vec::new();
                while !topics.is_empty() {
                    let length = usize::from(u16::from_be_bytes([topics[0], topics[1]]));
                    topics = &topics[2 + length + 1..];
                    codes.push(1);
                }
                let length = u8::try_from(2 + codes.len()).unwrap();
                stream.write_all(&[0x90, length, body[0], body[1]]).ok()?;
                stream.write_all(&codes).ok()?;
            }
            12 => {
                into.lock().unwrap()[n].pings += 1;
                stream.write_all(&[0xd0, 0]).ok()?;
            }
            14 => return None,
            _ => {}
        }
    }
}

#[test]
fn a_broker_that_answers_pings_but_acknowledges_nothing_is_given_up_and_nothing_is_lost() {
    let broker = Silent::start(&[
        Manners {
            events: 0,
            ..Manners::GOOD
        },
        Manners::GOOD,
    ]);
    let node = Node::start(&MqttOptions {
        keep_alive_s: 5,
        ack_timeout_s: 7,
        ..config(broker.port)
    });
    for n in 0..5 {
        node.publish(event(n));
    }
    node.wait_empty();
    let expected: Vec<_> = (0..5).map(|n| format!("event-{n:04}")).collect();
    assert_eq!(broker.ids(0), expected[..1]);
    assert_eq!(broker.ids(1), expected);
    assert_eq!(node.mqtt().health().reconnects, 1);
    let connections = broker.connections.lock().unwrap();
    assert!(connections[0].pings > 0 && connections[0].ended);
    assert!(!connections[1].ended);
}

#[test]
fn a_broker_that_never_answers_the_subscription_is_given_up() {
    let broker = Silent::start(&[
        Manners {
            subscriptions: false,
            ..Manners::GOOD
        },
        Manners::GOOD,
    ]);
    let node = Node::start(&MqttOptions {
        ack_timeout_s: 1,
        ..config(broker.port)
    });
    wait_until("it connects again", || broker.connections() == 2);
    node.wait_connected();
    node.publish(event(0));
    node.wait_empty();
    assert_eq!(broker.ids(1), ["event-0000"]);
}
