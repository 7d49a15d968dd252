//! The door of the daemon, with a test in the daemon's place.

use std::sync::Arc;
use std::thread::JoinHandle;

use gemmad::publish::dbus::DbusOptions;
use gemmad::publish::dbus::{Bus, DbusError};
use gemmad::report::{
    CameraInfo, Info, JobState, JobUpdate, MicrophoneInfo, Report, Request, SCHEMA,
};
use tokio::sync::{mpsc, oneshot};

use crate::private_bus::wait_for;

/// The door, with a test behind it in the daemon's place.
pub(crate) struct Service {
    pub(crate) bus: Option<Bus>,
    requests: mpsc::Receiver<Request>,
    runtime: Arc<tokio::runtime::Runtime>,
    quit: Option<oneshot::Sender<()>>,
    driver: Option<JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.quit.take());
        self.driver.take().unwrap().join().unwrap();
    }
}

impl Service {
    pub(crate) fn start(config: &DbusOptions) -> Service {
        Service::try_start(config, 8).unwrap()
    }

    /// With room for so many requests.
    pub(crate) fn try_start(config: &DbusOptions, room: usize) -> Result<Service, DbusError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let runtime = Arc::new(runtime);
        let (sender, requests) = mpsc::channel(room);
        let (quit, stop) = oneshot::channel::<()>();
        let driven = runtime.clone();
        let driver = std::thread::spawn(move || {
            driven.block_on(stop).unwrap_err(); // its sender is dropped
        });
        let started = runtime.block_on(Bus::start(config, info(), sender));
        let (bus, error) = match started {
            Ok(bus) => (Some(bus), None),
            Err(error) => (None, Some(error)),
        };
        let service = Service {
            bus,
            requests,
            runtime,
            quit: Some(quit),
            driver: Some(driver),
        };
        error.map_or(Ok(service), Err)
    }

    pub(crate) fn bus(&self) -> &Bus {
        self.bus.as_ref().unwrap()
    }

    pub(crate) fn publish(&self, report: Report) {
        self.bus().publish(&report);
    }

    pub(crate) fn stop(&mut self) {
        let bus = self.bus.take().unwrap();
        self.runtime.block_on(bus.stop());
    }

    /// What the daemon is asked next.
    pub(crate) fn request(&mut self) -> Request {
        wait_for("a request", || self.next_request())
    }

    /// What was asked since, if anything.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    pub(crate) fn no_request(&mut self) {
        assert!(self.next_request().is_none());
    }

    /// Tells how far a request is.
    pub(crate) fn update(
        &self,
        request: &Request,
        state: JobState,
        change: impl FnOnce(&mut JobUpdate),
    ) {
        let mut update = JobUpdate::new(&request.header, state);
        change(&mut update);
        request.reply.tell(&update);
        if state.has_ended() {
            self.publish(Report::JobEnded(Box::new(update)));
        }
    }
}

/// One microphone and one camera.
pub(crate) fn info() -> Info {
    Info {
        schema: SCHEMA,
        version: "1.2.3".to_owned(),
        started_at: "2026-11-24T12:00:00+01:00".to_owned(),
        model: "tiny".to_owned(),
        quantisation: "bf16".to_owned(),
        matformer: "e4b".to_owned(),
        matformer_options: vec!["e2b".to_owned(), "e4b".to_owned()],
        context: 4096,
        isa: "neon".to_owned(),
        threads: 4,
        microphones: vec![microphone("front-room")],
        speaker: None,
        cameras: vec![CameraInfo {
            id: "porch".to_owned(),
            name: "Porch".to_owned(),
            device: "/dev/video0".to_owned(),
        }],
        commands: Vec::new(),
        config_sha256: String::new(),
    }
}

pub(crate) fn microphone(id: &str) -> MicrophoneInfo {
    MicrophoneInfo {
        id: id.to_owned(),
        name: format!("The {id}"),
        device: "hw:0".to_owned(),
        wakes: true,
    }
}
