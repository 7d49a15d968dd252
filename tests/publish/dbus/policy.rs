//! Who may call and hear what, by the policy that is shipped.

use gemmad::publish::dbus::DbusError;
use gemmad::report::{JobState, Origin, Reply, Report};
use serde_json::json;

use super::service::Service;
use super::{JOB, MANAGER, ROOT, caption, error, voice};
use crate::private_bus::{
    MEMBER, MEMBERS_GROUP, OTHER_MEMBER, OUTSIDER, PrivateBus, is_root, repository,
};

/// The shipped policy, with a group and a user that every Debian has in the places of its own.
fn shipped_policy() -> String {
    let text = std::fs::read_to_string(repository("packaging/dbus/gemmad.conf")).unwrap();
    let policies = text
        .split_once("<busconfig>")
        .unwrap()
        .1
        .split_once("</busconfig>")
        .unwrap()
        .0;
    let (group, user) = ("group=\"gemmad\"", "user=\"gemmad\"");
    assert!(policies.contains(group) && policies.contains(user));
    let policies = policies.replace(group, &format!("group=\"{MEMBERS_GROUP}\""));
    policies.replace(user, "user=\"sys\"")
}

#[test]
fn only_the_group_hears_and_calls() {
    if !is_root() {
        // Another user cannot be played without root: what is left is that the default policy shuts this one out.
        let bus = PrivateBus::like_the_system_bus(&shipped_policy());
        let refused = Service::try_start(&bus.config(), 1)
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(refused, DbusError::NameRefused { .. }),
            "{refused}"
        );
        eprintln!("not root: that two users are kept apart was not tested");
        return;
    }
    let bus = PrivateBus::like_the_system_bus(&shipped_policy());
    let mut service = Service::start(&bus.config());
    let (member, outsider) = (bus.listener(MEMBER), bus.listener(OUTSIDER));
    let (mut asking, mut other, mut shut_out) = (
        bus.caller(MEMBER),
        bus.caller(OTHER_MEMBER),
        bus.caller(OUTSIDER),
    );

    let job = asking.ask("my secret question").unwrap();
    let request = service.request();
    assert!(
        matches!(request.header.origin, Origin::Bus { uid: 1, .. }),
        "{:?}",
        request.header.origin
    );
    service.update(&request, JobState::Running, |update| {
        update.partial = Some("secret piece".to_owned())
    });
    let reply = Reply {
        text: Some("secret answer".to_owned()),
        ..Reply::default()
    };
    service.update(&request, JobState::Done, |update| {
        update.reply = Some(reply)
    });
    service.publish(voice("a secret word"));
    service.publish(caption("a secret sight", Some(b"secret")));
    service.publish(Report::Stopping);
    member.wait_for("a secret word");
    member.wait_for("a secret sight");
    member.wait_for("<'stopping'>");

    // Answers are the asker's alone, whatever the group.
    assert!(!member.text().contains("secret piece") && !member.text().contains("secret answer"));
    assert_eq!(
        error(other.call(&job, JOB, "Result", &json!([]))).0,
        "NotPermitted"
    );
    assert_eq!(
        error(other.call(&job, JOB, "Cancel", &json!([]))).0,
        "NotPermitted"
    );
    assert_eq!(
        asking.call(&job, JOB, "Result", &json!([])).unwrap()["text"],
        "secret answer"
    );
    let mut root = bus.caller(&[]);
    assert_eq!(
        root.call(&job, JOB, "Result", &json!([])).unwrap()["text"],
        "secret answer"
    );
    // Quotas are each user's own.
    for _ in 0..4 {
        asking.ask("again").unwrap();
    }
    assert_eq!(error(asking.ask("again")).0, "QuotaExceeded");
    other.ask("hello").unwrap();

    // Everybody else can neither call, nor look, nor listen.
    let denied = "org.freedesktop.DBus.Error.AccessDenied";
    for (path, interface, method, arguments) in [
        (ROOT, MANAGER, "Ask", json!(["hello", {}])),
        (ROOT, MANAGER, "ListJobs", json!([])),
        (
            ROOT,
            "org.freedesktop.DBus.Introspectable",
            "Introspect",
            json!([]),
        ),
        (
            ROOT,
            "org.freedesktop.DBus.Properties",
            "GetAll",
            json!([MANAGER]),
        ),
        (
            ROOT,
            "org.freedesktop.DBus.ObjectManager",
            "GetManagedObjects",
            json!([]),
        ),
        (
            "/org/gemmad1/camera/porch",
            "org.gemmad1.Camera",
            "Snapshot",
            json!([]),
        ),
        (&job, JOB, "Result", json!([])),
    ] {
        assert_eq!(
            error(shut_out.call(path, interface, method, &arguments)).0,
            denied,
            "{method}"
        );
    }
    // The log is root's.
    let property = [
        "get-property",
        "org.gemmad1",
        "/org/freedesktop/LogControl1",
        "org.freedesktop.LogControl1",
        "LogTarget",
    ];
    assert!(bus.busctl(MEMBER, &property).is_err());
    bus.busctl(&[], &property).unwrap();

    // Nor may others take the name.
    service.stop();
    // This is told to everybody, and last: whatever else the outsider was to hear has come before.
    outsider.wait_for("does not have an owner");
    let heard = outsider.text();
    assert!(!heard.contains("/org/gemmad1"), "{heard}");
    let taken = bus.caller(OUTSIDER).call(
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "RequestName",
        &json!(["org.gemmad1"]),
    );
    assert!(taken.is_err());
}
