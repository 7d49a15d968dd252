//! What the loop has to do with other boards: work that they take, and work that comes from them.
//!
//! The queue is the same whoever does its work. Beside the inference thread, or in its place, a thread takes jobs from it that go to
//! other boards ([`errand`]); what they become is told as the worker would have told it ([`trip`]).

mod errand;
mod heard;
mod trip;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::DaemonError;
use super::event::{Event, Loaded, WorkerNote};
use super::job::{Job, Work};
use super::queue::Queue;
use super::reload::engine_options;
use super::settings::Settings;
use super::worker::{self, Heartbeat};
use crate::config::Config;
use crate::fleet::{Link, Member, Role, Source, Worker};
use crate::report::chat::Said;
use crate::report::{Ability, FleetBoard, FleetHealth, ModelCard, Request};
use trip::Trip;

/// How long the thread waits for a job before it looks whether another board is idle.
const LOOK: Duration = Duration::from_millis(100);

/// Other boards that `health` tells of at most.
const MAX_BOARDS: usize = 32;

/// This board's part in the fleet.
pub(super) struct Fleet {
    link: Option<Link>,
    source: Option<Arc<Source>>,
    queue: Arc<Queue>,
    events: mpsc::Sender<Event>,
    /// Of other boards, that are worked on together.
    answers: usize,
}

impl Fleet {
    /// Joins the fleet, where there is one. That its server is away is no error.
    pub(super) async fn join(
        config: &Config,
        queue: &Arc<Queue>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Fleet, DaemonError> {
        let (queue, events) = (Arc::clone(queue), events.clone());
        let mut fleet = Fleet {
            link: None,
            source: None,
            queue,
            events,
            answers: config.queue.answers,
        };
        if config.fleet.enabled {
            let link = Link::keep(&config.fleet, &config.mqtt.node_name()).await;
            let link = link.map_err(|error| DaemonError::Setting(error.to_string()))?;
            fleet.source = config.fleet.role.sends().then(|| Source::start(&link));
            fleet.link = Some(link);
        }
        Ok(fleet)
    }

    /// Starts what takes jobs from the queue: the inference thread or, on a board without a model, the one that sends them.
    pub(super) fn start_work(
        &self,
        settings: &Arc<Settings>,
        heartbeat: Arc<Heartbeat>,
    ) -> Result<JoinHandle<()>, DaemonError> {
        match &self.source {
            Some(source) if settings.config.fleet.role == Role::Source => {
                source.tell();
                let others = Arc::clone(source);
                let thinks = Ability::of(move || others.thinks());
                let loaded = WorkerNote::Loaded(Box::new(Loaded::elsewhere(thinks)));
                // It is the first of all events.
                self.events.try_send(Event::Worker(loaded)).ok();
                self.send(source, false)
            }
            _ => worker::start(
                engine_options(&settings.config),
                Arc::clone(settings),
                Arc::clone(&self.queue),
                heartbeat,
                self.events.clone(),
            )
            .map_err(no_thread),
        }
    }

    /// Begins to work for others, and to send what waits for this board's own model while another board is idle.
    pub(super) fn serve(
        &self,
        card: &ModelCard,
        requests: &mpsc::Sender<Request>,
    ) -> Result<(), DaemonError> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        if let Some(source) = &self.source
            && link.role().works()
        {
            // It ends with the queue.
            drop(self.send(source, true)?);
        }
        if link.role().works() {
            let queue = Arc::clone(&self.queue);
            let is_idle = move || queue.is_idle();
            let source = self.source.as_ref();
            Worker::start(link, card, requests.clone(), is_idle, self.answers, source);
        }
        Ok(())
    }

    /// How it stands; nothing where there is no fleet.
    pub(super) fn health(&self) -> Option<FleetHealth> {
        let link = self.link.as_ref()?;
        let mut health = FleetHealth {
            connected: link.is_connected(),
            role: link.role().name().to_owned(),
            away: self.queue.away(),
            ..FleetHealth::default()
        };
        if let Some(source) = &self.source {
            let workers = source.workers();
            health.workers = workers.len();
            health.busy = workers.iter().filter(|worker| worker.busy).count();
            (health.came_back, health.poison, health.unwanted) = source.counts();
            let mut boards: Vec<FleetBoard> = source.members().into_iter().map(board).collect();
            boards.sort_by(|one, other| one.node.cmp(&other.node));
            boards.truncate(MAX_BOARDS);
            health.boards = boards;
        }
        Some(health)
    }

    fn send(&self, source: &Arc<Source>, has_model: bool) -> Result<JoinHandle<()>, DaemonError> {
        let (source, queue) = (Arc::clone(source), Arc::clone(&self.queue));
        let (events, runtime) = (self.events.clone(), Handle::current());
        let most = source.link().jobs();
        let body = move || {
            while !queue.is_closed() {
                let mut idle = source.workers();
                idle.retain(|worker| !worker.busy);
                if has_model && idle.is_empty() {
                    std::thread::sleep(LOOK);
                    continue;
                }
                let fits =
                    |job: &Job| !has_model || idle.iter().any(|worker| can(worker, &job.work));
                if let Some(job) = queue.pop_away(LOOK, most, has_model, fits) {
                    let (source, queue) = (Arc::clone(&source), Arc::clone(&queue));
                    let events = events.clone();
                    runtime.spawn(async move {
                        let trip = Trip {
                            source: &source,
                            job: &job,
                            events: &events,
                        };
                        trip.make().await;
                        queue.back(&job.id);
                    });
                }
            }
        };
        std::thread::Builder::new()
            .name("fleet".to_owned())
            .spawn(body)
            .map_err(no_thread)
    }
}

/// Whether a board's model takes what this is about.
fn can(worker: &Member, work: &Work) -> bool {
    let (sees, hears, thinks) = match work {
        Work::Ask(ask) => (
            ask.image.is_some(),
            ask.audio.is_some(),
            ask.thinking == Some(true),
        ),
        Work::Chat(chat) => (
            chat.has(|part| matches!(part, Said::Picture(_))),
            chat.has(|part| matches!(part, Said::Sound(_))),
            chat.thinks,
        ),
        Work::Caption(_) | Work::Describe { .. } => (true, false, false),
        Work::Transcribe(_) | Work::Utterance(_) => (false, true, false),
        Work::Recognize { .. } | Work::Worded(_) => (false, false, false),
    };
    (worker.sees || !sees) && (worker.hears || !hears) && (worker.thinks || !thinks)
}

fn board(member: Member) -> FleetBoard {
    FleetBoard {
        misfit: member.misfit(),
        node: member.node,
        role: member.role,
        model: member.model,
        busy: member.busy,
        done: member.done,
        failed: member.failed,
        job_ms: member.job_ms as u64,
        away: member.away,
        poison: member.poison,
    }
}

fn no_thread(source: std::io::Error) -> DaemonError {
    DaemonError::Io {
        action: "start a thread",
        source,
    }
}
