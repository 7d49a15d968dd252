//! A microphone's thread: opens the device, reads, finds speech in it, and obeys.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::capture::level::{Loudness, Meter};
use crate::capture::options::{MicrophoneOptions, Trigger};
use crate::capture::speech::{Gate, Segmenter, SpeechEvent};
use crate::capture::spotter::Spotter;
use crate::capture::supervise::{Backoff, Ended, Teller, Unavailable};
use crate::media::{CaptureEvent, DeviceState, MicrophoneControl, MicrophoneEvent, Talking};
use crate::utterance;

/// Longest wait for sound, and so for a control to be obeyed.
const WAIT: Duration = Duration::from_millis(100);

/// A device that is open and gives nothing for so long has died without telling.
const SILENT: Duration = Duration::from_secs(5);

/// Samples after which it is looked whether a wake word was said: 20 ms.
const SPOTTED_SAMPLES: usize = 320;

/// Controls that are obeyed between two reads at most: more than any flood has for long, so that none delays a mute.
const AT_ONCE: usize = 1024;

/// An open source of sound.
pub(in crate::capture) trait Sound {
    /// Waits for sound up to `wait` and appends it to `samples`, 16 kHz mono.
    ///
    /// # Errors
    /// The source is gone.
    fn read(&mut self, wait: Duration, samples: &mut Vec<f32>) -> Result<Heard, Unavailable>;
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::capture) struct Heard {
    /// There were samples.
    pub(in crate::capture) any: bool,
    /// Samples were lost before these.
    pub(in crate::capture) overrun: bool,
}

/// Opens what a microphone listens to.
pub(in crate::capture) type Open =
    Box<dyn FnMut(&MicrophoneOptions) -> Result<Box<dyn Sound>, Unavailable> + Send>;

/// What a microphone is to do, over unplugging and panics.
pub(in crate::capture) struct Listener {
    config: MicrophoneOptions,
    muted: bool,
    /// The device gives sound.
    listening: bool,
    segmenter: Segmenter,
    /// Listens for wake words; loaded when the device is opened.
    spotter: Option<Spotter>,
    /// Wake words are listened for.
    wakes: bool,
    /// Listens for words that end what the speaker says.
    stopper: Option<Spotter>,
    talking: Arc<Talking>,
    /// The speaker sounds.
    sounding: bool,
    /// The speaker speaks, so this is not listened to.
    resting: bool,
    /// Where what is being said goes.
    speech: Option<utterance::Sender>,
    meter: Meter,
    /// Of the last second, in which a wake word may have been said.
    loudness: Loudness,
    backoff: Backoff,
    teller: Teller,
    open: Open,
}

impl Listener {
    pub(in crate::capture) fn new(
        config: MicrophoneOptions,
        muted: bool,
        talking: Arc<Talking>,
        teller: Teller,
        open: Open,
    ) -> Listener {
        let gate = match config.trigger {
            Trigger::Voice | Trigger::WakePhrase => Gate::Open,
            Trigger::PushToTalk => Gate::PushToTalk,
            Trigger::WakeWord => Gate::WakeWord {
                with_word: config.wake.verify,
            },
        };
        Listener {
            segmenter: Segmenter::new(&config.speech, gate),
            config,
            muted,
            listening: false,
            spotter: None,
            wakes: true,
            stopper: None,
            talking,
            sounding: false,
            resting: false,
            speech: None,
            meter: Meter::default(),
            loudness: Loudness::default(),
            backoff: Backoff::new(),
            teller,
            open,
        }
    }

    /// Listens until the end.
    pub(in crate::capture) fn run(
        &mut self,
        controls: &Receiver<MicrophoneControl>,
    ) -> Result<(), Ended> {
        loop {
            self.listening = false;
            if self.muted {
                self.teller.state(DeviceState::Off)?;
                let control = controls.recv().map_err(|_| Ended)?;
                self.obey(control)?;
                continue;
            }
            let opened = Instant::now();
            let sound = self.load().and_then(|()| (self.open)(&self.config));
            let Unavailable(reason) = match sound {
                Ok(sound) => match self.listen(sound, controls)? {
                    Some(unavailable) => unavailable,
                    None => continue,
                },
                Err(unavailable) => unavailable,
            };
            self.listening = false;
            self.tell(Segmenter::interrupt)?;
            self.teller.state(DeviceState::Offline { reason })?;
            let wait = self.backoff.after(opened.elapsed());
            self.wait(controls, wait)?;
        }
    }

