use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::capture::supervise::Supervised;
use crate::media::{Audible, AudioClip, Turn};

mod loudness;
mod turns;

const PATIENCE: Duration = Duration::from_secs(60);
const RATE_HZ: u32 = 16_000;

/// What a device was given: samples, and what was done with it.
#[derive(Clone, Debug, PartialEq)]
enum Played {
    Samples(Vec<f32>),
    Finished,
    Hushed,
}

/// A device that takes everything at once, but while the test looks at it; it is unplugged, or panics once, when the test says so.
#[derive(Clone, Default)]
struct Card {
    played: Arc<Mutex<Vec<Played>>>,
    unplugged: Arc<Mutex<bool>>,
    panics: Arc<AtomicBool>,
}

impl Card {
    fn still_there(&self) -> Result<(), Unavailable> {
        match *self.unplugged.lock().unwrap() {
            true => Err(Unavailable("it was unplugged".into())),
            false => Ok(()),
        }
    }

    fn put(&self, played: Played) -> Result<(), Unavailable> {
        self.still_there()?;
        self.played.lock().unwrap().push(played);
        Ok(())
    }

    /// All samples so far.
    fn samples(&self) -> Vec<f32> {
        let played = self.played.lock().unwrap();
        let samples = played.iter().filter_map(|it| match it {
            Played::Samples(samples) => Some(samples.clone()),
            _ => None,
        });
        samples.flatten().collect()
    }
}

impl Output for Card {
    fn rate_hz(&self) -> u32 {
        RATE_HZ
    }
    fn write(&mut self, samples: &[f32]) -> Result<(), Unavailable> {
        assert!(
            !self.panics.swap(false, Ordering::AcqRel),
            "as a driver's wrapper may"
        );
        self.put(Played::Samples(samples.to_vec()))
    }
    fn finish(&mut self) -> Result<(), Unavailable> {
        self.put(Played::Finished)
    }
    fn hush(&mut self) -> Result<(), Unavailable> {
        self.put(Played::Hushed)
    }
    fn check(&mut self) -> Result<(), Unavailable> {
        self.still_there()
    }
}

/// A player on a thread of its own.
struct Bench {
    card: Card,
    talking: Arc<Talking>,
    thread: Supervised<SpeakerControl>,
    events: Receiver<CaptureEvent>,
}

impl Bench {
    fn new(options: &str) -> Bench {
        let options: SpeakerOptions =
            toml::from_str(&format!("device = \"card\"\nvolume = 100\n{options}")).unwrap();
        let (tell, events) = channel();
        let teller = Teller::new(
            "speaker".into(),
            |_, state| CaptureEvent::Speaker(SpeakerEvent::State(state)),
            Box::new(move |event| tell.send(event).is_ok()),
        );
        let (card, talking) = (Card::default(), Arc::new(Talking::default()));
        let plugged = card.clone();
        let open: Open = Box::new(move |device| {
            assert_eq!(device, "card");
            plugged.still_there()?;
            Ok(Box::new(plugged.clone()))
        });
        let volume = options.volume;
        let mut player = Player::new(options, volume, Arc::clone(&talking), teller, open);
        let thread =
            Supervised::start("speaker", move |controls: &_| player.run(controls)).unwrap();
        let bench = Bench {
            card,
            talking,
            thread,
            events,
        };
        bench.told(&["online"]);
        bench
    }

    /// Waits for exactly these events.
    #[track_caller]
    fn told(&self, wanted: &[&str]) {
        let mut wanted: VecDeque<&str> = wanted.iter().copied().collect();
        while let Some(next) = wanted.pop_front() {
            let CaptureEvent::Speaker(event) = self.events.recv_timeout(PATIENCE).unwrap() else {
                unreachable!()
            };
            let event = match event {
                SpeakerEvent::State(state) => state.name("off").to_owned(),
                SpeakerEvent::Speaking(speaking) => format!("speaking {speaking}"),
                SpeakerEvent::Began(id) => format!("{id} began"),
                SpeakerEvent::Ended { id, end } => format!("{id} {end:?}"),
            };
            assert!(event.starts_with(next), "{event}, wanted {next}");
        }
    }

    fn control(&self, control: SpeakerControl) {
        self.thread.control(control);
    }

    /// Says what comes this way.
    fn stream(&self, id: &str, urgent: bool) -> Sender<Result<AudioClip, String>> {
        let (pieces, taken) = channel();
        let turn = Turn::new(|| {});
        let sound = Audible::Stream {
            pieces: taken,
            turn,
        };
        self.say(id, sound, urgent);
        pieces
    }

    fn say(&self, id: &str, sound: Audible, urgent: bool) {
        let id = id.to_owned();
        let speech = Speech { id, sound, urgent };
        self.control(SpeakerControl::Say(speech));
    }
}

fn clip(samples: Vec<f32>) -> Result<AudioClip, String> {
    Ok(AudioClip {
        samples,
        sample_rate_hz: RATE_HZ,
    })
}

#[test]
fn what_is_said_is_heard_one_after_the_other_and_microphones_rest_until_the_room_is_silent() {
    let bench = Bench::new("tail_ms = 0");
    let first = bench.stream("a", false);
    let second = bench.stream("b", false);
    first.send(clip(vec![0.5; 3000])).unwrap();
    bench.told(&["a began", "speaking true"]);
    assert!(bench.talking.wants_rest(true) && bench.talking.sounds());
    drop(first);
    bench.told(&["a Heard", "b began"]);
    second.send(clip(vec![-0.5; 2000])).unwrap();
    drop(second);
    bench.told(&["b Heard", "speaking false"]);
    assert!(!bench.talking.wants_rest(false) && !bench.talking.sounds());
    let samples = bench.card.samples();
    assert_eq!(samples.len(), 5000);
    // The first block comes up from nothing.
    assert!(samples[0] < 0.01 && samples[400..3000].iter().all(|&x| x == 0.5));
    assert!(samples[3000..].iter().all(|&x| x == -0.5));
}

