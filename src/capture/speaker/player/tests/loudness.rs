//! The short sounds, and how loud it all is.

use super::*;

#[test]
fn short_sounds_go_over_what_is_said_which_is_turned_down_meanwhile() {
    let bench = Bench::new("ducked = 0\ntail_ms = 0");
    bench.control(SpeakerControl::Sign(Sign::Listening));
    bench.told(&["speaking true", "speaking false"]);
    let alone = bench.card.samples();
    let wav = include_bytes!("../../sounds/listening.wav");
    assert_eq!(alone.len(), (wav.len() - 44) / 2);
    bench.card.played.lock().unwrap().clear();
    // Nobody is to be missed who is asked to speak; while something is said, all rest.
    let said = bench.stream("a", false);
    said.send(clip(vec![0.5; 800])).unwrap();
    bench.told(&["a began", "speaking true"]);
    assert!(bench.talking.wants_rest(true));
    let sign = SpeakerControl::Sign(Sign::Listening);
    bench.control(sign);
    said.send(clip(vec![0.5; 9000])).unwrap();
    drop(said);
    bench.told(&["a Heard", "speaking false"]);
    let samples = bench.card.samples();
    let place = (0..samples.len() - alone.len())
        .find(|at| alone[700..2000] == samples[at + 700..at + 2000]);
    assert!(place.is_some(), "the sound is not there, alone");
}

#[test]
fn volume_is_obeyed_and_sounds_may_be_off() {
    let bench = Bench::new("sounds = false\ntail_ms = 0");
    bench.control(SpeakerControl::Sign(Sign::Failed));
    bench.control(SpeakerControl::Volume(50));
    let said = bench.stream("a", false);
    said.send(clip(vec![0.8; 2000])).unwrap();
    drop(said);
    bench.told(&["a began", "speaking true", "a Heard", "speaking false"]);
    let samples = bench.card.samples();
    assert_eq!(samples.len(), 2000);
    assert!((samples[1000] - 0.2).abs() < 1e-6, "{}", samples[1000]);
}

#[test]
fn short_sounds_that_come_at_once_are_each_whole_and_what_ends_under_them_tears_none() {
    let bench = Bench::new("ducked = 0\ntail_ms = 0");
    let alone = |sign| {
        bench.control(SpeakerControl::Sign(sign));
        bench.told(&["speaking true", "speaking false"]);
        let samples = bench.card.samples();
        bench.card.played.lock().unwrap().clear();
        samples
    };
    let wanted = [alone(Sign::Listening), alone(Sign::Failed)].concat();
    let held = bench.card.played.lock().unwrap();
    bench.control(SpeakerControl::Sign(Sign::Listening));
    bench.told(&["speaking true"]);
    // Of those that come while the first is heard, the newest follows it.
    for sign in [Sign::Understood, Sign::Failed] {
        bench.control(SpeakerControl::Sign(sign));
    }
    let said = bench.stream("a", false);
    said.send(clip(vec![0.5; 640])).unwrap();
    drop((said, held));
    bench.told(&["a began", "a Heard", "speaking false"]);
    assert_eq!(bench.card.samples(), wanted);
    let played = bench.card.played.lock().unwrap();
    let finished = played.iter().position(|it| *it == Played::Finished);
    assert_eq!(finished, Some(played.len() - 1));
}

#[test]
fn what_is_said_becomes_quieter_and_louder_in_the_middle_and_without_a_jump() {
    let bench = Bench::new("ducked = 25\ntail_ms = 0");
    let said = bench.stream("a", false);
    for (n, (control, wanted)) in [
        (SpeakerControl::Duck(true), 0.2),
        (SpeakerControl::Duck(false), 0.8),
        (SpeakerControl::Volume(50), 0.2),
        (SpeakerControl::Duck(true), 0.05),
        (SpeakerControl::Volume(100), 0.2),
        (SpeakerControl::Duck(false), 0.8),
    ]
    .into_iter()
    .enumerate()
    {
        bench.control(control);
        // One block may have been begun before it was obeyed, and in the next it is obeyed.
        said.send(clip(vec![0.8; 960])).unwrap();
        let count = 960 * (n + 1);
        while bench.card.samples().len() < count {
            std::thread::sleep(DRY);
        }
        let last = bench.card.samples().split_off(count - 320);
        assert!(
            last.iter().all(|x| (x - wanted).abs() < 1e-6),
            "{n}: {last:?}"
        );
    }
    let samples = bench.card.samples();
    let jump = samples.windows(2).map(|two| (two[1] - two[0]).abs());
    assert!(jump.fold(0.0, f32::max) < 0.003);
}

#[test]
fn a_flood_of_controls_does_not_hold_up_what_is_said() {
    let bench = Bench::new("tail_ms = 0");
    let said = bench.stream("a", false);
    let held = bench.card.played.lock().unwrap();
    said.send(clip(vec![0.5; 960])).unwrap();
    bench.told(&["a began", "speaking true"]);
    for _ in 0..AT_ONCE {
        bench.control(SpeakerControl::Volume(100));
    }
    bench.control(SpeakerControl::Volume(0));
    drop((said, held));
    bench.told(&["a Heard", "speaking false"]);
    // The second block did not wait for all of them; the third comes down to nothing.
    let samples = bench.card.samples();
    assert!(samples[320..640].iter().all(|&x| x == 0.5));
    assert!(samples[959].abs() < 0.01, "{}", samples[959]);
}
