//! When it is whose turn: of a speech, and of whoever speaks at a microphone.

use super::*;

#[test]
fn sound_is_made_when_its_turn_comes_and_until_nobody_wants_it() {
    let bench = Bench::new("waiting = 1\ntail_ms = 0");
    let mut turns = Vec::new();
    let mut pieces = Vec::new();
    for id in ["a", "b", "c"] {
        let (given, taken) = channel();
        let (has_come, turns_come) = channel();
        let turn = Turn::new(move || has_come.send(()).unwrap());
        let sound = Audible::Stream {
            pieces: taken,
            turn,
        };
        bench.say(id, sound, false);
        turns.push(turns_come);
        pieces.push(given);
    }
    bench.told(&["a began", "b Dropped"]);
    // What nobody wants is dropped just behind what is told.
    assert!(turns[0].try_recv().is_ok() && turns[1].recv().is_err());
    assert_eq!(turns[2].try_recv(), Err(TryRecvError::Empty));
    bench.control(SpeakerControl::Silence(Some("a".into())));
    bench.told(&["a Stopped", "c began"]);
    assert!(turns[0].recv().is_err() && turns[2].try_recv().is_ok());
}

#[test]
fn what_is_to_be_said_waits_for_whoever_speaks_unless_it_is_urgent() {
    let bench = Bench::new("tail_ms = 0");
    bench.control(SpeakerControl::Duck(true));
    let said = bench.stream("a", false);
    said.send(clip(vec![0.5; 1000])).unwrap();
    let urgent = bench.stream("U", true);
    urgent.send(clip(vec![0.5; 1000])).unwrap();
    drop(urgent);
    bench.told(&["U began", "speaking true", "U Heard", "speaking false"]);
    assert!(!bench.talking.sounds(), "microphones do not rest");
    bench.control(SpeakerControl::Duck(false));
    bench.told(&["a began", "speaking true"]);
    drop(said);
    bench.told(&["a Heard", "speaking false"]);

    let bench = Bench::new("tail_ms = 0\nhalf_duplex = false");
    bench.control(SpeakerControl::Duck(true));
    let _said = bench.stream("a", false);
    bench.told(&["a began"]);
}

#[test]
fn microphones_rest_until_the_room_is_silent_though_somebody_is_asked_to_go_on() {
    let bench = Bench::new("tail_ms = 60000");
    let said = bench.stream("a", false);
    said.send(clip(vec![0.5; 1000])).unwrap();
    drop(said);
    bench.told(&["a began", "speaking true", "a Heard"]);
    bench.control(SpeakerControl::Sign(Sign::Listening));
    while bench.card.samples().len() < 2000 {
        std::thread::sleep(DRY);
    }
    assert!(bench.talking.wants_rest(true));

    // Whoever is asked first is not missed.
    let bench = Bench::new("tail_ms = 60000");
    bench.control(SpeakerControl::Sign(Sign::Listening));
    bench.told(&["speaking true"]);
    assert!(!bench.talking.wants_rest(false));
}