#[test]
fn a_flood_drops_the_oldest_and_urgent_words_take_the_place_of_others() {
    let bench = Bench::new("waiting = 2\ntail_ms = 0");
    let said: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|id| bench.stream(id, false))
        .collect();
    bench.told(&["a began", "b Dropped"]);
    let urgent = bench.stream("U", true);
    bench.told(&["c Dropped", "a Stopped", "U began"]);
    assert!(bench.card.played.lock().unwrap().contains(&Played::Hushed));
    // Another urgent one waits for it.
    let other = bench.stream("V", true);
    drop(urgent);
    bench.told(&["U Heard", "V began"]);
    bench.control(SpeakerControl::Silence(None));
    bench.told(&["d Stopped", "V Stopped"]);
    drop((said, other));
    // One of many is meant by its id.
    let (_e, _f) = (bench.stream("e", false), bench.stream("f", false));
    bench.told(&["e began"]);
    let one = SpeakerControl::Silence(Some("f".into()));
    bench.control(one);
    bench.told(&["f Stopped"]);
}

#[test]
fn sound_that_breaks_off_or_never_ends_is_told_after_what_came_was_heard() {
    let bench = Bench::new("longest_s = 1\ntail_ms = 0");
    let broken = bench.stream("a", false);
    broken.send(clip(vec![0.5; 1000])).unwrap();
    broken.send(Err("the server is gone".into())).unwrap();
    bench.told(&[
        "a began",
        "speaking true",
        "a Failed(\"the server is gone\")",
        "speaking false",
    ]);
    assert_eq!(bench.card.samples().len(), 1000);
    let endless = bench.stream("b", false);
    endless.send(clip(vec![0.5; 40_000])).unwrap();
    bench.told(&["b began", "speaking true", "b Cut(1)", "speaking false"]);
    assert_eq!(bench.card.samples().len(), 1000 + RATE_HZ as usize);
    bench.say("c", Audible::File(b"no sound"[..].into()), false);
    bench.told(&["c Failed(\"the audio is not audio that can be decoded"]);
}

#[test]
fn microphones_listen_again_after_what_could_not_be_begun_and_after_the_speakers_end() {
    let bench = Bench::new("tail_ms = 0");
    let first = bench.stream("a", false);
    first.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&["a began", "speaking true"]);
    bench.say("b", Audible::File(b"no sound"[..].into()), false);
    drop(first);
    bench.told(&["a Heard", "b Failed", "speaking false"]);
    assert!(!bench.talking.sounds());
    // What waits is taken back while it speaks, and then that is.
    let (c, _d) = (bench.stream("c", false), bench.stream("d", false));
    c.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&["c began", "speaking true"]);
    for id in ["c", "d"] {
        let silence = SpeakerControl::Silence(Some(id.into()));
        bench.control(silence);
    }
    bench.told(&["c Stopped"]);
    let mut rest = ["d began", "d Stopped", "speaking false"].as_slice();
    // It may have begun before it was taken back.
    let CaptureEvent::Speaker(event) = bench.events.recv_timeout(PATIENCE).unwrap() else {
        unreachable!()
    };
    rest = match event {
        SpeakerEvent::Began(_) => &rest[1..],
        _ => &rest[2..],
    };
    bench.told(rest);
    assert!(!bench.talking.sounds());

    let last = bench.stream("e", false);
    last.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&["e began", "speaking true"]);
    assert!(bench.talking.sounds());
    bench.control(SpeakerControl::Stop);
    // The thread has ended when nobody tells anything any more.
    while bench.events.recv_timeout(PATIENCE).is_ok() {}
    assert!(!bench.talking.sounds());
}

#[test]
fn a_device_unplugged_while_it_speaks_ends_the_speech_and_comes_back() {
    let bench = Bench::new("tail_ms = 0");
    let first = bench.stream("a", false);
    let _second = bench.stream("b", false);
    first.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&["a began", "speaking true"]);
    *bench.card.unplugged.lock().unwrap() = true;
    first.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&[
        "a Failed(\"the speaker is offline: it was unplugged\")",
        "b Failed",
        "speaking false",
        "offline",
    ]);
    assert!(!bench.talking.sounds());
    let _late = bench.stream("c", false);
    bench.told(&["c Failed(\"the speaker is offline"]);
    *bench.card.unplugged.lock().unwrap() = false;
    bench.told(&["online"]);
    // While the next sentence is still being made, too.
    let _dry = bench.stream("d", false);
    bench.told(&["d began"]);
    *bench.card.unplugged.lock().unwrap() = true;
    bench.told(&["d Failed(\"the speaker is offline", "offline"]);
}

#[test]
fn a_panic_ends_what_was_being_said_and_what_waits_is_said() {
    let bench = Bench::new("tail_ms = 0");
    let first = bench.stream("a", false);
    let second = bench.stream("b", false);
    bench.told(&["a began"]);
    bench.card.panics.store(true, Ordering::Release);
    first.send(clip(vec![0.5; 1000])).unwrap();
    bench.told(&[
        "speaking true",
        "a Failed(\"the speaker broke off\")",
        "b began",
    ]);
    // Nothing has sounded since, so microphones have not rested.
    assert!(!bench.talking.sounds());
    second.send(clip(vec![-0.5; 1000])).unwrap();
    drop(second);
    bench.told(&["b Heard", "speaking false"]);
    assert_eq!(bench.card.samples().len(), 1000);
    assert!(!bench.talking.sounds());
}
