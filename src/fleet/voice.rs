//! What somebody says, on its way to the worker that hears it while it is said.
//!
//! Each message has the number of the sample with which it begins and how far the utterance is. The worker asks for what it misses, and
//! whoever takes the utterance after it hears it from its beginning: so no message needs to come.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::job::{pcm, samples};
use crate::utterance::{self, Progress};

/// Bytes of a sample as it is sent.
const SAMPLE_BYTES: usize = 2;

/// Bytes of sound in a message: a second.
const MESSAGE_BYTES: usize = 32_000;

/// Between two messages while somebody speaks.
const EVERY: Duration = Duration::from_millis(100);

/// Between two messages that say nothing new: what got lost shows by them.
const STILL: Duration = Duration::from_millis(500);

/// A worker hears no more of an utterance than that: two minutes.
const MOST_SAMPLES: usize = 120 * 16_000;

/// How far an utterance is, in a message.
const SPEAKING: u8 = 0;
const PAUSED: u8 = 1;
const ENDED: u8 = 2;
const CUT: u8 = 3;

/// An utterance at the board that has the microphone.
pub struct Voice<'a> {
    sound: &'a utterance::Receiver,
    /// What has been said.
    said: Vec<f32>,
    /// How far it was when something was sent last, and how many samples of it the worker has been sent.
    told: (Progress, usize),
    told_at: Option<Instant>,
}

impl<'a> Voice<'a> {
    /// Of the end at which it is heard.
    pub fn of(sound: &'a utterance::Receiver) -> Voice<'a> {
        Voice {
            sound,
            said: Vec::new(),
            told: (Progress::Speaking, 0),
            told_at: None,
        }
    }

    /// What has been said so far, and how far that is.
    pub fn said(&mut self) -> (&[f32], Progress) {
        // What comes in between is taken the next time.
        let (count, progress) = self.sound.state();
        self.said.extend(self.sound.take(count));
        (&self.said, progress)
    }

    /// Somebody hears it from the beginning, or from a sample on.
    pub(super) fn from(&mut self, at: usize) {
        self.told.1 = self.told.1.min(at);
        self.told_at = None;
    }

    /// What is to be told now.
    pub(super) fn news(&mut self) -> Vec<Bytes> {
        let progress = self.said().1;
        let is_new = progress != self.told.0 && !matches!(progress, Progress::Speaking);
        let pause = match is_new || self.told_at.is_none() {
            true => Duration::ZERO,
            false if self.said.len() > self.told.1 => EVERY,
            false => STILL,
        };
        if self.told_at.is_some_and(|at| at.elapsed() < pause) {
            return Vec::new();
        }
        let rest = &self.said[self.told.1..];
        let mut at = self.told.1;
        let mut messages = Vec::new();
        loop {
            let piece = &rest[at - self.told.1..];
            let piece = &piece[..piece.len().min(MESSAGE_BYTES / SAMPLE_BYTES)];
            let next = at + piece.len();
            let progress = match next == self.said.len() {
                true => progress,
                false => Progress::Speaking,
            };
            messages.push(write(at, progress, piece));
            at = next;
            if at == self.said.len() {
                break;
            }
        }
        self.told = (progress, at);
        self.told_at = Some(Instant::now());
        messages
    }
}

fn write(at: usize, progress: Progress, piece: &[f32]) -> Bytes {
    let sound = pcm(piece);
    let mut message = BytesMut::with_capacity(5 + sound.len());
    message.put_u32_le(u32::try_from(at).unwrap_or(u32::MAX));
    message.put_u8(match progress {
        Progress::Speaking => SPEAKING,
        Progress::Paused => PAUSED,
        Progress::Ended { truncated, .. } if truncated => CUT,
        Progress::Ended { .. } | Progress::Cancelled => ENDED,
    });
    message.put_slice(&sound);
    message.freeze()
}

/// An utterance at the worker that hears it.
pub(super) struct Ear {
    speaker: Option<utterance::Sender>,
    heard: usize,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// It was heard, or was known.
    Heard,
    /// Something between is missing: everything from that sample on.
    Misses(usize),
    /// The utterance is over.
    All,
}

impl Ear {
    pub(super) fn new(speaker: utterance::Sender) -> Ear {
        Ear {
            speaker: Some(speaker),
            heard: 0,
        }
    }

