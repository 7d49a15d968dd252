//! A piece of work for the model: what is to be done, how urgent it is now, and how the loop reaches whoever does it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::hearing::Hearing;
use super::settings::Settings;
use crate::media::{CaptionTrigger, MotionExtent, VideoFrame};
use crate::report::chat::Chat;
use crate::report::{
    Ask, Attachment, ErrorBody, ErrorCode, FrigateEvent, Header, Manner, Origin, Transcribe, Wish,
    Wording,
};
use crate::utterance::{self, Progress};

/// Samples of an utterance that are worked on together while it is spoken, 160 ms. Every utterance is cut so, whatever else is being
/// heard, and so it is understood as if it were alone, bit by bit.
pub(super) const PIECE_SAMPLES: usize = 2560;

/// Why an utterance is rejected whose transcript contradicts the wake word.
pub(super) const NO_WAKE_WORD: &str = "the wake word is not in the transcript";

/// Why it does not count where it has to begin with a wake phrase.
pub(super) const NO_WAKE_PHRASE: &str = "no wake phrase";

/// Why it does not count where nothing follows the wake word.
pub(super) const NOTHING_SAID: &str = "nothing was said after the wake word";

/// Why it does not count where nothing follows the button.
pub(super) const NOTHING_SAID_TO_BUTTON: &str = "nothing was said after push-to-talk";

/// Whether speech was rejected for that nothing was said, which is no error.
pub(super) fn is_silence(reason: &str) -> bool {
    matches!(reason, NOTHING_SAID | NOTHING_SAID_TO_BUTTON)
}

/// Whether speech was rejected for that nobody spoke to the board.
pub(super) fn is_not_meant(reason: &str) -> bool {
    matches!(reason, NO_WAKE_WORD | NO_WAKE_PHRASE)
}

/// Why work is not done when the daemon ends.
pub(super) const STOPPING: &str = "the daemon is stopping";

/// Why no sentence is a command.
pub(super) const NO_COMMAND: &str = "there is no command: add [[command]] to gemmad.toml, or set homeassistant.names and publish the names";

/// How urgent work is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// An utterance that is over: somebody waits.
    Spoken,
    /// An utterance that is being spoken, of which a piece is there.
    Speaking,
    /// An utterance that has paused: its answer, should nobody go on.
    Paused,
    /// What somebody asked for.
    Request,
    /// What a program asked for over HTTP: people who press a button do not wait for it.
    Guest,
    /// A picture that nobody asked for.
    Caption,
}

/// When work is taken, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) rank: Rank,
    /// Of what has been said: samples that are still to be heard. So a command that was heard while it was spoken does not wait behind
    /// clips that came whole.
    left: usize,
    /// Of what has been said, as much of it being left: who ended first is answered first.
    ended_at: Option<Instant>,
    /// Of what is being said: samples taken so far. So a short command keeps up while somebody else goes on and on.
    heard: usize,
}

/// A piece of work for the model.
#[derive(Debug)]
pub(super) struct Job {
    /// ULID.
    pub(super) id: String,
    /// Who asked for it, where anybody did.
    pub(super) asker: Option<Header>,
    pub(super) work: Work,
    /// What was configured when the job came.
    pub(super) settings: Arc<Settings>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) queued_at: Instant,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// An utterance, worked on while it is spoken.
    Utterance(Utterance),
    /// A picture to describe, whoever wanted it.
    Caption(CaptionWork),
    /// A question.
    Ask(Ask),
    /// A conversation.
    Chat(Box<Chat>),
    /// An attached picture.
    Describe { image: Attachment, wish: Wish },
    /// Attached audio.
    Transcribe(Transcribe),
    /// A sentence that may be one of the commands.
    Recognize {
        text: String,
        /// Where it was said, as Home Assistant calls it; the nearest first.
        speaker: Vec<String>,
    },
    /// A sentence that may be one of another board's commands.
    Worded(Box<Wording>),
}

/// An utterance, and what has been made of it so far.
#[derive(Debug)]
pub(super) struct Utterance {
    pub(super) speaker: Speaker,
    /// The wake word that it began with.
    pub(super) wake_word: Option<String>,
    /// It follows an answer, to which it needs no word.
    pub(super) goes_on: bool,
    /// The event with which its conversation began.
    pub(super) conversation: Option<String>,
    pub(super) sound: Arc<utterance::Receiver>,
    /// Samples that the worker has taken; `None` before it first had it, from when on there has to be sound.
    pub(super) heard: Option<usize>,
    pub(super) hearing: Option<Box<Hearing>>,
}

