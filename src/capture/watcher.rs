//! A camera's thread: opens the source, looks for motion, gives the pictures that are to be described, and obeys.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::motion::{MotionChange, MotionDetector};
use super::occasion::Occasions;
use super::options::CameraOptions;
use super::pace::Pace;
use super::picture::Picture;
use super::source::Source;
use super::supervise::{Backoff, Ended, Teller, Unavailable};
use crate::features::image::{ImageLimits, Overview};
use crate::media::{
    CameraControl, CameraEvent, CaptionTrigger, CaptureEvent, DeviceState, VideoFrame,
};

/// Longest wait for a picture, and so for a control to be obeyed.
const WAIT: Duration = Duration::from_millis(100);

/// A request that found no picture for so long fails.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

/// A camera that is opened for single pictures stays open so long, for the next.
const LINGER: Duration = Duration::from_secs(10);

/// Damaged pictures in a row after which the source is given up: single ones are usual on USB.
const MAX_DAMAGED: u32 = 10;

/// What a camera is to do, over unplugging and panics.
pub(super) struct Watcher {
    config: CameraOptions,
    limits: ImageLimits,
    enabled: bool,
    /// Clock of everything below.
    started: Instant,
    motion: MotionDetector,
    occasions: Occasions,
    /// Requests that wait for a picture, and when each is given up.
    snapshots: Vec<(u64, Duration)>,
    /// A picture was seen since the camera was enabled, or since it was gone: otherwise one is wanted to know.
    seen: bool,
    backoff: Backoff,
    teller: Teller,
}

impl Watcher {
    pub(super) fn new(
        config: CameraOptions,
        limits: ImageLimits,
        enabled: bool,
        captions: bool,
        teller: Teller,
    ) -> Watcher {
        Watcher {
            motion: MotionDetector::new(&config.motion),
            occasions: Occasions::new(config.every_s, config.cooldown_s, captions, Duration::ZERO),
            config,
            limits,
            enabled,
            started: Instant::now(),
            snapshots: Vec::new(),
            seen: false,
            backoff: Backoff::new(),
            teller,
        }
    }

    /// Watches until the end.
    pub(super) fn run(&mut self, controls: &Receiver<CameraControl>) -> Result<(), Ended> {
        loop {
            if !self.enabled {
                self.seen = false;
                self.lose_sight("the camera is disabled")?;
                self.teller.state(DeviceState::Off)?;
                let control = controls.recv().map_err(|_| Ended)?;
                self.obey(control)?;
            } else if !self.needed() {
                // Closed until somebody asks, or the time comes.
                self.wait(controls, WAIT)?;
            } else {
                let opened = Instant::now();
                let watched = match self.config.open(&self.limits) {
                    Ok(source) => self.watch(source, controls)?,
                    Err(unavailable) => Err(unavailable),
                };
                if let Err(Unavailable(reason)) = watched {
                    self.seen = false;
                    self.lose_sight(&reason)?;
                    self.teller.state(DeviceState::Offline { reason })?;
                    let wait = self.backoff.after(opened.elapsed());
                    self.wait(controls, wait)?;
                }
            }
        }
    }

    /// Whether the source has to be open.
    fn needed(&self) -> bool {
        self.config.motion.enabled
            || !self.seen
            || !self.snapshots.is_empty()
            || self.occasions.due(self.started.elapsed()).is_some()
    }

    /// Watches an open source until it fails, or until it is to be closed.
    fn watch(
        &mut self,
        mut source: Box<dyn Source>,
        controls: &Receiver<CameraControl>,
    ) -> Result<Result<(), Unavailable>, Ended> {
        let mut needed_at = self.started.elapsed();
        let mut pace = Pace::new(self.config.fps, needed_at);
        let mut damaged = 0;
        loop {
            loop {
                match controls.try_recv() {
                    Ok(control) => self.obey(control)?,
                    Err(TryRecvError::Disconnected) => return Err(Ended),
                    Err(TryRecvError::Empty) => break,
                }
            }
            let now = self.started.elapsed();
            if self.needed() {
                needed_at = now;
            }
            if !self.enabled || now.saturating_sub(needed_at) >= LINGER {
                return Ok(Ok(()));
            }
            let look = self.config.motion.enabled && pace.look(now);
            let due = self.occasions.due(now).is_some();
            let asked = look || due || !self.snapshots.is_empty() || !self.seen;
            let wanted = asked && pace.may_take(now);
            let wait = if self.config.motion.enabled {
                WAIT.min(pace.until_look(now))
            } else {
                WAIT
            };
            match source.next(wait, wanted) {
                Err(unavailable) => return Ok(Err(unavailable)),
                Ok(None) => {}
                Ok(Some(picture)) => match picture.overview(&self.limits) {
                    Ok(overview) => {
                        damaged = 0;
                        pace.seen(now);
                        self.see(picture, &overview)?;
                    }
                    Err(error) if damaged + 1 >= MAX_DAMAGED => {
                        return Ok(Err(Unavailable(format!(
                            "{} gives no picture that can be used: {error}",
                            self.config.source()
                        ))));
                    }
                    Err(error) => {
                        let source = self.teller.id();
                        log::debug!(source; "{source}: a damaged picture was dropped: {error}");
                        damaged += 1;
                        pace.damaged(self.started.elapsed());
                    }
                },
            }
            self.give_up_old_snapshots()?;
        }
    }