    /// What it misses.
    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    /// Takes a message in; one that is none is as one that has not come.
    pub(super) fn take(&mut self, message: &[u8]) -> Took {
        let Some(speaker) = &self.speaker else {
            return Took::All;
        };
        let Some((head, sound)) = message.split_first_chunk::<5>() else {
            return Took::Heard;
        };
        let [a, b, c, d, progress] = *head;
        let at = u32::from_le_bytes([a, b, c, d]) as usize;
        let piece = samples(sound);
        if at > self.heard {
            return Took::Misses(self.heard);
        }
        let end = at + piece.len();
        if end > self.heard {
            let room = MOST_SAMPLES.saturating_sub(self.heard);
            let new = &piece[self.heard - at..];
            speaker.push(&new[..new.len().min(room)]);
            self.heard = end;
        }
        if end < self.heard {
            // A message of before.
            return Took::Heard;
        }
        match progress {
            PAUSED => speaker.pause(),
            ENDED | CUT => {
                if let Some(speaker) = self.speaker.take() {
                    speaker.end(progress == CUT);
                }
                return Took::All;
            }
            _ => {}
        }
        Took::Heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who speaks, at both ends.
    struct Line {
        mouth: utterance::Sender,
        sound: utterance::Receiver,
        ear: Ear,
        hears: utterance::Receiver,
    }

    fn line() -> Line {
        let (mouth, sound) = utterance::channel();
        let (speaker, hears) = utterance::channel();
        Line {
            mouth,
            sound,
            ear: Ear::new(speaker),
            hears,
        }
    }

    fn sound(from: usize, count: usize) -> Vec<f32> {
        (from..from + count)
            .map(|n| (n % 30_000) as f32 / 32_768.0)
            .collect()
    }

    #[test]
    fn whatever_gets_lost_or_comes_twice_all_is_heard_in_order() {
        let mut line = line();
        let mut voice = Voice::of(&line.sound);
        line.mouth.push(&sound(0, 40_000));
        let first = voice.news();
        assert_eq!(first.len(), 3, "a second each");
        assert_eq!(line.ear.take(&first[0]), Took::Heard);
        assert_eq!(line.ear.take(&first[0]), Took::Heard);
        // The second is lost, and asked for.
        assert_eq!(line.ear.take(&first[2]), Took::Misses(16_000));
        voice.from(16_000);
        let again = voice.news();
        assert_eq!(again.len(), 2);
        for message in &again {
            assert_eq!(line.ear.take(message), Took::Heard);
        }
        assert_eq!(line.hears.state(), (40_000, Progress::Speaking));
        line.mouth.push(&sound(40_000, 100));
        line.mouth.pause();
        // Nobody waits for the next one's time in order to be told of a pause.
        let pause = voice.news();
        assert_eq!(line.ear.take(&pause[0]), Took::Heard);
        assert_eq!(line.hears.state(), (40_100, Progress::Paused));
        assert!(voice.news().is_empty(), "nothing is new");
        line.mouth.push(&sound(40_100, 1));
        line.mouth.end(true);
        let end = voice.news();
        // What was before changes nothing.
        assert_eq!(line.ear.take(&first[1]), Took::Heard);
        assert_eq!(line.ear.take(&end[0]), Took::All);
        assert_eq!(line.hears.take(usize::MAX), sound(0, 40_101));
        let ended = line.hears.state().1;
        assert!(matches!(
            ended,
            Progress::Ended {
                truncated: true,
                ..
            }
        ));
        assert_eq!(line.ear.take(&end[0]), Took::All);
    }

    #[test]
    fn what_is_no_message_is_not_heard() {
        let mut line = line();
        for message in [&b""[..], b"\0\0", &[0; 4], &[255; 9]] {
            line.ear.take(message);
        }
        assert_eq!(line.hears.state(), (0, Progress::Speaking));
        // An odd byte is half a sample.
        assert_eq!(
            line.ear.take(&[0, 0, 0, 0, SPEAKING, 0, 64, 9]),
            Took::Heard
        );
        assert_eq!(line.hears.take(9), [0.5]);
        for _ in 0..2 {
            let at = u32::try_from(line.ear.heard()).unwrap().to_le_bytes();
            let long = [&at[..], &[SPEAKING], &vec![0; 4 * MOST_SAMPLES]].concat();
            line.ear.take(&long);
        }
        assert_eq!(line.hears.state().0, MOST_SAMPLES - 1);
    }
}
