//! The order in which work is taken, event by event: nothing here is timed.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::daemon::job::{CaptionWork, Speaker, Utterance};
use crate::daemon::settings::Settings;
use crate::media::{CaptionTrigger, VideoFrame};
use crate::report::{AskFields, Header, Origin, Wish};
use crate::utterance;

const ROOM: Limits = Limits {
    jobs: 8,
    utterances: 8,
    utterance_bytes: 1 << 30,
};

const PIECE: &[f32] = &[0.0; PIECE_SAMPLES];

fn job(id: &str, work: Work) -> Job {
    let config = Config::parse("[model]\npath = \"/model\"", Path::new("gemmad.toml")).unwrap();
    let asked = matches!(work, Work::Recognize { .. });
    let header = || Header {
        id: id.to_owned(),
        origin: Origin::Wyoming,
        transaction: None,
        kind: "recognize",
        timeout: None,
    };
    Job {
        id: id.to_owned(),
        asker: asked.then(header),
        work,
        settings: Arc::new(Settings {
            config: Arc::new(config),
            config_sha256: String::new(),
            commands: None,
            matformer: None,
            max_tokens: 1,
            threads: 1,
            answers_early: true,
        }),
        ticket: Arc::default(),
        queued_at: Instant::now(),
    }
}

/// Somebody begins to speak at the microphone `id`.
fn speak(queue: &Arc<Queue>, id: &str) -> utterance::Sender {
    let (sender, sound) = utterance::channel();
    let work = Work::Utterance(Utterance {
        wake_word: None,
        goes_on: false,
        conversation: None,
        speaker: Speaker::Microphone(id.to_owned()),
        sound: Arc::new(sound),
        heard: None,
        hearing: None,
    });
    assert!(matches!(queue.push(job(id, work), ROOM), Pushed::Waits));
    sender
}

fn request() -> Work {
    let text = String::new();
    let speaker = Vec::new();
    Work::Recognize { text, speaker }
}

fn caption(camera: &str) -> Work {
    Work::Caption(CaptionWork {
        camera: camera.to_owned(),
        frame: VideoFrame {
            encoded: Vec::new(),
            width_px: 1,
            height_px: 1,
            taken_at: std::time::SystemTime::UNIX_EPOCH,
        },
        trigger: CaptionTrigger::Motion,
        motion: None,
        wish: Wish::default(),
        frigate: None,
    })
}

fn push(queue: &Arc<Queue>, id: &str, work: Work) {
    assert!(!matches!(queue.push(job(id, work), ROOM), Pushed::Full(..)));
}

/// What the worker does with the next job: an utterance that is not over loses a piece and comes back, all else is done.
fn work(queue: &Queue, below: Option<Rank>) -> Option<String> {
    let mut job = match below {
        None => queue.pop(Duration::ZERO)?,
        Some(rank) => queue.pop_now(|_, other| other < rank)?,
    };
    let id = job.id.clone();
    match &mut job.work {
        Work::Utterance(utterance) if utterance.sound.state().1.is_open() => {
            let taken = match utterance.heard {
                None => 0,
                Some(_) => utterance.sound.take(PIECE_SAMPLES).len(),
            };
            utterance.heard = Some(utterance.heard.unwrap_or(0) + taken);
            assert!(queue.put_back(job).is_none());
        }
        _ => queue.done(&id),
    }
    Some(id)
}

/// All that there is to do now, in order.
fn order(queue: &Queue) -> Vec<String> {
    std::iter::from_fn(|| work(queue, None)).collect()
}

