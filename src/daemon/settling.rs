//! Which of several boards answers: those that hear the same wake word at about the same time settle it over the broker.
//!
//! Each tells what it heard, and waits a moment. Whoever has heard of a better claim by then is silent. A message that is lost lets
//! two of them answer, and never none: the best claim has none to give way to.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Daemon;
use super::event::Event;
use crate::media::Sign;
use crate::report::{Claim, Report, VoiceEvent};

/// Claims of others that are remembered.
const MAX_CLAIMS: usize = 256;

/// Utterances whose reports are not told, because another board answers.
const MAX_SILENT: usize = 256;

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
    number: u64,
    /// Another board answers.
    yields: bool,
    /// What follows the wake word.
    utterance: Option<String>,
    /// What came of that already.
    held: Vec<Report>,
}

impl Claims {
    fn note(&mut self, claim: Claim) {
        if self.heard.len() == MAX_CLAIMS {
            self.heard.pop_front();
        }
        self.heard.push_back((Instant::now(), claim));
    }

    /// Whether a better one came within so long.
    fn has_better(&self, claim: &Claim, within: Duration) -> bool {
        let newest_first = self.heard.iter().rev();
        let mut recent = newest_first.take_while(|(at, _)| at.elapsed() <= within);
        recent.any(|(_, other)| other.beats(claim))
    }

    fn silence(&mut self, utterance: String) {
        if self.silent.len() == MAX_SILENT {
            self.silent.pop_first();
        }
        self.silent.insert(utterance);
    }
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
        let devices = &mut self.devices;
        for pending in devices
            .microphones
            .values_mut()
            .filter_map(|it| it.pending.as_mut())
        {
            if pending.yields || !claim.beats(&pending.claim) {
                continue;
            }
            pending.yields = true;
            if let Some(utterance) = pending.utterance.take() {
                // One that runs ends, and is not told of.
                drop(self.queue.cancel(&utterance, ELSEWHERE));
                devices.claims.silence(utterance);
            }
        }
        devices.claims.note(claim);
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
