//! Servers and workers that are not as they should be.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gemmad::fleet::{FleetOptions, Kind, Link, Lost, Role, Source, roster};

use crate::broker::{free_port, wait_until};
use crate::crew::{ask, options, picture, runtime, source, start_worker};
use crate::nats::Nats;

#[test]
fn what_is_wrong_with_a_server_is_told_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let told = |options: &FleetOptions| {
        runtime.block_on(async {
            let link = match Link::open(options, "pi").await {
                Ok(link) => link,
                Err(error) => return error.to_string(),
            };
            link.make_streams().await.unwrap_err().to_string()
        })
    };
    let closed = format!("nats://127.0.0.1:{}", free_port());
    let away = told(&options(&closed, Role::Both));
    assert!(
        away.contains(&closed) && away.contains("cannot be reached"),
        "{away}"
    );

    let port = free_port();
    let config = dir.path().join("plain.conf");
    let plain = Nats::start_as(&config, port, &format!("listen: \"127.0.0.1:{port}\"\n"));
    let without = told(&options(&plain.url(), Role::Both));
    assert!(
        without.contains("no JetStream") && without.contains("-js"),
        "{without}"
    );

    let keys = nkeys::KeyPair::new_user();
    let locked = Nats::start_with(
        dir.path(),
        free_port(),
        &format!(
            "authorization {{ users = [ {{ nkey: {} }} ] }}",
            keys.public_key()
        ),
    );
    let stranger = told(&options(&locked.url(), Role::Both));
    assert!(stranger.contains("credentials_file"), "{stranger}");
    let seed = dir.path().join("pi.nk");
    let with = |text: &str| {
        std::fs::write(&seed, text).unwrap();
        FleetOptions {
            credentials_file: Some(seed.clone()),
            ..options(&locked.url(), Role::Both)
        }
    };
    let nonsense = told(&with("my password\n"));
    assert!(
        nonsense.contains("fleet.credentials_file") && nonsense.contains("NKey"),
        "{nonsense}"
    );
    let other = told(&with(&nkeys::KeyPair::new_user().seed().unwrap()));
    assert!(other.contains("does not let this board in"), "{other}");
    runtime.block_on(async {
        let known = with(&(keys.seed().unwrap() + "\n"));
        let link = Link::open(&known, "pi").await.unwrap();
        link.make_streams().await.unwrap();
        assert_eq!(link.waiting().await.unwrap().len(), Kind::ALL.len());
    });
    let absent = FleetOptions {
        credentials_file: Some(dir.path().join("absent")),
        ..options(&locked.url(), Role::Both)
    };
    assert!(told(&absent).contains("absent"));
}

#[test]
fn of_a_cameras_pictures_the_newest_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    runtime().block_on(async {
        let source = source(&nats.url(), "shop").await;
        // Nobody works yet.
        let older = picture(1, "door", "older", 10);
        let newer = picture(2, "door", "newer", 10);
        let other = picture(3, "yard", "other", 10);
        let carry = async |job| source.carry(job, &|| false, &|_| ()).await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            carry(&newer).await
        };
        let worker = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            start_worker(&nats.url(), "upstairs", Duration::ZERO).await
        };
        let (older, newer, other, _worker) =
            tokio::join!(carry(&older), later, carry(&other), worker);
        assert_eq!(older.unwrap_err(), Lost::Replaced);
        for (outcome, text) in [(newer, "newer 10"), (other, "other 10")] {
            let outcome = outcome.unwrap();
            assert_eq!(
                (outcome.worker.as_str(), outcome.model.as_str()),
                ("upstairs", "waits")
            );
            assert_eq!(outcome.result.unwrap().text.unwrap(), text);
        }
    });
}

#[test]
fn a_queue_that_is_full_refuses_and_what_is_cancelled_is_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    runtime().block_on(async {
        let source = source(&nats.url(), "shop").await;
        let over = std::sync::atomic::AtomicBool::new(false);
        let is_over = || over.load(std::sync::atomic::Ordering::SeqCst);
        let jobs: Vec<_> = (0..257).map(|n| ask(n, "?")).collect();
        let outcomes = Mutex::new(Vec::new());
        let all = futures_util::future::join_all(jobs.iter().map(|job| async {
            let lost = source.carry(job, &is_over, &|_| ()).await.unwrap_err();
            outcomes.lock().unwrap().push(lost);
        }));
        let waiting = async || source.link().waiting().await.unwrap()[1].1;
        let end = async {
            while outcomes.lock().unwrap().is_empty() || waiting().await < 256 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            over.store(true, std::sync::atomic::Ordering::SeqCst);
        };
        tokio::join!(all, end);
        assert_eq!(waiting().await, 0);
        let outcomes = outcomes.into_inner().unwrap();
        let full = outcomes
            .iter()
            .filter(|lost| matches!(lost, Lost::Full(words) if words.contains("no room")));
        assert_eq!(full.count(), 1, "{:?}", &outcomes[0]);
        assert!(
            outcomes[1..]
                .iter()
                .all(|lost| matches!(lost, Lost::Over(_)))
        );
    });
}

