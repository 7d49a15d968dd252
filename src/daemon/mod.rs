//! `gemmad run`: the loop between microphones, cameras, the model, the broker and the bus.
//!
//! One tokio thread reacts to [`event::Event`]s and never waits for anything else; the model computes on a thread of its own
//! ([`worker`]), each device has another. What may pile up is bounded: the queue, the channels, the outbox.

mod captured;
mod clock;
mod demands;
mod devices;
mod dialogue;
mod directory;
mod doors;
mod error;
mod event;
mod fleet;
mod health;
mod hearing;
mod inputs;
mod job;
mod keeping;
mod log_sink;
mod names;
mod queue;
mod reload;
mod reports;
mod requests;
mod scene;
mod seen;
mod settings;
mod settling;
mod speaking;
mod state;
mod switching;
mod synthesis;
mod systemd;
mod vitals;
mod wording;
mod worker;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::guard::lock::Lock;
use crate::publish::Inside;
use crate::report::{ErrorBody, ErrorCode, EventType, JobState, JobUpdate, Report};
use devices::Devices;
use doors::Doors;
use event::{Event, Loaded, Told, WorkerNote};
use fleet::Fleet;
use health::HealthMonitor;
use inputs::Inputs;
use job::{Job, NO_WAKE_WORD};
use keeping::Keeping;
use names::Household;
use queue::{Limits, Pushed, Queue};
use reload::Reloads;
use reports::Record;
use settings::Settings;
use state::{StateFile, Switches};

pub use demands::check_slices;
pub use directory::default_state_directory;
pub use error::DaemonError;
pub use log_sink::install as install_log;
pub use reload::engine_options;
pub use reports::sources;
pub use synthesis::voice;
pub use vitals::Vitals;

/// Events that may wait for the loop: more than a burst of all sources, less than memory minds.
const EVENTS: usize = 1024;

/// Between two looks whether the worker has ended.
const END_LOOK: Duration = Duration::from_millis(20);

/// Requests that may wait for the loop.
const REQUESTS: usize = 64;

/// Longer than any process runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file, read again on SIGHUP.
    pub config_file: PathBuf,
    /// Where switches are kept; made if it is missing.
    pub state_directory: PathBuf,
    /// The directory with the board's `proc` and `sys`, from which load, heat and memory pressure are read: `/`, but in a container
    /// wherever those of the host are mounted.
    pub board_root: PathBuf,
}

/// Runs until SIGTERM, SIGINT, or an error that a restart may mend.
///
/// # Errors
/// The configuration or the model cannot be used, or the inference thread died.
pub fn run(config: Config, options: &Options) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(FOREVER)
        .build()
        .map_err(|source| DaemonError::Io {
            action: "start the event loop",
            source,
        })?;
    let no_thread = |source| DaemonError::Io {
        action: "start a thread",
        source,
    };
    let tried = std::thread::Builder::new()
        .spawn(|| ())
        .map_err(no_thread)?;
    tried.join().ok();
    let end = runtime.block_on(async {
        // Names of hosts are looked up on a thread beside the loop. One is there from the beginning and stays, so that there is
        // one when the system gives no more. (To ask for it where there is none would be a panic.)
        tokio::task::spawn_blocking(|| ()).await.ok();
        match Daemon::start(config, options).await? {
            Some((daemon, inputs)) => daemon.run(inputs).await,
            None => Ok(()),
        }
    });
    // What hangs in a driver or in a resolver ends with the process.
    runtime.shutdown_background();
    end
}

struct Daemon {
    options: Options,
    settings: Arc<Settings>,
    switches: Switches,
    state_file: StateFile,
    keeping: Keeping,
    /// Nobody else uses the state directory.
    _lock: Option<Lock>,
    queue: Arc<Queue>,
    worker: std::thread::JoinHandle<()>,
    loaded: Loaded,
    started_at: String,
    doors: Doors,
    devices: Devices,
    fleet: Fleet,
    requests: requests::Open,
    reloads: Reloads,
    household: Household,
    record: Record,
    monitor: HealthMonitor,
}