    /// Loads the wake words and the words that stop, where there are some and it has not been done.
    fn load(&mut self) -> Result<(), Unavailable> {
        let wake = &self.config.wake;
        if self.config.trigger == Trigger::WakeWord {
            load_or_reset(&mut self.spotter, &wake.models, wake.sensitivity)?;
        }
        if !wake.stop_models.is_empty() {
            load_or_reset(&mut self.stopper, &wake.stop_models, wake.sensitivity)?;
        }
        Ok(())
    }

    /// Reads an open device until it fails (why), or until it is to be closed.
    fn listen(
        &mut self,
        mut sound: Box<dyn Sound>,
        controls: &Receiver<MicrophoneControl>,
    ) -> Result<Option<Unavailable>, Ended> {
        let mut heard_at = Instant::now();
        let mut samples = Vec::new();
        loop {
            let mut obeyed = 0;
            while !self.muted && obeyed < AT_ONCE {
                match controls.try_recv() {
                    Ok(control) => self.obey(control)?,
                    Err(TryRecvError::Disconnected) => return Err(Ended),
                    Err(TryRecvError::Empty) => break,
                }
                obeyed += 1;
            }
            if self.muted {
                // What was heard so far is not to be used. The device closes before anybody is told that it is.
                drop(sound);
                self.tell(Segmenter::forget)?;
                return Ok(None);
            }
            samples.clear();
            let heard = match sound.read(WAIT, &mut samples) {
                Ok(heard) => heard,
                Err(unavailable) => return Ok(Some(unavailable)),
            };
            if heard.overrun {
                self.send(MicrophoneEvent::Overrun)?;
            }
            if heard.any {
                heard_at = Instant::now();
                self.listening = true;
                self.teller.state(DeviceState::Online)?;
                for piece in samples.chunks(SPOTTED_SAMPLES) {
                    self.hear(piece)?;
                }
            } else if heard_at.elapsed() >= SILENT {
                return Ok(Some(Unavailable(format!(
                    "{} is open and gives no sound: unplug it and plug it in again",
                    self.config.source()
                ))));
            }
        }
    }