    /// A picture came.
    fn see(&mut self, picture: Picture, overview: &Overview) -> Result<(), Ended> {
        let now = self.started.elapsed();
        self.seen = true;
        self.teller.state(DeviceState::Online)?;
        if self.config.motion.enabled {
            match self.motion.look(&overview.luma, now) {
                Some(MotionChange::Started(extent)) => {
                    self.occasions.motion_started();
                    self.send(CameraEvent::MotionStarted(extent))?;
                }
                Some(MotionChange::Ended) => {
                    self.occasions.motion_ended();
                    self.send(CameraEvent::MotionEnded)?;
                }
                None => {}
            }
        }
        let due = self.occasions.due(now);
        if due.is_none() && self.snapshots.is_empty() {
            return Ok(());
        }
        let frame = match picture.into_frame(overview.picture_px) {
            Ok(frame) => frame,
            Err(error) => {
                return self.fail_snapshots(&format!("the picture cannot be encoded: {error}"));
            }
        };
        for (request, _) in std::mem::take(&mut self.snapshots) {
            self.send_frame(frame.clone(), CaptionTrigger::Request, Some(request))?;
        }
        if let Some(trigger) = due {
            self.occasions.captioned(now);
            self.send_frame(frame, trigger, None)?;
        }
        Ok(())
    }

    fn send_frame(
        &mut self,
        frame: VideoFrame,
        trigger: CaptionTrigger,
        request: Option<u64>,
    ) -> Result<(), Ended> {
        let motion = (trigger == CaptionTrigger::Motion).then(|| self.motion.moving());
        self.send(CameraEvent::Frame {
            frame,
            trigger,
            motion: motion.flatten(),
            request,
        })
    }

    /// Nothing can be seen any more.
    fn lose_sight(&mut self, reason: &str) -> Result<(), Ended> {
        if self.motion.restart() {
            self.occasions.motion_ended();
            self.send(CameraEvent::MotionEnded)?;
        }
        self.fail_snapshots(reason)
    }

    fn fail_snapshots(&mut self, reason: &str) -> Result<(), Ended> {
        for (request, _) in std::mem::take(&mut self.snapshots) {
            self.send(CameraEvent::FrameFailed {
                request,
                reason: reason.to_owned(),
            })?;
        }
        Ok(())
    }

    fn give_up_old_snapshots(&mut self) -> Result<(), Ended> {
        let now = self.started.elapsed();
        let (waiting, late) = std::mem::take(&mut self.snapshots)
            .into_iter()
            .partition(|(_, until)| now < *until);
        self.snapshots = late;
        let told = format!("no picture came within {} s", SNAPSHOT_TIMEOUT.as_secs());
        self.fail_snapshots(&told)?;
        self.snapshots = waiting;
        Ok(())
    }

    /// Waits, but not longer than until something is asked.
    fn wait(&mut self, controls: &Receiver<CameraControl>, wait: Duration) -> Result<(), Ended> {
        let until = Instant::now() + wait;
        while self.enabled && self.snapshots.is_empty() {
            match controls.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(control) => self.obey(control)?,
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        Ok(())
    }

    fn obey(&mut self, control: CameraControl) -> Result<(), Ended> {
        match control {
            CameraControl::Stop => return Err(Ended),
            CameraControl::Enable(enabled) => self.enabled = enabled,
            CameraControl::Captions(captions) => self.occasions.captions = captions,
            CameraControl::Snapshot(request) => self
                .snapshots
                .push((request, self.started.elapsed() + SNAPSHOT_TIMEOUT)),
        }
        Ok(())
    }

    fn send(&mut self, event: CameraEvent) -> Result<(), Ended> {
        let id = self.teller.id().to_owned();
        self.teller.send(CaptureEvent::Camera { id, event })
    }
}