/// Who speaks.
#[derive(Debug)]
pub(super) enum Speaker {
    /// Somebody at a microphone of the board.
    Microphone(String),
    /// A client's.
    Client {
        /// What is made of it.
        manner: Manner,
        /// Its text is told while it comes.
        stream: bool,
    },
}

/// A picture of a camera.
#[derive(Debug)]
pub(super) struct CaptionWork {
    pub(super) camera: String,
    pub(super) frame: VideoFrame,
    pub(super) trigger: CaptionTrigger,
    pub(super) motion: Option<MotionExtent>,
    /// How whoever asked wants it described.
    pub(super) wish: Wish,
    /// The event of Frigate that it is of.
    pub(super) frigate: Option<FrigateEvent>,
}

impl Work {
    pub(super) fn is_utterance(&self) -> bool {
        matches!(self, Work::Utterance(_))
    }

    /// Whether one request to the engine is all of it.
    pub(super) fn is_one_answer(&self) -> bool {
        match self {
            Work::Utterance(_) => false,
            Work::Transcribe(transcribe) => !transcribe.in_pieces,
            _ => true,
        }
    }
}

/// What the engine calls a microphone that it answers.
pub(super) fn origin_of_microphone(id: &str) -> String {
    format!("microphone/{id}")
}

/// What the engine calls a camera that it answers.
pub(super) fn origin_of_camera(id: &str) -> String {
    format!("camera/{id}")
}

impl Job {
    /// Whom it answers, where that is a microphone or a camera.
    pub(super) fn origin(&self) -> Option<Arc<str>> {
        match &self.work {
            Work::Utterance(Utterance {
                speaker: Speaker::Microphone(id),
                ..
            }) => Some(origin_of_microphone(id).into()),
            Work::Caption(caption) => Some(origin_of_camera(&caption.camera).into()),
            _ => None,
        }
    }

    /// When it is taken; nothing where there is nothing to be done yet.
    pub(super) fn turn(&self) -> Option<Turn> {
        let turn = |rank| Turn {
            rank,
            left: 0,
            ended_at: None,
            heard: 0,
        };
        match &self.work {
            Work::Utterance(utterance) => match utterance.sound.state() {
                (_, Progress::Cancelled) => Some(turn(Rank::Spoken)),
                (left, Progress::Ended { at, .. }) => Some(Turn {
                    left,
                    ended_at: Some(at),
                    ..turn(Rank::Spoken)
                }),
                (samples, progress) => match utterance.heard {
                    None => Some(turn(Rank::Speaking)),
                    Some(heard) if samples >= PIECE_SAMPLES => Some(Turn {
                        heard,
                        ..turn(Rank::Speaking)
                    }),
                    Some(_) => (progress == Progress::Paused
                        && self.may_answer_early(utterance, samples))
                    .then_some(turn(Rank::Paused)),
                },
            },
            work => Some(turn(match (&self.asker, work) {
                (None, _) => Rank::Caption,
                // A camera is asked by somebody who looks at the page.
                (Some(asker), Work::Caption(_)) if asker.origin == Origin::Http => Rank::Request,
                (Some(asker), _) if asker.origin == Origin::Http => Rank::Guest,
                (Some(asker), _) if asker.origin == (Origin::Fleet { unasked: true }) => {
                    Rank::Caption
                }
                (Some(_), _) => Rank::Request,
            })),
        }
    }

    /// Whether an utterance that has paused is to be answered, and has not been. A client's is not: it may be told its text while that
    /// comes, and what was told cannot be taken back. What a microphone of another board hears is.
    fn may_answer_early(&self, utterance: &Utterance, rest: usize) -> bool {
        let early = utterance.hearing.as_ref();
        let early = early.and_then(|hearing| hearing.early.as_ref());
        let may = match &utterance.speaker {
            Speaker::Microphone(_) => true,
            Speaker::Client { manner, .. } => {
                matches!(manner, Manner::Worded(asked) if !asked.unsure)
            }
        };
        may && self.settings.answers_early && early.is_none_or(|early| early.rest != rest)
    }

    /// How urgent it is while it is worked on.
    pub(super) fn rank(&self) -> Rank {
        self.turn().map_or(Rank::Speaking, |turn| turn.rank)
    }