#[test]
fn what_a_server_has_lost_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let runtime = runtime();
    let (url, source) = (nats.url(), runtime.block_on(source(&nats.url(), "shop")));
    let carried = {
        let source = std::sync::Arc::clone(&source);
        runtime.spawn(async move {
            source
                .carry(&ask(1, "Still there?"), &|| false, &|_| ())
                .await
        })
    };
    let waiting = || {
        runtime
            .block_on(source.link().waiting())
            .is_ok_and(|all| all[1].1 == 1)
    };
    wait_until("the job is at the server", waiting);
    nats.kill();
    std::fs::remove_dir_all(dir.path().join("nats")).unwrap();
    nats.restart();
    let outcome = runtime.block_on(async {
        let _worker = start_worker(&url, "upstairs", Duration::ZERO).await;
        carried.await.unwrap().unwrap()
    });
    assert_eq!(outcome.result.unwrap().text.unwrap(), "Still there? 0");
}

#[test]
fn strangers_jobs_and_results_are_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    runtime().block_on(async {
        let source: std::sync::Arc<Source> = source(&nats.url(), "shop").await;
        source.tell();
        let _worker = start_worker(&nats.url(), "upstairs", Duration::from_millis(50)).await;
        let client = async_nats::connect(nats.url()).await.unwrap();
        source.link().make_streams().await.unwrap();
        // A job without a source, one without headers, and one whose payload is another.
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [
            ("Gemmad-Id", "FORGED"),
            ("Gemmad-Node", "nobody"),
            ("Gemmad-Session", "none"),
            ("Gemmad-Protocol", "1"),
            ("Gemmad-Patience-Ms", "1000"),
            ("Gemmad-Sha256", "00"),
            ("Gemmad-Sending", "0"),
        ] {
            headers.insert(name, value);
        }
        client.publish("gemmad.home.job.ask.text.shop", "{}".into()).await.unwrap();
        client
            .publish_with_headers("gemmad.home.job.voice.hears.nobody", headers, "{}".into())
            .await
            .unwrap();
        let members = roster(source.link(), Duration::from_secs(1)).await.unwrap();
        let names: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
        assert!(names.contains(&"shop") && names.contains(&"upstairs"), "{names:?}");
        // The results of others' jobs, at the right place with the wrong id.
        let session = &members.iter().find(|member| member.node == "shop").unwrap().session;
        let forged = r#"{"done":{"id":"J9","session":"x","model":"x","reply":{"text":"forged"},"error":null}}"#;
        let to = format!("gemmad.home.to.shop.{session}");
        let answer = client.request(to, forged.into()).await.unwrap();
        assert_eq!(&answer.payload[..], b"no");
        let outcome = source.carry(&ask(1, "Hello."), &|| false, &|_| ()).await;
        assert_eq!(outcome.unwrap().result.unwrap().text.unwrap(), "Hello. 0");
        assert_eq!(source.counts().2, 1, "one result that nobody waited for");
    });
}

#[test]
fn a_board_that_is_cut_off_for_a_while_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    nats.kill();
    let runtime = runtime();
    let url = nats.url();
    // The server is away when both come.
    let (source, _worker) = runtime.block_on(async {
        let worker = start_worker(&url, "upstairs", Duration::ZERO).await;
        (source(&url, "shop").await, worker)
    });
    let carried = {
        let source = std::sync::Arc::clone(&source);
        runtime.spawn(async move { source.carry(&ask(1, "Hello."), &|| false, &|_| ()).await })
    };
    nats.restart();
    let outcome = runtime.block_on(carried).unwrap().unwrap();
    assert_eq!(outcome.result.unwrap().text.unwrap(), "Hello. 0");
    // What nobody does in time is told with where it was.
    let until = Instant::now() + Duration::from_millis(300);
    drop(nats);
    let late = runtime.block_on(source.carry(&ask(2, "?"), &|| Instant::now() > until, &|_| ()));
    assert!(matches!(late, Err(Lost::Over(_))), "{late:?}");
}
