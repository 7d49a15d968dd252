//! The speaker's thread: opens the device, says what waits, makes its short sounds over it, and obeys.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::output::{Open, Output};
use super::signs::Signs;
use super::track::{Flow, Track};
use super::waiting::Waiting;
use crate::capture::options::SpeakerOptions;
use crate::capture::supervise::{Backoff, Ended, Teller, Unavailable};
use crate::media::{
    CaptureEvent, DeviceState, Rest, Sign, SpeakerControl, SpeakerEvent, Speech, SpeechEnd, Talking,
};

/// Blocks that are written in a second.
const BLOCKS_A_SECOND: usize = 50;

/// How often a device that is silent is asked whether it is still there.
const CHECK: Duration = Duration::from_secs(1);

/// How often it is looked for sound that is still being made.
const DRY: Duration = Duration::from_millis(10);

/// Controls that are obeyed between two blocks at most: a flood of them does not break off what is said.
const AT_ONCE: usize = 32;

/// How long what is to be said waits for somebody who speaks.
const HELD_BACK: Duration = Duration::from_secs(30);

/// Microphones are there longer than the speaker, and listen while it starts again after a panic.
struct SilentAtLast(Arc<Talking>);

impl Drop for SilentAtLast {
    fn drop(&mut self) {
        self.0.set(Rest::Silent);
    }
}

/// What the speaker is to do, over unplugging and panics.
pub(super) struct Player {
    options: SpeakerOptions,
    volume: u8,
    /// Somebody is listened to, since then.
    ducked: Option<Instant>,
    /// How loud the last sample was, of full scale.
    gain: f32,
    waiting: Waiting,
    now: Option<Track>,
    /// A short sound, and how much of it has been heard.
    sign: Option<(Sign, usize)>,
    /// The newest of those that were wanted meanwhile: a torn one is none.
    next_sign: Option<Sign>,
    /// The speaker sounds, or did until just now.
    speaking: bool,
    /// Until then the room goes on sounding.
    tail: Option<Instant>,
    /// Until when the room sounds of the last speech.
    said_until: Option<Instant>,
    talking: Arc<Talking>,
    backoff: Backoff,
    teller: Teller,
    open: Open,
}

impl Player {
    pub(super) fn new(
        options: SpeakerOptions,
        volume: u8,
        talking: Arc<Talking>,
        teller: Teller,
        open: Open,
    ) -> Player {
        Player {
            waiting: Waiting::new(options.waiting),
            options,
            volume,
            ducked: None,
            gain: 0.0,
            now: None,
            sign: None,
            next_sign: None,
            speaking: false,
            tail: None,
            said_until: None,
            talking,
            backoff: Backoff::new(),
            teller,
            open,
        }
    }

    /// Plays until the end.
    pub(super) fn run(&mut self, controls: &Receiver<SpeakerControl>) -> Result<(), Ended> {
        // After a panic: what was said then is not tried again.
        self.end_now(SpeechEnd::Failed("the speaker broke off".to_owned()))?;
        let _silent = SilentAtLast(Arc::clone(&self.talking));
        self.open_and_play(controls)
    }

    fn open_and_play(&mut self, controls: &Receiver<SpeakerControl>) -> Result<(), Ended> {
        let device = self.options.device.clone().unwrap_or_default();
        loop {
            let opened = Instant::now();
            let output = (self.open)(&device).and_then(|output| {
                let signs = Signs::load(&self.options.files, output.rate_hz())?;
                Ok((output, signs))
            });
            let Unavailable(reason) = match output {
                Ok((output, signs)) => {
                    self.teller.state(DeviceState::Online)?;
                    self.play(output, &signs, controls)?
                }
                Err(unavailable) => unavailable,
            };
            self.give_up(&reason)?;
            self.teller.state(DeviceState::Offline {
                reason: reason.clone(),
            })?;
            let until = Instant::now() + self.backoff.after(opened.elapsed());
            self.wait(controls, until, &reason)?;
        }
    }

    /// Plays to an open device until it fails; why.
    fn play(
        &mut self,
        mut output: Box<dyn Output>,
        signs: &Signs,
        controls: &Receiver<SpeakerControl>,
    ) -> Result<Unavailable, Ended> {
        let (mut patience, mut obeyed) = (Duration::ZERO, 0);
        loop {
            let control = match patience.is_zero() {
                true if obeyed == AT_ONCE => Err(RecvTimeoutError::Timeout),
                true => controls.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                false => controls.recv_timeout(patience),
            };
            obeyed = control.as_ref().map_or(0, |_| obeyed + 1);
            let done = match control {
                Ok(control) => self.obey(control, &mut *output)?.map(|()| Duration::ZERO),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
                Err(RecvTimeoutError::Timeout) if self.is_idle() => self.rest(&mut *output)?,
                Err(RecvTimeoutError::Timeout) => self.step(&mut *output, signs)?,
            };
            match done {
                Ok(wait) => patience = wait,
                Err(unavailable) => return Ok(unavailable),
            }
        }
    }