    /// Waits before the next try; a control that changes what is to be done ends the wait.
    fn wait(
        &mut self,
        controls: &Receiver<MicrophoneControl>,
        wait: Duration,
    ) -> Result<(), Ended> {
        let until = Instant::now() + wait;
        while !self.muted {
            match controls.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(control) => self.obey(control)?,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
        Ok(())
    }

    fn obey(&mut self, control: MicrophoneControl) -> Result<(), Ended> {
        match control {
            MicrophoneControl::Stop => {
                // At the end of the daemon what was heard so far still counts; a reload has cancelled its job.
                if let Some(speech) = self.speech.take() {
                    speech.end(true);
                }
                return Err(Ended);
            }
            MicrophoneControl::Mute(muted) => self.muted = muted,
            MicrophoneControl::Wake(wakes) => {
                self.wakes = wakes;
                self.spotter.iter_mut().for_each(Spotter::reset);
            }
            MicrophoneControl::Listen if self.listening => self.segmenter.listen(),
            MicrophoneControl::Follow(seconds) if self.listening => {
                self.segmenter.follow(seconds);
            }
            MicrophoneControl::Follow(_) => self.send(MicrophoneEvent::FollowTimedOut)?,
            // Nothing can be heard now: whoever pressed the button should know.
            MicrophoneControl::Listen => self.send(MicrophoneEvent::ListenTimedOut)?,
        }
        Ok(())
    }

    /// Hears what was said, unless it is the board's own voice: then only for a word that stops it.
    fn hear(&mut self, samples: &[f32]) -> Result<(), Ended> {
        let sounds = self.talking.sounds();
        if sounds != std::mem::replace(&mut self.sounding, sounds) {
            self.stopper.iter_mut().for_each(Spotter::reset);
        }
        let stopped = self
            .stopper
            .as_mut()
            .filter(|_| sounds)
            .and_then(|it| it.push(samples));
        if stopped.is_some() {
            self.send(MicrophoneEvent::StopWord)?;
        }
        let rests = self.talking.wants_rest(self.segmenter.is_speaking());
        if rests != self.resting {
            self.resting = rests;
            // What is heard before and what is heard after do not belong together.
            self.tell(Segmenter::cut)?;
            if let Some(spotter) = &mut self.spotter {
                spotter.reset();
            }
        }
        if rests {
            return Ok(());
        }
        self.measure(samples)?;
        self.tell(|segmenter, tell| segmenter.push(samples, tell))?;
        self.spot(samples)
    }

    /// Wakes, where a wake word has just been said and nothing that began with one is being said to it already.
    fn spot(&mut self, samples: &[f32]) -> Result<(), Ended> {
        if self.spotter.is_some() {
            self.loudness.push(samples);
        }
        let Some(spotter) = self.spotter.as_mut().filter(|_| self.wakes) else {
            return Ok(());
        };
        let woken = spotter.push(samples);
        if let Some(score) = spotter.score() {
            self.send(MicrophoneEvent::Score(score))?;
        }
        let Some(woken) = woken.filter(|_| !self.segmenter.is_woken()) else {
            return Ok(());
        };
        // Whoever goes on after an answer, or after the button, may say the word all the same: it counts from there.
        self.tell(Segmenter::give_up)?;
        self.send(MicrophoneEvent::Woken {
            phrase: woken.phrase,
            score: woken.score,
            dbfs: self.loudness.dbfs(),
        })?;
        self.tell(Segmenter::wake)
    }

    /// Tells how loud it is, to whoever pressed the button and looks at a meter.
    fn measure(&mut self, samples: &[f32]) -> Result<(), Ended> {
        if !self.segmenter.is_listening() {
            self.meter.forget();
        } else if let Some(dbfs) = self.meter.push(samples) {
            self.send(MicrophoneEvent::Level(dbfs))?;
        }
        Ok(())
    }

    /// Sends what the segmenter finds while `work` uses it.
    fn tell(
        &mut self,
        work: impl FnOnce(&mut Segmenter, &mut dyn FnMut(SpeechEvent)),
    ) -> Result<(), Ended> {
        let mut found = Vec::new();
        work(&mut self.segmenter, &mut |event| found.push(event));
        for event in found {
            self.pass_on(event)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, event: SpeechEvent) -> Result<(), Ended> {
        match event {
            SpeechEvent::Started => {
                let (sender, receiver) = utterance::channel();
                self.speech = Some(sender);
                self.send(MicrophoneEvent::SpeechStarted(receiver))
            }
            SpeechEvent::Samples(samples) => {
                if let Some(speech) = &self.speech {
                    speech.push(&samples);
                }
                Ok(())
            }
            SpeechEvent::Paused => {
                if let Some(speech) = &self.speech {
                    speech.pause();
                }
                Ok(())
            }
            SpeechEvent::Ended { truncated } => {
                if let Some(speech) = self.speech.take() {
                    speech.end(truncated);
                }
                self.send(MicrophoneEvent::SpeechEnded { counts: true })
            }
            SpeechEvent::Cancelled => {
                self.speech = None;
                self.send(MicrophoneEvent::SpeechEnded { counts: false })
            }
            SpeechEvent::ListenTimedOut => self.send(MicrophoneEvent::ListenTimedOut),
            SpeechEvent::FollowTimedOut => self.send(MicrophoneEvent::FollowTimedOut),
        }
    }

    fn send(&mut self, event: MicrophoneEvent) -> Result<(), Ended> {
        let id = self.teller.id().to_owned();
        self.teller.send(CaptureEvent::Microphone { id, event })
    }
}

/// Loads what is not loaded yet; what is begins anew.
fn load_or_reset(
    spotter: &mut Option<Spotter>,
    models: &[PathBuf],
    sensitivity: f64,
) -> Result<(), Unavailable> {
    match spotter {
        Some(spotter) => spotter.reset(),
        None => {
            let loaded = Spotter::load(models, sensitivity);
            *spotter = Some(loaded.map_err(|error| Unavailable(error.to_string()))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
