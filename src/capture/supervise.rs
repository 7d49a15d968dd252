//! What every device's thread does alike: it waits longer after each failure, tells each state once, and ends in time.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::EventSink;
use crate::media::{CaptureEvent, DeviceState};

/// Why a device cannot be used now, in one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unavailable(pub(super) String);

/// The daemon is gone, or asked for the end.
#[derive(Debug)]
pub(super) struct Ended;

/// First and longest wait between two tries.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A device that worked for so long is tried again at once; one that comes and goes is not.
const STEADY: Duration = Duration::from_secs(30);

/// Waits between tries to open a device: 1 s doubling to 30 s, each up to a quarter more, so that devices which vanished
/// together do not come back in step.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: SHORTEST }
    }

    /// The wait after a try that failed, or after a device that worked for `worked`.
    pub(super) fn after(&mut self, worked: Duration) -> Duration {
        if worked >= STEADY {
            self.next = SHORTEST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        // The standard library seeds its hashers at random.
        let random = std::hash::RandomState::new().build_hasher().finish() as u32;
        wait + (wait / 4).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Sends events, and tells and logs a state only when it is another than before.
pub(super) struct Teller {
    id: String,
    state: Option<DeviceState>,
    wrap: fn(String, DeviceState) -> CaptureEvent,
    events: EventSink,
}

impl Teller {
    pub(super) fn new(
        id: String,
        wrap: fn(String, DeviceState) -> CaptureEvent,
        events: EventSink,
    ) -> Teller {
        Teller {
            id,
            state: None,
            wrap,
            events,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn send(&mut self, event: CaptureEvent) -> Result<(), Ended> {
        if (self.events)(event) {
            Ok(())
        } else {
            Err(Ended)
        }
    }

    pub(super) fn state(&mut self, state: DeviceState) -> Result<(), Ended> {
        if self.state.as_ref() == Some(&state) {
            return Ok(());
        }
        let source = self.id.as_str();
        match &state {
            DeviceState::Online => log::info!(source; "{source} is online"),
            DeviceState::Offline { reason } => {
                log::warn!(source, reason; "{source} is offline: {reason}");
            }
            DeviceState::Off => log::info!(source; "{source} is off"),
        }
        self.state = Some(state.clone());
        self.send((self.wrap)(self.id.clone(), state))
    }
}

/// Longest wait for a thread to end; what then still runs hangs in a driver, and ends with the process.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A device's thread and the way to it.
pub(super) struct Supervised<C> {
    controls: Sender<C>,
    thread: JoinHandle<()>,
}

impl<C: Send + 'static> Supervised<C> {
    /// Starts `run` on a thread of its own. A panic in it (drivers' wrappers have some) costs a try, no more.
    pub(super) fn start<R>(name: &str, mut run: R) -> io::Result<Supervised<C>>
    where
        R: FnMut(&Receiver<C>) -> Result<(), Ended> + Send + 'static,
    {
        let (controls, received) = channel();
        let source = name.to_owned();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut backoff = Backoff::new();
                loop {
                    let started = Instant::now();
                    // Whatever `run` holds over a panic is a value that it sets anew.
                    match catch_unwind(AssertUnwindSafe(|| run(&received))) {
                        Ok(_) => return,
                        Err(_) => {
                            let source = source.as_str();
                            log::error!(source; "{source}: the device's thread panicked; it starts again");
                            std::thread::sleep(backoff.after(started.elapsed()));
                        }
                    }
                }
            })?;
        Ok(Supervised { controls, thread })
    }

    /// Hands a control to the thread.
    pub(super) fn control(&self, control: C) {
        // A thread that has ended needs none.
        self.controls.send(control).ok();
    }

    /// Whether the thread is over.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread, which was told to end.
    pub(super) fn join(self) {
        let source = self.thread.thread().name().unwrap_or_default();
        let asked = Instant::now();
        while !self.thread.is_finished() {
            if asked.elapsed() >= JOIN_TIMEOUT {
                log::warn!(source; "{source} does not let go of its device");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_start_over_after_steady_work() {
        let mut backoff = Backoff::new();
        let waits: Vec<f64> = (0..7)
            .map(|_| backoff.after(Duration::ZERO).as_secs_f64())
            .collect();
        for (wait, least) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
            assert!(
                (least..=least * 1.25).contains(wait),
                "{waits:?} at {least}"
            );
        }
        assert!(backoff.after(STEADY) < Duration::from_millis(1251));
    }

    #[test]
    fn a_panic_costs_a_try() {
        let (tell, told) = channel();
        let mut tries = 0;
        let supervised = Supervised::<()>::start("test", move |_| {
            tries += 1;
            tell.send(tries).ok();
            if tries == 1 {
                panic!("expected by the test");
            }
            Err(Ended)
        })
        .unwrap();
        let wait = Duration::from_secs(20);
        assert_eq!(told.recv_timeout(wait), Ok(1));
        assert_eq!(told.recv_timeout(wait), Ok(2));
        supervised.join();
    }
}
