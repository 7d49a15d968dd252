//! Where the loop's events come from.

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::event::Event;
use crate::report::Request;

/// Where events come from.
pub(super) struct Inputs {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hang_up: Signal,
}

impl Inputs {
    pub(super) async fn next(&mut self, tick: &mut tokio::time::Interval) -> Event {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::Terminate,
            _ = self.interrupt.recv() => Event::Terminate,
            _ = self.hang_up.recv() => Event::Reload,
            _ = tick.tick() => Event::Tick,
            Some(event) = self.events.recv() => event,
            Some(request) = self.requests.recv() => Event::Requested(Box::new(request)),
        }
    }
}