    /// The conversation that it goes on with, as the engine calls it: nobody goes on with what another one has said.
    pub(super) fn conversation(&self) -> Option<String> {
        let Work::Ask(ask) = &self.work else {
            return None;
        };
        let name = ask.conversation.as_deref()?;
        Some(match self.asker.as_ref().map(|asker| &asker.origin) {
            Some(Origin::Bus { uid, .. }) => format!("bus/{uid}/{name}"),
            Some(Origin::Fleet { .. }) => format!("fleet/{name}"),
            Some(Origin::Mqtt | Origin::Http | Origin::Wyoming | Origin::Frigate) | None => {
                format!("mqtt/{name}")
            }
        })
    }

    /// Whether another board may do it: what came from there stays, and so does what the worker has begun to hear.
    pub(super) fn may_go(&self, has_model: bool) -> bool {
        let is_from_there = |asker: &Header| matches!(asker.origin, Origin::Fleet { .. });
        if self.asker.as_ref().is_some_and(is_from_there) {
            return false;
        }
        match &self.work {
            // What is being said is heard here as it comes, where anything is.
            Work::Utterance(utterance) => {
                let is_over = !utterance.sound.state().1.is_open();
                utterance.heard.is_none() && (is_over || !has_model)
            }
            // A conversation goes on where its keys and values are.
            Work::Ask(ask) => !has_model || ask.conversation.is_none(),
            Work::Chat(_) | Work::Recognize { .. } => !has_model,
            // It came from there.
            Work::Worded(_) => false,
            Work::Caption(_) | Work::Describe { .. } | Work::Transcribe(_) => true,
        }
    }

    /// The camera whose caption nobody asked for.
    pub(super) fn unasked_caption(&self) -> Option<&str> {
        match &self.work {
            Work::Caption(caption) if self.asker.is_none() => Some(&caption.camera),
            _ => None,
        }
    }

    /// Whether its time is over: that of an utterance begins when it has been spoken.
    pub(super) fn is_late(&self) -> bool {
        let ended = match &self.work {
            Work::Utterance(utterance) => match utterance.sound.state() {
                (_, Progress::Ended { at, .. }) => Some(at),
                _ => None,
            },
            _ => None,
        };
        self.ticket.is_late() || ended.is_some_and(|at| at + self.patience() <= Instant::now())
    }

    /// How long an answer may take once an utterance is over.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.config.queue.deadline_s.into())
    }

    /// Why it is given up where its time is over.
    pub(super) fn too_late(&self) -> ErrorBody {
        let message = match &self.work {
            Work::Utterance(utterance) if utterance.sound.state().1.is_open() => {
                "the speech did not end in time: send its sound as it is spoken, and then its end"
            }
            _ => {
                "it was not done in time: ask for fewer tokens, or raise timeout_ms or [queue] deadline_s"
            }
        };
        ErrorBody {
            code: ErrorCode::Timeout,
            message: message.to_owned(),
        }
    }

    /// Bytes that an utterance holds: sound that waits, keys and values.
    pub(super) fn utterance_bytes(&self) -> u64 {
        match &self.work {
            Work::Utterance(utterance) => {
                let (samples, _) = utterance.sound.state();
                let hearing = utterance.hearing.as_ref();
                (samples * size_of::<f32>()) as u64 + hearing.map_or(0, |hearing| hearing.bytes())
            }
            _ => 0,
        }
    }
}

/// How the loop reaches a job that the worker has already taken.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    /// Why it is to end before it is done.
    cancelled: OnceLock<&'static str>,
    /// When the job is given up; of an utterance known only once it has been spoken.
    deadline: Mutex<Option<Instant>>,
}

impl Ticket {
    /// A ticket of a job that is given up at `deadline`.
    pub(super) fn until(deadline: Instant) -> Ticket {
        Ticket {
            deadline: Mutex::new(Some(deadline)),
            ..Ticket::default()
        }
    }

    /// When the job is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job is given up at `deadline`, where it is not given up before.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        let mut known = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(deadline, |known| known.min(deadline)));
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Ends the job at the next token; the first reason stays.
    pub(super) fn cancel(&self, why: &'static str) {
        self.cancelled.set(why).ok();
    }

    /// Why it was cancelled, where it was.
    pub(super) fn cancelled(&self) -> Option<&'static str> {
        self.cancelled.get().copied()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled().is_some()
    }

    /// Whether the worker is to end the job now.
    pub(super) fn is_over(&self) -> bool {
        self.is_cancelled() || self.is_late()
    }
}
