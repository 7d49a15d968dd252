//! Servers without room or of others, payloads that are exchanged, clocks that are hours apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use gemmad::fleet::{FleetOptions, Link, Lost, Role, roster};
use gemmad::report::ErrorCode;

use crate::broker::{free_port, wait_until};
use crate::crew::{Hand, ask, options, picture, runtime, source, start_worker};
use crate::nats::Nats;

/// Larger than a message may be, bytes.
const LARGE: usize = 400 << 10;

#[test]
fn a_server_without_room_and_an_account_without_jetstream_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let told = |options: &FleetOptions| {
        runtime.block_on(async {
            let link = Link::open(options, "pi").await.unwrap();
            link.make_streams().await.unwrap_err().to_string()
        })
    };
    let port = free_port();
    let store = dir.path().join("small");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, max_file: 1MB }}\n"
    );
    let small = Nats::start_as(&dir.path().join("small.conf"), port, &text);
    let small = told(&options(&small.url(), Role::Both));
    assert!(
        small.contains("insufficient storage") && small.contains("fleet.store_mib"),
        "{small}"
    );

    let keys = nkeys::KeyPair::new_user();
    let port = free_port();
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?} }}\naccounts {{\n\
         FLEET {{ jetstream: enabled, users: [] }}\nGUESTS {{ users: [ {{ nkey: {} }} ] }}\n}}\n",
        dir.path().join("accounts"),
        keys.public_key()
    );
    let guests = Nats::start_as(&dir.path().join("accounts.conf"), port, &text);
    let seed = dir.path().join("guest.nk");
    std::fs::write(&seed, keys.seed().unwrap()).unwrap();
    let guest = told(&FleetOptions {
        credentials_file: Some(seed),
        ..options(&guests.url(), Role::Both)
    });
    assert!(guest.contains("no JetStream for this account"), "{guest}");
}

#[test]
fn a_store_that_is_full_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    runtime().block_on(async {
        let options = FleetOptions {
            store_mib: 1,
            ..options(&nats.url(), Role::Source)
        };
        let link = Link::keep(&options, "shop").await.unwrap();
        let source = gemmad::fleet::Source::start(&link);
        // In base64 it is more than the store may hold.
        let large = picture(1, "door", "?", 1 << 20);
        let lost = source.carry(&large, &|| false, &|_| ()).await.unwrap_err();
        assert!(
            matches!(&lost, Lost::Full(words) if words.contains("fleet.store_mib")),
            "{lost:?}"
        );
    });
}

#[test]
fn a_server_that_does_not_answer_holds_up_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let runtime = runtime();
    let source = runtime.block_on(source(&nats.url(), "shop"));
    let _worker = runtime.block_on(start_worker(&nats.url(), "upstairs", Duration::ZERO));
    wait_until("the worker is there", || !source.workers().is_empty());
    nats.signal("STOP");
    let is_late = Arc::new(AtomicBool::new(false));
    let carried = |id, late: Arc<AtomicBool>| {
        let source = Arc::clone(&source);
        runtime.spawn(async move {
            let is_over = || late.load(Ordering::SeqCst);
            source.carry(&ask(id, "Slow?"), &is_over, &|_| ()).await
        })
    };
    let (given_up, kept) = (carried(1, Arc::clone(&is_late)), carried(2, Arc::default()));
    std::thread::sleep(Duration::from_secs(1));
    is_late.store(true, Ordering::SeqCst);
    let lost = runtime.block_on(given_up).unwrap().unwrap_err();
    assert!(matches!(lost, Lost::Over(_)), "{lost:?}");
    nats.signal("CONT");
    let outcome = runtime.block_on(kept).unwrap().unwrap();
    assert_eq!(outcome.result.unwrap().text.unwrap(), "Slow? 0");
}

#[test]
fn a_payload_that_was_exchanged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let runtime = runtime();
    let source = runtime.block_on(source(&nats.url(), "shop"));
    let carried = {
        let source = Arc::clone(&source);
        runtime.spawn(async move {
            let job = picture(1, "door", "mine", LARGE);
            source.carry(&job, &|| false, &|_| ()).await
        })
    };
    wait_until("the job is at the server", || {
        let waiting = runtime.block_on(source.link().waiting());
        waiting.is_ok_and(|all| all.iter().any(|(_, jobs)| *jobs == 1))
    });
    let outcome = runtime.block_on(async {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let store = jetstream::new(client).get_object_store("gemmad-home").await;
        let other = b"{\"ask\": {\"prompt\": \"theirs\"}}";
        store.unwrap().put("J1", &mut &other[..]).await.unwrap();
        let _worker = start_worker(&nats.url(), "upstairs", Duration::ZERO).await;
        carried.await.unwrap().unwrap()
    });
    let error = outcome.result.unwrap_err();
    assert!(
        error.code == ErrorCode::Invalid && error.message.contains("SHA-256"),
        "{error:?}"
    );
}

#[test]
fn a_result_of_whoever_has_not_taken_the_job_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let runtime = runtime();
    let source = runtime.block_on(source(&nats.url(), "shop"));
    runtime.block_on(async { source.tell() });
    let carried = {
        let source = Arc::clone(&source);
        runtime.spawn(async move { source.carry(&ask(1, "True?"), &|| false, &|_| ()).await })
    };
    wait_until("the job is at the server", || {
        let waiting = runtime.block_on(source.link().waiting());
        waiting.is_ok_and(|all| all.iter().any(|(_, jobs)| *jobs == 1))
    });
    let outcome = runtime.block_on(async {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let members = roster(source.link(), Duration::from_secs(1)).await.unwrap();
        let to = format!("gemmad.home.to.shop.{}", members[0].session);
        let forged = r#"{"done":{"id":"J1","session":"upstairs","model":"x","reply":{"text":"forged"},"error":null}}"#;
        let answer = client.request(to, forged.into()).await.unwrap();
        assert_eq!(&answer.payload[..], b"no");
        let _worker = start_worker(&nats.url(), "upstairs", Duration::ZERO).await;
        carried.await.unwrap().unwrap()
    });
    assert_eq!(outcome.result.unwrap().text.unwrap(), "True? 0");
}

#[test]
fn clocks_that_are_hours_apart_end_no_job() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let runtime = runtime();
    let source = runtime.block_on(source(&nats.url(), "shop"));
    let _hands = [
        Hand::start_at("+5h", &nats.url(), "early"),
        Hand::start_at("-30h", &nats.url(), "late"),
    ];
    wait_until("both are there", || source.workers().len() == 2);
    let workers = runtime.block_on(async {
        let jobs = (0..20).map(|n| {
            let source = Arc::clone(&source);
            async move {
                let job = gemmad::fleet::Job {
                    patience: Duration::from_secs(10),
                    ..ask(n, "When?")
                };
                let outcome = source.carry(&job, &|| false, &|_| ()).await.unwrap();
                assert_eq!(outcome.result.unwrap().text.unwrap(), "When? 0");
                outcome.worker
            }
        });
        futures_util::future::join_all(jobs).await
    });
    for name in ["early", "late"] {
        assert!(workers.iter().any(|worker| worker == name), "{workers:?}");
    }
}