impl Daemon {
    /// Opens the model, then everything that publishes, then everything that is listened to and watched.
    /// `None` where it is to end before that.
    async fn start(
        config: Config,
        options: &Options,
    ) -> Result<Option<(Daemon, Inputs)>, DaemonError> {
        let io = |action| move |source| DaemonError::Io { action, source };
        let (event_sender, events) = mpsc::channel(EVENTS);
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let on = |kind| signal(kind).map_err(io("catch signals"));
        let mut inputs = Inputs {
            events,
            requests,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        };
        let lock = directory::take(&options.state_directory, &config)?;
        let (state_file, mut switches) = StateFile::open(&options.state_directory, &config);
        let mut settings = Arc::new(reload::settings(
            config,
            None,
            &switches,
            &options.config_file,
        )?);
        let queue = Arc::new(Queue::default());
        let monitor = HealthMonitor::new();
        systemd::status(&format!("opening {}", settings.config.model.path.display()));
        let fleet = Fleet::join(&settings.config, &queue, &event_sender).await?;
        let worker = fleet.start_work(&settings, monitor.heartbeat())?;
        let Some(loaded) = wait_for_model(&mut inputs, &worker).await? else {
            return Ok(None);
        };
        loaded.check(&settings.config)?;
        if switches.fit_model(&loaded.slices) {
            state_file.save(&switches);
            settings = Arc::new(settings.for_board(&switches, false));
        }
        let started_at = clock::now();
        let info = reports::info(&settings, &loaded, &started_at);
        let inside = Inside {
            info,
            card: Arc::clone(&loaded.card),
            requests: request_sender,
        };
        fleet.serve(&loaded.card, &inside.requests)?;
        let doors = Doors::open(&settings.config, inside).await?;
        let devices = Devices::start(&settings.config, &switches, event_sender);
        let daemon = Daemon {
            options: options.clone(),
            settings,
            switches,
            state_file,
            keeping: Keeping::default(),
            _lock: lock,
            queue,
            worker,
            record: Record::new(loaded.memory.clone()),
            loaded,
            started_at,
            doors,
            devices,
            fleet,
            requests: requests::Open::default(),
            reloads: Reloads::default(),
            household: Household::default(),
            monitor,
        };
        Ok(Some((daemon, inputs)))
    }

    async fn run(mut self, mut inputs: Inputs) -> Result<(), DaemonError> {
        self.publish_switches();
        self.publish_health();
        systemd::ready(&self.status());
        log::info!("{}", self.status());
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let end = loop {
            let event = inputs.next(&mut tick).await;
            if matches!(event, Event::Settled(..)) {
                // A better claim may be among what came in time.
                while let Ok(request) = inputs.requests.try_recv() {
                    self.requested(request).await;
                }
            }
            if let ControlFlow::Break(end) = self.react(event).await {
                break end;
            }
        };
        self.stop(&mut inputs).await;
        end
    }

