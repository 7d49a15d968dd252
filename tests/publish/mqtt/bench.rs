//! A node in the broker's company, and samples to publish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gemmad::media::CaptionTrigger;
use gemmad::publish::mqtt::Mqtt;
use gemmad::publish::mqtt::MqttOptions;
use gemmad::report::{
    CameraInfo, CaptionEvent, EventType, Info, JobUpdate, MicrophoneInfo, Report, ReportTiming,
    Request, VoiceEvent,
};
use tokio::sync::mpsc;

pub(crate) use crate::broker::{
    Broker, Gate, Observer, PATIENCE, Seen, free_port, retained, set_password, wait_until,
};

/// A node in a runtime of its own.
pub(crate) struct Node {
    pub(crate) mqtt: Option<Mqtt>,
    pub(crate) requests: mpsc::Receiver<Request>,
    runtime: tokio::runtime::Handle,
    end: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Node {
    pub(crate) fn start(config: &MqttOptions) -> Node {
        Node::start_with(config, info(), 256)
    }

    pub(crate) fn start_with(config: &MqttOptions, info: Info, requests: usize) -> Node {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(ended).ok();
        });
        let (sender, requests) = mpsc::channel(requests);
        let _inside = handle.enter();
        let mqtt = Mqtt::start(config, info, sender).unwrap();
        Node {
            mqtt: Some(mqtt),
            requests,
            runtime: handle.clone(),
            end,
            thread,
        }
    }

    pub(crate) fn mqtt(&self) -> &Mqtt {
        self.mqtt.as_ref().unwrap()
    }

    pub(crate) fn publish(&self, report: Report) {
        self.mqtt().publish(&report);
    }

    /// Tells how far a request is: whoever asked, and in the end everybody.
    pub(crate) fn answer(&self, request: &Request, update: JobUpdate) {
        request.reply.tell(&update);
        if update.state.has_ended() {
            self.publish(Report::JobEnded(Box::new(update)));
        }
    }

    pub(crate) fn wait_connected(&self) {
        wait_until("connected", || self.mqtt().health().connected);
    }

    pub(crate) fn wait_empty(&self) {
        wait_until("nothing waits", || self.mqtt().health().queued == 0);
    }

    pub(crate) fn stop(mut self) {
        let mqtt = self.mqtt.take().unwrap();
        self.runtime.block_on(mqtt.stop(Duration::from_secs(5)));
    }

    /// What `kill -9` does to it: no goodbye, nothing flushed. It is gone when this returns.
    pub(crate) fn kill(mut self) {
        drop(self.mqtt.take());
        drop(self.end);
        self.thread.join().unwrap();
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> Request {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(request) = self.requests.try_recv() {
                return request;
            }
            assert!(Instant::now() < deadline, "no request came");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn config(port: u16) -> MqttOptions {
    MqttOptions {
        enabled: true,
        url: format!("mqtt://127.0.0.1:{port}"),
        node: "pi".to_owned(),
        ..MqttOptions::default()
    }
}

pub(crate) fn info() -> Info {
    Info {
        schema: 1,
        version: "0.1.0".to_owned(),
        started_at: "2026-11-23T15:40:00+01:00".to_owned(),
        model: "demo".to_owned(),
        quantisation: "balanced".to_owned(),
        matformer: "e4b".to_owned(),
        matformer_options: vec!["e2b".to_owned(), "e4b".to_owned()],
        context: 4096,
        isa: "neon+dotprod".to_owned(),
        threads: 4,
        microphones: vec![MicrophoneInfo {
            id: "kitchen".to_owned(),
            name: "Kitchen".to_owned(),
            device: "plughw:CARD=Device,DEV=0".to_owned(),
            wakes: true,
        }],
        speaker: Some("plughw:CARD=Device,DEV=0".to_owned()),
        cameras: vec![CameraInfo {
            // A microphone of the same name is no mistake.
            id: "kitchen".to_owned(),
            name: "Kitchen camera".to_owned(),
            device: "/dev/video0".to_owned(),
        }],
        commands: vec!["turn_on".to_owned()],
        config_sha256: "00".repeat(32),
    }
}

pub(crate) fn voice(id: &str, text: &str) -> Report {
    Report::Voice(Box::new(VoiceEvent {
        schema: 1,
        id: id.to_owned(),
        event_type: EventType::Transcript,
        ts: "2026-11-23T15:40:00.120+01:00".to_owned(),
        clock_synced: true,
        source: "kitchen".to_owned(),
        wake_word: None,
        conversation: None,
        language: "English".to_owned(),
        text: Some(text.to_owned()),
        command: None,
        commands: Vec::new(),
        confidence: None,
        audio_s: 1.92,
        truncated: false,
        reason: None,
        model: "demo".to_owned(),
        matformer: "e4b".to_owned(),
        timing: ReportTiming::default(),
    }))
}

pub(crate) fn caption(text: &str, image: Option<&[u8]>) -> Report {
    Report::Caption {
        event: Box::new(CaptionEvent {
            schema: 1,
            id: "01JD0000000000000000000001".to_owned(),
            event_type: EventType::Caption,
            ts: "2026-11-23T15:40:00.120+01:00".to_owned(),
            clock_synced: true,
            source: "kitchen".to_owned(),
            caption: text.to_owned(),
            short: text.chars().take(255).collect(),
            trigger: CaptionTrigger::Motion,
            motion_area: Some(0.12),
            motion_box: Some([0.1, 0.2, 0.3, 0.4]),
            frigate: None,
            scene: None,
            frame_ts: "2026-11-23T15:39:40+01:00".to_owned(),
            image_sha256: "ab".repeat(32),
            reason: None,
            model: "demo".to_owned(),
            matformer: "e4b".to_owned(),
            timing: ReportTiming::default(),
        }),
        image: image.map(Arc::from),
    }
}