    fn is_idle(&self) -> bool {
        let waits = !self.waiting.is_empty() && !self.holds_back();
        self.now.is_none() && self.sign.is_none() && !waits
    }

    /// Microphones would rest, and somebody speaks at one: what is to be said waits, unless it is urgent.
    fn holds_back(&self) -> bool {
        let waits_for = |since: Instant| since.elapsed() < HELD_BACK;
        self.options.half_duplex && self.ducked.is_some_and(waits_for) && !self.waiting.is_urgent()
    }

    /// Nothing is to be heard; how long that may stay unwatched.
    fn rest(&mut self, output: &mut dyn Output) -> Result<Result<Duration, Unavailable>, Ended> {
        if self.speaking {
            let until = self.tail.or_else(|| self.room_sounds());
            let until = until.unwrap_or_else(|| self.tail_end());
            self.tail = Some(until);
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Ok(Ok(left));
            }
            self.fall_silent()?;
        }
        Ok(output.check().map(|()| CHECK))
    }

    /// Until when the room sounds of what was said, where it does.
    fn room_sounds(&self) -> Option<Instant> {
        self.said_until.filter(|it| *it > Instant::now())
    }

    /// When the room is silent, if nothing sounds from now on.
    fn tail_end(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.options.tail_ms.into())
    }

    /// Makes the next block, and hands it over; how long it is waited for more.
    fn step(
        &mut self,
        output: &mut dyn Output,
        signs: &Signs,
    ) -> Result<Result<Duration, Unavailable>, Ended> {
        let rate_hz = output.rate_hz();
        if self.now.is_none() && !self.begin_next(rate_hz)? && self.sign.is_none() {
            return Ok(Ok(Duration::ZERO));
        }
        let count = rate_hz as usize / BLOCKS_A_SECOND;
        let mut block = Vec::with_capacity(count);
        let flow = self.now.as_mut().map(|now| now.fill(count, &mut block));
        self.turn_down(&mut block);
        let sign = self.sign.map(|(sign, _)| sign);
        self.add_sign(signs, count, &mut block);
        if !block.is_empty() {
            self.sound_up(sign)?;
            if let Err(unavailable) = output.write(&block) {
                return Ok(Err(unavailable));
            }
        }
        if let Some(Flow::Over(end)) = flow {
            // It is over for whoever asked once it has been heard; a short sound over it is not torn for that.
            if self.sign.is_none()
                && let Err(unavailable) = output.finish()
            {
                return Ok(Err(unavailable));
            }
            self.end_now(end)?;
        }
        if self.is_idle()
            && let Err(unavailable) = output.finish()
        {
            return Ok(Err(unavailable));
        }
        if block.is_empty() && self.now.is_some() {
            // While more is being made, the device may go, too.
            return Ok(output.check().map(|()| DRY));
        }
        Ok(Ok(Duration::ZERO))
    }

    /// Begins what waits; whether there was something that could be begun.
    fn begin_next(&mut self, rate_hz: u32) -> Result<bool, Ended> {
        if self.holds_back() {
            return Ok(false);
        }
        let Some(speech) = self.waiting.next() else {
            return Ok(false);
        };
        let id = speech.id.clone();
        let (longest_s, max_bytes) = (self.options.longest_s, self.options.max_audio_bytes);
        match Track::new(speech, rate_hz, longest_s, max_bytes) {
            Ok(track) => {
                self.now = Some(track);
                self.tell(SpeakerEvent::Began(id))?;
                Ok(true)
            }
            Err(reason) => {
                let end = SpeechEnd::Failed(reason);
                self.tell(SpeakerEvent::Ended { id, end })?;
                Ok(false)
            }
        }
    }

    /// Makes what is said as loud as it should be, without a jump.
    fn turn_down(&mut self, block: &mut [f32]) {
        let share = f32::from(self.volume) / 100.0;
        let ducked = match self.ducked.is_some() || self.sign.is_some() {
            true => f32::from(self.options.ducked) / 100.0,
            false => 1.0,
        };
        // Loudness is heard as a power of the pressure: half of the way sounds half as loud.
        let wanted = share * share * ducked;
        let step = (wanted - self.gain) / block.len().max(1) as f32;
        for sample in &mut *block {
            self.gain += step;
            *sample *= self.gain;
        }
        // While nothing sounds, nothing becomes louder or quieter.
        if !block.is_empty() || self.sign.is_some() {
            self.gain = wanted;
        }
    }

    /// Adds the next stretch of a short sound.
    fn add_sign(&mut self, signs: &Signs, count: usize, block: &mut Vec<f32>) {
        let Some((sign, at)) = self.sign else {
            return;
        };
        let samples = signs.samples(sign);
        let next = &samples[at.min(samples.len())..samples.len().min(at + count)];
        block.resize(block.len().max(next.len()), 0.0);
        let share = f32::from(self.volume) / 100.0;
        for (sample, sign) in block.iter_mut().zip(next) {
            *sample += sign * share * share;
        }
        let at = at + next.len();
        self.sign = match at < samples.len() {
            true => Some((sign, at)),
            false => self.next_sign.take().map(|next| (next, 0)),
        };
    }

    /// Sound begins, or goes on with something else: microphones rest as that wants it.
    fn sound_up(&mut self, sign: Option<Sign>) -> Result<(), Ended> {
        self.talking.set(match (&self.now, sign) {
            _ if !self.options.half_duplex => Rest::No,
            (Some(_), _) => Rest::Yes,
            // The room still sounds of what was said.
            _ if self.room_sounds().is_some() => Rest::Yes,
            // Whoever is asked to speak must not be missed.
            (None, Some(Sign::Listening)) => Rest::No,
            (None, _) => Rest::UnlessSpokenTo,
        });
        self.tail = None;
        if !self.speaking {
            self.speaking = true;
            self.tell(SpeakerEvent::Speaking(true))?;
        }
        Ok(())
    }

    fn fall_silent(&mut self) -> Result<(), Ended> {
        self.tail = None;
        self.talking.set(Rest::Silent);
        if self.speaking {
            self.speaking = false;
            self.tell(SpeakerEvent::Speaking(false))?;
        }
        Ok(())
    }

    fn obey(
        &mut self,
        control: SpeakerControl,
        output: &mut dyn Output,
    ) -> Result<Result<(), Unavailable>, Ended> {
        match control {
            SpeakerControl::Say(speech) => {
                let takes_its_place =
                    speech.urgent && self.now.as_ref().is_some_and(|now| !now.urgent);
                self.enqueue(speech)?;
                if takes_its_place {
                    return self.cut_short(output);
                }
                if self.now.is_none() {
                    self.begin_next(output.rate_hz())?;
                }
            }
            SpeakerControl::Sign(sign) if self.options.sounds => match self.sign {
                None => self.sign = Some((sign, 0)),
                Some(_) => self.next_sign = Some(sign),
            },
            SpeakerControl::Sign(_) => {}
            SpeakerControl::Silence(id) => {
                for speech in self.waiting.take(id.as_deref()) {
                    self.tell_end(speech.id, SpeechEnd::Stopped)?;
                }
                let is_meant = |now: &Track| id.as_ref().is_none_or(|id| *id == now.id);
                if self.now.as_ref().is_some_and(is_meant) {
                    return self.cut_short(output);
                }
            }
            SpeakerControl::Volume(volume) => self.volume = volume,
            SpeakerControl::Duck(ducked) => self.duck(ducked),
            SpeakerControl::Stop => return Err(Ended),
        }
        Ok(Ok(()))
    }

    fn duck(&mut self, ducked: bool) {
        self.ducked = ducked.then(|| self.ducked.unwrap_or_else(Instant::now));
    }

    fn enqueue(&mut self, speech: Speech) -> Result<(), Ended> {
        match self.waiting.push(speech) {
            Some(oldest) => self.tell_end(oldest.id, SpeechEnd::Dropped),
            None => Ok(()),
        }
    }

    /// Ends what is being said, at once.
    fn cut_short(&mut self, output: &mut dyn Output) -> Result<Result<(), Unavailable>, Ended> {
        let hushed = output.hush();
        self.end_now(SpeechEnd::Stopped)?;
        Ok(hushed)
    }

    fn end_now(&mut self, end: SpeechEnd) -> Result<(), Ended> {
        match self.now.take() {
            Some(track) => {
                self.said_until = Some(self.tail_end());
                self.tell_end(track.id, end)
            }
            None => Ok(()),
        }
    }

    /// The device is gone: nothing of what was to be said will be.
    fn give_up(&mut self, reason: &str) -> Result<(), Ended> {
        let failed = || SpeechEnd::Failed(offline(reason));
        (self.sign, self.next_sign) = (None, None);
        self.end_now(failed())?;
        for speech in self.waiting.take(None) {
            self.tell_end(speech.id, failed())?;
        }
        self.fall_silent()
    }

    /// Waits before the next try.
    fn wait(
        &mut self,
        controls: &Receiver<SpeakerControl>,
        until: Instant,
        reason: &str,
    ) -> Result<(), Ended> {
        loop {
            match controls.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(SpeakerControl::Say(speech)) => {
                    self.tell_end(speech.id, SpeechEnd::Failed(offline(reason)))?;
                }
                Ok(SpeakerControl::Volume(volume)) => self.volume = volume,
                Ok(SpeakerControl::Duck(ducked)) => self.duck(ducked),
                Ok(SpeakerControl::Sign(_) | SpeakerControl::Silence(_)) => {}
                Ok(SpeakerControl::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Ended);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
            }
        }
    }

    fn tell_end(&mut self, id: String, end: SpeechEnd) -> Result<(), Ended> {
        self.tell(SpeakerEvent::Ended { id, end })
    }

    fn tell(&mut self, event: SpeakerEvent) -> Result<(), Ended> {
        self.teller.send(CaptureEvent::Speaker(event))
    }
}

fn offline(reason: &str) -> String {
    format!("the speaker is offline: {reason}")
}

#[cfg(test)]
mod tests;