    async fn react(&mut self, event: Event) -> ControlFlow<Result<(), DaemonError>> {
        match event {
            Event::Captured(captured) => self.captured(captured),
            Event::Requested(request) => self.requested(*request).await,
            Event::Told(told) => self.told(told),
            Event::Settled(id, number) => self.settle(&id, Some(number)),
            Event::Worker(note) => self.worker_note(note),
            Event::Reload => self.reload(None).await,
            Event::Closed => self.closed().await,
            Event::Tick => {
                if self.worker.is_finished() {
                    return ControlFlow::Break(Err(DaemonError::WorkerGone));
                }
                self.tick().await;
            }
            Event::Terminate => return ControlFlow::Break(Ok(())),
        }
        ControlFlow::Continue(())
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::All(report) => self.reported(report),
            Told::Asker(update) => self.answered(*update),
        }
    }

    /// Tells everybody what has come of sound and pictures.
    fn reported(&mut self, report: Report) {
        if matches!(&report, Report::Voice(event) if !self.is_ours(event)) {
            return;
        }
        match &report {
            Report::Voice(event) => {
                self.sign_of(event);
                self.record.speed(&event.timing);
                if event.reason.as_deref() == Some(NO_WAKE_WORD) {
                    self.record.queues.wake_rejects += 1;
                }
                let reason = event.reason.as_deref().unwrap_or_default();
                // What was decoded and then not meant for the daemon is no error.
                if event.event_type == EventType::Rejected
                    && event.timing.tokens == 0
                    && !job::is_silence(reason)
                {
                    self.record.error(reason);
                }
            }
            Report::Caption { event, .. } => {
                self.record.speed(&event.timing);
                if let Some(reason) = &event.reason {
                    self.record.error(reason);
                }
            }
            _ => {}
        }
        self.doors.publish(&report);
    }

    fn worker_note(&mut self, note: WorkerNote) {
        match note {
            WorkerNote::Memory(memory, ple, guesses) => {
                (self.record.ple, self.record.guesses) = (ple, guesses);
                let states = |memory: &[crate::pipeline::GroupMemory]| -> Vec<String> {
                    memory
                        .iter()
                        .map(|memory| memory.state.to_string())
                        .collect()
                };
                let changed = states(&self.record.memory) != states(&memory);
                self.record.memory = memory;
                if changed {
                    self.publish_health();
                }
            }
            WorkerNote::AnswersEarly => self.record.queues.early_answers += 1,
            WorkerNote::ThrewAway => self.record.queues.early_thrown_away += 1,
            WorkerNote::Replaced => self.record.queues.dropped_captions += 1,
            // Told once, before the loop began.
            WorkerNote::Loaded(_) | WorkerNote::OpenFailed(_) => {}
        }
    }

    /// Takes a job in, and reports what was refused.
    fn push(&mut self, job: Job) {
        let queue = &self.settings.config.queue;
        let limits = Limits {
            jobs: queue.jobs,
            utterances: queue.utterances,
            utterance_bytes: (queue.utterances_mib as u64) << 20,
        };
        let asker = job.asker.clone();
        match self.queue.push(job, limits) {
            Pushed::Waits => {}
            Pushed::Newer => self.record.queues.dropped_captions += 1,
            Pushed::Full(refused, message) => {
                match asker {
                    Some(_) => self.record.queues.refused_requests += 1,
                    None => self.record.queues.dropped_voice += 1,
                }
                let error = ErrorBody {
                    code: ErrorCode::QueueFull,
                    message,
                };
                if let Some(told) = reports::refused(&refused, &self.loaded.model, error) {
                    self.told(told);
                }
                return;
            }
        }
        if let Some(asker) = asker {
            self.answered(JobUpdate::new(&asker, JobState::Queued));
        }
    }

    /// Ends: no more input, running work within its limit, the outbox flushed, `offline` published.
    async fn stop(mut self, inputs: &mut Inputs) {
        log::info!("stopping");
        systemd::stopping();
        if self.keeping.tick() {
            self.state_file.save(&self.switches);
        }
        self.doors.publish(&Report::Stopping);
        let error = worker::stopping;
        self.settle_all();
        for asker in self.devices.stop().await {
            self.answered(JobUpdate::end(&asker, Err(error())));
        }
        for asker in self.reloads.askers() {
            self.answered(JobUpdate::end(&asker, Err(error())));
        }
        inputs.requests.close();
        while let Ok(request) = inputs.requests.try_recv() {
            self.requests.begin(&request.header, request.reply);
            self.answered(JobUpdate::end(&request.header, Err(error())));
        }
        for job in self.queue.close() {
            if let Some(told) = reports::refused(&job, &self.loaded.model, error()) {
                self.told(told);
            }
        }
        let drain = Duration::from_secs(self.settings.config.queue.drain_s.into());
        let until = tokio::time::Instant::now() + drain;
        while !self.worker.is_finished() || self.queue.away() > 0 || !inputs.events.is_empty() {
            if tokio::time::Instant::now() >= until {
                log::warn!("work did not end within {} s and is left", drain.as_secs());
                break;
            }
            // The worker may end without another word, so nothing is waited for without a limit.
            let event = tokio::time::timeout(END_LOOK, inputs.events.recv()).await;
            if let Ok(Some(Event::Told(told))) = event {
                self.told(told);
            }
        }
        self.doors.stop(Duration::from_secs(2)).await;
        log::info!("stopped");
    }
}

/// Waits until the model is open; `None` where a signal to end came first.
async fn wait_for_model(
    inputs: &mut Inputs,
    worker: &std::thread::JoinHandle<()>,
) -> Result<Option<Loaded>, DaemonError> {
    let mut patience = tokio::time::interval(Duration::from_secs(5));
    loop {
        match inputs.next(&mut patience).await {
            Event::Worker(WorkerNote::Loaded(loaded)) => return Ok(Some(*loaded)),
            Event::Worker(WorkerNote::OpenFailed(error)) => return Err(error.into()),
            Event::Terminate => return Ok(None),
            // What it said before it ended comes first: a tick overtakes it.
            Event::Tick if worker.is_finished() && inputs.events.is_empty() => {
                return Err(DaemonError::WorkerGone);
            }
            // Large models on slow flash take their time.
            Event::Tick => systemd::extend_start(Duration::from_secs(30)),
            _ => {}
        }
    }
}
