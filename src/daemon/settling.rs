//! Which of several boards answers: those that hear the same wake word at about the same time settle it over the broker.
//!
//! Each tells what it heard, and waits a moment. Whoever has heard of a better claim by then is silent. A message that is lost lets
//! two of them answer, and never none: the best claim has none to give way to.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::event::Event;
use super::{Daemon, clock};
use crate::media::Sign;
use crate::report::{Claim, Report, VoiceEvent};

/// Claims of others that are remembered.
const MAX_CLAIMS: usize = 256;

/// Utterances whose reports are not told, because another board answers.
const MAX_SILENT: usize = 256;

/// Clocks of boards differ by so much: a claim counts as late only beyond that.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// Why nothing is told of what was heard.
const ELSEWHERE: &str = "a microphone that heard it better answers";

/// Claims of boards, this one's microphones included.
#[derive(Default)]
pub(super) struct Claims {
    heard: VecDeque<(Instant, Claim)>,
    /// Utterances that another board answers.
    silent: BTreeSet<String>,
    next: u64,
}

/// A wake word of a microphone of this board, of which it is not settled yet who answers.
pub(super) struct Pending {
    claim: Claim,
    /// Claims count that are not older.
    since: Instant,
    number: u64,
    /// Another board answers.
    yields: bool,
    /// What follows the wake word.
    utterance: Option<String>,
    /// What came of that already.
    held: Vec<Report>,
}

impl Claims {
    /// Takes in what was heard at a time, as far as that is known.
    fn note(&mut self, heard_at: Instant, claim: Claim) {
        if self.heard.len() == MAX_CLAIMS {
            self.heard.pop_front();
        }
        self.heard.push_back((heard_at, claim));
    }

    /// Whether a better one of another microphone came within so long.
    fn has_better(&self, claim: &Claim, within: Duration) -> bool {
        let mut others = self.heard.iter();
        others
            .any(|(at, other)| at.elapsed() <= within && !other.is_of(claim) && other.beats(claim))
    }

    fn silence(&mut self, utterance: String) {
        if self.silent.len() == MAX_SILENT {
            self.silent.pop_first();
        }
        self.silent.insert(utterance);
    }
}

impl Pending {
    /// Whether one that was heard at that time is better.
    fn yields_to(&self, heard_at: Instant, claim: &Claim) -> bool {
        heard_at >= self.since && claim.beats(&self.claim)
    }
}

/// When what a claim tells of was heard. One that was held up on its way is of an earlier word, and beats no later one.
fn heard_at(now: Instant, age: Option<Duration>) -> Instant {
    let late = age.unwrap_or_default().saturating_sub(CLOCKS_APART);
    now.checked_sub(late).unwrap_or(now)
}

