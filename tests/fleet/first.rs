//! Who is asked before others: the worker that knows a conversation, or what stands before a question.

use std::time::Duration;

use gemmad::fleet::{Job, Source, Work};
use gemmad::report::AskFields;

use crate::crew::{Hand, ask, runtime, source, start_worker};
use crate::nats::Nats;

/// A question that begins with instructions, or goes on with a conversation.
fn question(id: u64, system: Option<&str>, conversation: Option<&str>) -> Job {
    Job {
        work: Work::Ask(AskFields {
            prompt: "?".to_owned(),
            system: system.map(str::to_owned),
            conversation: conversation.map(str::to_owned),
            ..AskFields::default()
        }),
        ..ask(id, "?")
    }
}

async fn done_by(source: &Source, job: &Job) -> String {
    let outcome = source.carry(job, &|| false, &|_| ()).await.unwrap();
    outcome.result.unwrap();
    outcome.worker
}

async fn wait_for(source: &Source, workers: usize) {
    while source.workers().len() != workers {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_worker_that_knows_how_it_begins_is_asked_first_and_others_where_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    runtime().block_on(async {
        let source = source(&nats.url(), "shop").await;
        let hand = Hand::start(&nats.url(), "attic", 5);
        wait_for(&source, 1).await;
        let tea = question(0, None, Some("tea"));
        assert_eq!(done_by(&source, &tea).await, "attic");
        assert_eq!(
            done_by(&source, &question(1, Some("Be short."), None)).await,
            "attic"
        );
        let _cellar = start_worker(&nats.url(), "cellar", Duration::ZERO).await;
        wait_for(&source, 2).await;
        for n in 10..20 {
            let known = [
                question(2 * n, None, Some("tea")),
                question(2 * n + 1, Some("Be short."), None),
            ];
            for job in known {
                // Boards tell how they are a little later.
                while source.workers().iter().any(|worker| worker.busy) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(done_by(&source, &job).await, "attic");
            }
        }
        // It dies: others do what it would have done.
        drop(hand);
        for job in [
            question(100, Some("Be short."), None),
            question(101, None, Some("tea")),
        ] {
            assert_eq!(done_by(&source, &job).await, "cellar");
        }
        assert_eq!(
            done_by(&source, &question(102, None, Some("tea"))).await,
            "cellar"
        );
    });
}
