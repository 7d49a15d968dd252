//! A bus that is slow, lost, taken or not there.

use gemmad::publish::dbus::{DbusError, DbusOptions};
use gemmad::report::{Cancel, Payload};

use super::service::Service;
use super::voice;
use crate::private_bus::{PrivateBus, wait_for};

#[test]
fn a_slow_bus_does_not_hold_up_the_daemon() {
    let bus = PrivateBus::open();
    let service = Service::start(&bus.config());
    let listener = bus.listener(&[]);
    // gdbus says whose the name is a moment before it lets that one's signals pass.
    wait_for("the first", || {
        service.publish(voice("the first"));
        listener.text().contains("the first").then_some(())
    });
    bus.signal("STOP");
    // More than the socket takes: each of these is some KiB.
    let filler = "x".repeat(4096);
    for number in 0..5_000 {
        service.publish(voice(&format!("{filler} {number}")));
    }
    service.publish(voice("the last"));
    bus.signal("CONT");
    listener.wait_for("the last");
    let heard = listener.text().matches("Events.Transcript").count();
    assert!((256..5_000).contains(&heard), "{heard} of 5002 were told");
    assert!(service.bus().alive());
}

#[test]
fn a_lost_bus_is_noticed_and_a_new_one_used() {
    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    assert!(service.bus().alive());
    let taken = Service::try_start(&bus.config(), 1)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(taken, DbusError::NameTaken { .. }), "{taken}");
    bus.caller(&[]).ask("one").unwrap();
    service.request();
    assert!(
        matches!(service.request().payload, Payload::Cancel(_)),
        "the caller has left"
    );
    // Nobody is there any more to be answered.
    let mut staying = bus.caller(&[]);
    staying.ask("two").unwrap();
    let request = service.request();
    drop(bus);
    let Payload::Cancel(Cancel::Job(job)) = service.request().payload else {
        panic!("no cancel")
    };
    assert_eq!(*job, request.header.id);
    wait_for("the loss of the bus", || {
        (!service.bus().alive()).then_some(())
    });
    service.publish(voice("into the void"));
    service.stop();

    let bus = PrivateBus::open();
    let mut service = Service::start(&bus.config());
    bus.caller(&[]).ask("hello").unwrap();
    service.request();
    service.stop();
    let gone = bus.busctl(&[], &["status", "org.gemmad1"]);
    assert!(gone.is_err(), "{gone:?}");
    let nowhere = DbusOptions {
        bus: "unix:path=/nowhere/bus".to_owned(),
        ..DbusOptions::default()
    };
    let told = Service::try_start(&nowhere, 1)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("dbus.bus") && told.contains("/nowhere/bus"),
        "{told}"
    );
}