impl Daemon {
    /// A wake word was heard: it is told to other boards, where that is wanted.
    pub(super) fn woken(&mut self, id: &str, phrase: String, score: f64, dbfs: f32) {
        let config = &self.settings.config;
        let configured = self.settings.microphone(id);
        let settle_ms = configured.map_or(0, |it| it.wake.settle_ms);
        if settle_ms == 0 || !config.mqtt.enabled {
            self.sign(Sign::Listening);
            return;
        }
        let claim = Claim {
            node: config.mqtt.node_name(),
            microphone: id.to_owned(),
            phrase,
            score,
            dbfs: dbfs.into(),
            time: clock::is_synced().then(clock::now),
        };
        let window = Duration::from_millis(settle_ms.into());
        // What was not settled of an earlier wake word is answered.
        self.settle(id, None);
        let claims = &mut self.devices.claims;
        claims.next += 1;
        let number = claims.next;
        let yields = claims.has_better(&claim, window);
        if let Some(microphone) = self.devices.microphones.get_mut(id) {
            microphone.pending = Some(Pending {
                claim: claim.clone(),
                since: heard_at(Instant::now(), Some(window + CLOCKS_APART)),
                number,
                yields,
                utterance: None,
                held: Vec::new(),
            });
        }
        self.doors.publish(&Report::Woken(claim.clone()));
        self.claimed(claim);
        let (events, id) = (self.devices.events.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            events.send(Event::Settled(id, number)).await.ok();
        });
    }

    /// A board, perhaps this one, was woken: worse claims give way.
    pub(super) fn claimed(&mut self, claim: Claim) {
        let time = claim.time.as_deref().filter(|_| clock::is_synced());
        let heard_at = heard_at(Instant::now(), time.and_then(clock::since));
        let devices = &mut self.devices;
        for pending in devices
            .microphones
            .values_mut()
            .filter_map(|it| it.pending.as_mut())
        {
            if pending.yields || !pending.yields_to(heard_at, &claim) {
                continue;
            }
            pending.yields = true;
            if let Some(utterance) = pending.utterance.take() {
                // One that runs ends, and is not told of.
                drop(self.queue.cancel(&utterance, ELSEWHERE));
                devices.claims.silence(utterance);
            }
        }
        devices.claims.note(heard_at, claim);
    }

    /// What follows a wake word begins; whether others answer it, as is known already.
    pub(super) fn is_left_to_others(&mut self, id: &str, utterance: &str) -> bool {
        let microphone = self.devices.microphones.get_mut(id);
        let Some(pending) = microphone.and_then(|it| it.pending.as_mut()) else {
            return false;
        };
        if !pending.yields {
            pending.utterance = Some(utterance.to_owned());
            return false;
        }
        self.devices.claims.silence(utterance.to_owned());
        true
    }

    /// The time to hear of better claims is over; or, without a number, comes to an early end.
    pub(super) fn settle(&mut self, id: &str, number: Option<u64>) {
        let Some(microphone) = self.devices.microphones.get_mut(id) else {
            return;
        };
        let is_it = |it: &mut Pending| number.is_none_or(|number| number == it.number);
        let Some(pending) = microphone.pending.take_if(is_it) else {
            return;
        };
        if pending.yields {
            log::info!(source = id; "{ELSEWHERE}");
            self.record.queues.yielded += 1;
            return;
        }
        self.sign(Sign::Listening);
        for report in pending.held {
            self.reported(report);
        }
    }

    /// All that is not settled comes to an early end.
    pub(super) fn settle_all(&mut self) {
        let ids: Vec<String> = self.devices.microphones.keys().cloned().collect();
        for id in ids {
            self.settle(&id, None);
        }
    }

    /// Whether what came of an utterance is to be told now: not while it is not settled who answers, and never where another board does.
    pub(super) fn is_ours(&mut self, event: &VoiceEvent) -> bool {
        // Of what runs already more than one word may come: it is given up, and then nothing was said.
        if self.devices.claims.silent.contains(&event.id) {
            return false;
        }
        let microphone = self.devices.microphones.get_mut(&event.source);
        let Some(pending) = microphone.and_then(|it| it.pending.as_mut()) else {
            return true;
        };
        if pending.utterance.as_ref() != Some(&event.id) {
            return true;
        }
        pending.held.push(Report::Voice(Box::new(event.clone())));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: &str, dbfs: f64) -> Claim {
        Claim {
            node: node.to_owned(),
            microphone: "hall".to_owned(),
            phrase: "Okay Nabu".to_owned(),
            score: 0.97,
            dbfs,
            time: None,
        }
    }

    #[test]
    fn a_microphone_gives_way_to_others_and_not_to_what_it_heard_itself() {
        let mut claims = Claims::default();
        let now = Instant::now();
        claims.note(now, claim("a", -20.0));
        let within = Duration::from_secs(60);
        assert!(!claims.has_better(&claim("a", -30.0), within));
        assert!(claims.has_better(&claim("b", -30.0), within));
    }

    #[test]
    fn a_claim_that_was_held_up_on_its_way_beats_no_later_word() {
        let now = Instant::now() + Duration::from_secs(3600);
        let window = Duration::from_millis(250);
        let pending = Pending {
            claim: claim("b", -30.0),
            since: now - window,
            number: 1,
            yields: false,
            utterance: None,
            held: Vec::new(),
        };
        let better = claim("a", -20.0);
        let yields = |ms| {
            let age = Some(Duration::from_millis(ms));
            pending.yields_to(heard_at(now, age), &better)
        };
        // Clocks are not quite alike.
        assert!(yields(0) && yields(1200));
        assert!(!yields(1300));
        assert!(pending.yields_to(heard_at(now, None), &better));
        let mut claims = Claims::default();
        claims.note(
            heard_at(Instant::now(), Some(Duration::from_secs(5))),
            better,
        );
        assert!(!claims.has_better(&pending.claim, window));
    }
}