#[test]
fn what_has_been_said_comes_first_then_what_is_being_said_then_requests_then_captions() {
    let queue = Arc::new(Queue::default());
    push(&queue, "caption", caption("door"));
    push(&queue, "request", request());
    let hall = speak(&queue, "hall");
    let kitchen = speak(&queue, "kitchen");
    kitchen.end(false);
    assert_eq!(order(&queue), ["kitchen", "hall", "request", "caption"]);
    // Nothing more to be done for the hall until it says something: everybody else is served.
    assert_eq!(order(&queue), [] as [&str; 0]);
    push(&queue, "later", request());
    assert_eq!(order(&queue), ["later"]);
    hall.push(&PIECE[1..]);
    assert_eq!(order(&queue), [] as [&str; 0]);
    hall.push(&PIECE[..1]);
    assert_eq!(order(&queue), ["hall"]);
    hall.end(false);
    assert_eq!(order(&queue), ["hall"]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn whoever_pauses_is_answered_once_after_those_who_speak_and_before_requests() {
    let queue = Arc::new(Queue::default());
    push(&queue, "request", request());
    let hall = speak(&queue, "hall");
    let kitchen = speak(&queue, "kitchen");
    assert_eq!(order(&queue), ["hall", "kitchen", "request"]);
    hall.push(&PIECE.repeat(2)[1..]);
    hall.pause();
    kitchen.push(PIECE);
    push(&queue, "request", request());
    assert_eq!(work(&queue, None).unwrap(), "hall");
    assert_eq!(work(&queue, None).unwrap(), "kitchen");
    // What is left of the hall is no piece: it is to be answered, unless what is more urgent comes.
    let job = queue.pop(Duration::ZERO).unwrap();
    assert_eq!((job.id.as_str(), job.rank()), ("hall", Rank::Paused));
    kitchen.push(PIECE);
    assert_eq!(work(&queue, Some(job.rank())).unwrap(), "kitchen");
    assert_eq!(work(&queue, Some(job.rank())), None);
    // It goes on, and ends: then nothing comes before it.
    hall.push(&[0.0]);
    assert_eq!(job.rank(), Rank::Speaking);
    hall.pause();
    hall.end(false);
    assert_eq!(job.rank(), Rank::Spoken);
    queue.done("hall");
    assert_eq!(order(&queue), ["request"]);

    // A board that spares its strength waits for the end.
    let hall = speak(&queue, "hall");
    assert_eq!(order(&queue), ["hall"]);
    hall.push(&[0.0]);
    hall.pause();
    let mut job = queue.pop(Duration::ZERO).unwrap();
    let spared = Settings {
        answers_early: false,
        ..Settings::clone(&job.settings)
    };
    job.settings = Arc::new(spared);
    assert!(queue.put_back(job).is_none());
    assert_eq!(order(&queue), [] as [&str; 0]);
    hall.end(false);
    assert_eq!(order(&queue), ["hall"]);
}

#[test]
fn those_who_speak_take_turns_piece_by_piece_whoever_drips() {
    let queue = Arc::new(Queue::default());
    let [a, b, dripping] = ["a", "b", "dripping"].map(|id| speak(&queue, id));
    assert_eq!(order(&queue), ["a", "b", "dripping"]);
    a.push(&PIECE.repeat(3));
    b.push(&PIECE.repeat(2));
    dripping.push(&[0.0]);
    assert_eq!(order(&queue), ["a", "b", "a", "b", "a"]);
    // A short command keeps up while others go on and on.
    a.push(&PIECE.repeat(2));
    b.push(&PIECE.repeat(2));
    let short = speak(&queue, "short");
    short.push(&PIECE.repeat(2));
    let all = ["short", "short", "short", "b", "a", "b", "a"];
    assert_eq!(order(&queue), all);
    short.end(false);
    assert_eq!(order(&queue), ["short"]);
    // Who ended first is answered first, whenever it began.
    b.end(false);
    a.end(false);
    dripping.push(&[0.0]);
    assert_eq!(order(&queue), ["b", "a"]);
    // A clip that came whole and is over has yet to be heard: what was heard while it was spoken goes before it.
    let clip = speak(&queue, "clip");
    clip.push(&PIECE.repeat(9));
    clip.end(false);
    let late = speak(&queue, "late");
    late.end(false);
    assert_eq!(order(&queue), ["late", "clip"]);
    // A client that goes costs nobody anything.
    drop(dripping);
    assert_eq!(order(&queue), ["dripping"]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn work_gives_way_to_what_is_more_urgent_only() {
    let queue = Arc::new(Queue::default());
    push(&queue, "caption", caption("door"));
    let running = queue.pop(Duration::ZERO).unwrap();
    push(&queue, "request", request());
    let hall = speak(&queue, "hall");
    push(&queue, "other caption", caption("garden"));
    let between = |rank| std::iter::from_fn(|| work(&queue, Some(rank))).collect::<Vec<_>>();
    assert_eq!(running.rank(), Rank::Caption);
    // While a request is worked on, speech is heard; the caption has to wait for both.
    let request = queue.pop_now(|_, rank| rank < Rank::Caption).unwrap();
    assert_eq!(request.id, "hall");
    assert!(queue.put_back(request).is_none());
    hall.push(PIECE);
    assert_eq!(between(Rank::Request), ["hall", "hall"]);
    assert_eq!(between(Rank::Request), [] as [&str; 0]);
    assert_eq!(between(Rank::Caption), ["request"]);
    // What is being said gives way to what has been said, and that to nothing.
    hall.end(false);
    let cellar = speak(&queue, "cellar");
    cellar.end(false);
    assert_eq!(between(Rank::Spoken), [] as [&str; 0]);
    assert_eq!(between(Rank::Speaking), ["hall", "cellar"]);
    queue.done("caption");
    assert_eq!(order(&queue), ["other caption"]);
}

#[test]
fn a_turn_of_a_conversation_waits_for_the_turn_before_it() {
    let queue = Arc::new(Queue::default());
    for (id, conversation) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        let fields = AskFields {
            prompt: "?".to_owned(),
            conversation: Some(conversation.to_owned()),
            ..AskFields::default()
        };
        push(&queue, id, Work::Ask(fields.try_into().unwrap()));
    }
    let next = || queue.pop_now(|_, _| true).map(|job| job.id);
    assert_eq!(next().as_deref(), Some("a1"));
    assert_eq!(next().as_deref(), Some("b1"));
    assert_eq!(next(), None);
    queue.done("b1");
    assert_eq!(next(), None);
    queue.done("a1");
    assert_eq!(next().as_deref(), Some("a2"));
}

#[test]
fn utterances_are_bounded_in_number_and_memory_and_cost_requests_no_room() {
    let queue = Arc::new(Queue::default());
    let limits = Limits {
        jobs: 1,
        utterances: 2,
        utterance_bytes: 4096,
    };
    let speakers = [speak(&queue, "a"), speak(&queue, "b")];
    let refused = |queue: &Arc<Queue>| {
        let (sender, sound) = utterance::channel();
        let work = Work::Utterance(Utterance {
            wake_word: None,
            goes_on: false,
            conversation: None,
            speaker: Speaker::Microphone("c".to_owned()),
            sound: Arc::new(sound),
            heard: None,
            hearing: None,
        });
        let words = match queue.push(job("c", work), limits) {
            Pushed::Full(_, words) => Some(words),
            _ => None,
        };
        drop(sender);
        words
    };
    assert!(refused(&queue).unwrap().contains("[queue] utterances"));
    // Also while the worker has one of them.
    let taken = queue.pop(Duration::ZERO).unwrap();
    assert!(refused(&queue).unwrap().contains("[queue] utterances"));
    assert!(queue.put_back(taken).is_none());
    push(&queue, "request", request());
    let full = queue.push(job("more", request()), limits);
    assert!(matches!(full, Pushed::Full(_, words) if words.contains("[queue] jobs")));
    let [a, b] = speakers;
    drop(a);
    assert_eq!(queue.pop(Duration::ZERO).unwrap().id, "a");
    queue.done("a");
    b.push(&[0.0; 1024]);
    assert!(refused(&queue).unwrap().contains("[queue] utterances_mib"));
    drop(b);
    assert_eq!(refused(&queue), None);
}

#[test]
fn cancelled_expired_and_closed_work_comes_back_once() {
    let queue = Arc::new(Queue::default());
    let hall = speak(&queue, "hall");
    let kitchen = speak(&queue, "kitchen");
    push(&queue, "request", request());
    assert!(
        matches!(queue.cancel("request", "why"), Cancelled::Waiting(job) if job.id == "request")
    );
    assert!(matches!(queue.cancel("request", "why"), Cancelled::Unknown));
    let mut running = queue.pop(Duration::ZERO).unwrap();
    assert!(matches!(queue.cancel("hall", "why"), Cancelled::Running));
    assert!(running.ticket.is_over());
    assert_eq!(running.ticket.cancelled(), Some("why"));
    // Speech that is over has its time from then on; what is being said has no limit but its own.
    assert!(queue.expired().is_empty());
    running.ticket = Arc::new(Ticket::until(Instant::now()));
    assert!(queue.put_back(running).is_none());
    let late = queue.expired();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].id, "hall");
    let running = queue.pop(Duration::ZERO).unwrap();
    assert!(queue.close().is_empty());
    assert!(running.ticket.is_cancelled());
    assert_eq!(queue.put_back(running).unwrap().id, "kitchen");
    drop((hall, kitchen));
    assert!(queue.pop(Duration::from_secs(3600)).is_none());
}

#[test]
fn sound_wakes_a_worker_that_waits() {
    let queue = Arc::new(Queue::default());
    let hall = speak(&queue, "hall");
    assert_eq!(order(&queue), ["hall"]);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| queue.pop(Duration::from_secs(3600)).map(|job| job.id));
        hall.push(PIECE);
        assert_eq!(worker.join().unwrap().as_deref(), Some("hall"));
    });
    queue.done("hall");
}

#[test]
fn people_come_before_programs_and_programs_before_captions() {
    let queue = Arc::new(Queue::default());
    let by_http = |id: &str, work: Work| {
        let mut job = job(id, work);
        let asker = job.asker.get_or_insert_with(|| Header {
            id: id.to_owned(),
            origin: Origin::Http,
            transaction: None,
            kind: "chat",
            timeout: None,
        });
        asker.origin = Origin::Http;
        job
    };
    push(&queue, "caption", caption("door"));
    for job in [by_http("chat", request()), by_http("look", caption("hall"))] {
        assert!(matches!(queue.push(job, ROOM), Pushed::Waits));
    }
    push(&queue, "button", request());
    speak(&queue, "voice").end(false);
    // A chat on its way gives way to speech and to buttons, also those of the page, and to nothing else.
    let mut before = Vec::new();
    while let Some(id) = work(&queue, Some(Rank::Guest)) {
        before.push(id);
    }
    before.dedup();
    assert_eq!(before, ["voice", "look", "button"]);
    assert_eq!(order(&queue), ["chat", "caption"]);
}
