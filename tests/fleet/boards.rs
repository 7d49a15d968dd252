//! Real boards: daemons with the demo model, which are killed while they hear and see what it has never seen.

use std::time::Duration;

use gemmad::fleet::{Job, Work};
use gemmad::report::{Attachment, DescribeFields, TranscribeFields};

use crate::crew::{Hand, picture, voice};
use crate::heldout::{demo, expected};
use crate::load::{Load, SOURCES, restart, run};
use crate::nats::Nats;

/// A recording or a picture that the demo model has never seen and gets right, and what is right about it.
fn heldout(n: u64) -> (Job, Option<String>) {
    let of = |kind: &str, files: [&str; 3]| {
        let file = files[(n / SOURCES) as usize % files.len()];
        let rows = expected(kind);
        let row = rows.iter().find(|row| row[0] == file).unwrap();
        let bytes = std::fs::read(demo().join("heldout").join(kind).join(file)).unwrap();
        (Some(Attachment(bytes.into())), Some(row[2].clone()))
    };
    let camera = n % SOURCES;
    if camera < 2 {
        let (audio, answer) = of("audio", ["003_both.wav", "009_both.wav", "017_combo.wav"]);
        let fields = TranscribeFields {
            audio,
            ..TranscribeFields::default()
        };
        let work = Work::Transcribe {
            fields,
            in_pieces: false,
            into: None,
        };
        return (
            Job {
                work,
                ..voice(n, "", 0)
            },
            answer,
        );
    }
    let (image, answer) = of(
        "images",
        ["002_picture.png", "004_picture.png", "005_combo.png"],
    );
    let work = Work::Describe(DescribeFields {
        image,
        prompt: Some("Describe what the camera sees.".to_owned()),
        ..DescribeFields::default()
    });
    let job = picture(n, &format!("camera{camera}"), "", 0);
    (Job { work, ..job }, answer)
}

#[test]
#[ignore = "it takes minutes: cargo nextest run --test fleet --run-ignored all a_hundred_jobs --no-capture"]
fn a_hundred_jobs_of_real_boards() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(dir.path());
    let model = demo();
    let board = |node: &str| {
        let place = dir.path().join(node);
        std::fs::create_dir(&place).unwrap();
        let text = format!(
            "[mqtt]\nnode = {node:?}\n[dbus]\nenabled = false\n[degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n\
             [threads]\ncount = 1\n[model]\npath = {model:?}\n\
             [fleet]\nenabled = true\nurl = \"{}\"\nrole = \"worker\"\n",
            nats.url()
        );
        std::fs::write(place.join("gemmad.toml"), text).unwrap();
        Hand::daemon(&place)
    };
    let mut hands = ["attic", "cellar", "garage"].map(board);
    let load = Load {
        jobs: 100,
        every: Duration::from_secs(4),
        kill_every: 20,
        harms: 1,
        job: heldout,
    };
    let url = nats.url();
    let figures = run(load, &url, &mut hands, &mut || restart(&mut nats));
    figures.show();
    assert_eq!((figures.done, figures.poison, figures.hoarded), (100, 0, 0));
}
