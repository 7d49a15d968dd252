//! What the loop has to do with other boards: work that they take, and work that comes from them.
//!
//! The queue is the same whoever does its work. Beside the inference thread, or in its place, a thread takes jobs from it that go to
//! other boards ([`errand`]); what they become is told as the worker would have told it.

mod errand;
mod heard;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::DaemonError;
use super::event::{Event, Loaded, Told, WorkerNote};
use super::job::{Job, Speaker, Ticket, Work};
use super::queue::Queue;
use super::reload::engine_options;
use super::reports;
use super::settings::Settings;
use super::worker::{self, Heartbeat};
use crate::config::Config;
use crate::fleet::{Link, Lost, Outcome, Role, Source, Worker};
use crate::report::{
    ErrorBody, ErrorCode, FleetHealth, Header, JobState, JobUpdate, ModelCard, Origin, Reply,
    Report, Request,
};
use errand::errand;
use heard::Heard;

/// How long the thread waits for a job before it looks whether another board is idle.
const LOOK: Duration = Duration::from_millis(100);

/// This board's part in the fleet.
pub(super) struct Fleet {
    link: Option<Link>,
    source: Option<Arc<Source>>,
    queue: Arc<Queue>,
    events: mpsc::Sender<Event>,
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
                let loaded = WorkerNote::Loaded(Box::new(Loaded::elsewhere()));
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
            Worker::start(link, card, requests.clone(), is_idle, self.source.as_ref());
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
        }
        Some(health)
    }

    fn send(&self, source: &Arc<Source>, has_model: bool) -> Result<JoinHandle<()>, DaemonError> {
        let (source, queue) = (Arc::clone(source), Arc::clone(&self.queue));
        let (events, runtime) = (self.events.clone(), Handle::current());
        let most = source.link().jobs();
        let body = move || {
            while !queue.is_closed() {
                let others_are_idle = || {
                    let mut workers = source.workers().into_iter();
                    workers.any(|worker| !worker.busy)
                };
                if has_model && !others_are_idle() {
                    std::thread::sleep(LOOK);
                    continue;
                }
                if let Some(job) = queue.pop_away(LOOK, most, has_model) {
                    let (source, queue) = (Arc::clone(&source), Arc::clone(&queue));
                    let events = events.clone();
                    runtime.spawn(async move {
                        let id = job.id.clone();
                        for event in carry(&source, job, &events).await {
                            events.send(event).await.ok();
                        }
                        queue.back(&id);
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

fn no_thread(source: std::io::Error) -> DaemonError {
    DaemonError::Io {
        action: "start a thread",
        source,
    }
}

/// Sends a job; gives what is to be told of it.
async fn carry(source: &Source, job: Job, events: &mpsc::Sender<Event>) -> Vec<Event> {
    let heard = Heard::of(&job);
    if heard.as_ref().is_some_and(|heard| heard.is_gone) {
        job.ticket.cancel("whoever spoke is gone");
        let gone = job.asker.iter().map(|asker| {
            let error = ErrorBody::new(ErrorCode::Cancelled, "whoever spoke is gone");
            Event::Told(Told::Asker(Box::new(JobUpdate::end(asker, Err(error)))))
        });
        return gone.collect();
    }
    let errand = match errand(&job) {
        Ok(errand) => errand,
        Err(error) => return told(&job, heard.as_ref(), Err(error), ""),
    };
    let (ticket, asker) = (Arc::clone(&job.ticket), job.asker.clone());
    let begun = |worker: &str| {
        log::debug!(target: "fleet", "{worker} has job {}", errand.id);
        if let Some(asker) = &asker {
            let update = JobUpdate::new(asker, JobState::Running);
            let told = Told::Asker(Box::new(update));
            events.try_send(Event::Told(told)).ok();
        }
    };
    let carried = source.carry(&errand, &|| ticket.is_over(), &begun).await;
    match carried {
        Ok(Outcome {
            worker,
            model,
            result,
        }) => {
            if let Err(error) = &result {
                log::warn!(target: "fleet", "job {} at {worker}: {}", job.id, error.message);
            }
            told(&job, heard.as_ref(), result, &model)
        }
        Err(Lost::Replaced) => vec![Event::Worker(WorkerNote::Replaced)],
        Err(lost) => told(&job, heard.as_ref(), Err(why(&lost, &ticket)), ""),
    }
}

/// What is told of a job that has come to its end, as the worker would have told it.
fn told(
    job: &Job,
    heard: Option<&Heard>,
    mut result: Result<Reply, ErrorBody>,
    model: &str,
) -> Vec<Event> {
    let mut told = Vec::new();
    if let Ok(Reply {
        timing: Some(timing),
        ..
    }) = &mut result
    {
        // As it was for this board: the way there and back is time that it waited.
        let since = heard.map_or_else(|| started(job), |heard| heard.ended_at);
        timing.latency_ms = since.elapsed().as_secs_f64() * 1e3;
        let worked = timing.load_ms + timing.encode_ms + timing.prefill_ms + timing.decode_ms;
        timing.queue_ms = (timing.latency_ms - worked).max(0.0);
    }
    if let Err(error) = &result
        && error.code == ErrorCode::Poison
        && job.asker.is_none()
    {
        let update = JobUpdate::end(&nobody(job), Err(error.clone()));
        told.push(Told::All(Report::JobEnded(Box::new(update))));
    }
    if let Work::Caption(work) = &job.work {
        told.push(Told::All(reports::caption(job, work, &result, model)));
    }
    if let (Work::Utterance(utterance), Some(heard)) = (&job.work, heard)
        && let Speaker::Microphone(id) = &utterance.speaker
    {
        told.push(Told::All(heard.event(job, id, utterance, &result, model)));
    }
    if let Some(asker) = &job.asker {
        let streams = match &job.work {
            Work::Ask(ask) => ask.stream,
            Work::Utterance(utterance) => {
                matches!(utterance.speaker, Speaker::Client { stream: true, .. })
            }
            _ => false,
        };
        if let Ok(reply) = &result
            && streams
        {
            let whole = JobUpdate {
                partial: reply.text.clone(),
                ..JobUpdate::new(asker, JobState::Running)
            };
            told.push(Told::Asker(Box::new(whole)));
        }
        told.push(Told::Asker(Box::new(JobUpdate::end(asker, result))));
    }
    told.into_iter().map(Event::Told).collect()
}

/// When what a job is about happened.
fn started(job: &Job) -> Instant {
    match &job.work {
        Work::Caption(work) => {
            let taken = work.frame.taken_at.elapsed().unwrap_or_default();
            Instant::now()
                .checked_sub(taken)
                .unwrap_or_else(Instant::now)
        }
        _ => job.queued_at,
    }
}

/// Why a job has not come back.
fn why(lost: &Lost, ticket: &Ticket) -> ErrorBody {
    match lost {
        Lost::Full(words) => ErrorBody::new(ErrorCode::QueueFull, words),
        _ if ticket.is_cancelled() => ErrorBody::new(ErrorCode::Cancelled, "it was cancelled"),
        Lost::Over(place) => ErrorBody::new(
            ErrorCode::Timeout,
            format!(
                "it was not done in time ({place}): add a worker, or raise timeout_ms or [queue] deadline_s"
            ),
        ),
        Lost::Replaced => ErrorBody::new(ErrorCode::Cancelled, "a newer picture came"),
    }
}

/// In the place of whoever asked, for what nobody asked for.
fn nobody(job: &Job) -> Header {
    Header {
        id: job.id.clone(),
        origin: Origin::Fleet { unasked: true },
        transaction: None,
        kind: match &job.work {
            Work::Caption(_) => "describe",
            _ => "transcribe",
        },
        timeout: None,
    }
}
