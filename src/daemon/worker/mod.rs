//! The inference thread: it owns the model, takes the most urgent piece of work, and reports. It waits for nobody's sound: an
//! utterance is taken piece by piece as it comes, and long work gives way between two tokens or two pieces.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::{Event, Loaded, Told, WorkerNote};
use super::job::{Job, Rank, Ticket, Work};
use super::queue::Queue;
use super::settings::Settings;
use crate::pipeline::commands::CommandGrammar;
use crate::pipeline::{
    Answer, Engine, EngineError, EngineOptions, Group, GroupMemory, GroupState, Request,
};
use crate::report::{ErrorBody, ErrorCode, JobState, JobUpdate, Reply, Report, ReportTiming};

mod caption;
mod chat;
mod early;
mod error;
mod question;
mod transcript;
mod utterance;
mod wake_phrase;

use error::{engine_error, invalid_audio, invalid_image, whole};

pub(super) use error::stopping;

/// What the watchdog looks at: whether the worker works, and whether it gets on.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    busy: AtomicBool,
    steps: AtomicU64,
}

impl Heartbeat {
    /// The worker has computed something.
    fn beat(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn set_busy(&self, busy: bool) {
        self.beat();
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether the worker is idle, or has got on since `steps` was last seen.
    pub(super) fn is_alive(&self, steps: &mut u64) -> bool {
        let now = self.steps.load(Ordering::Relaxed);
        let moved = now != *steps;
        *steps = now;
        moved || !self.busy.load(Ordering::Relaxed)
    }
}

/// How long the worker waits for a job before it looks whether a tower has been idle long enough.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Between two looks at how much of the weights is in memory when nothing happens; `health` goes out as often.
const TELL_MEMORY: Duration = Duration::from_secs(60);

/// The thread's own things, beside the engine.
struct Desk {
    queue: Arc<Queue>,
    heartbeat: Arc<Heartbeat>,
    events: mpsc::Sender<Event>,
    settings: Arc<Settings>,
    model: String,
    /// Threads that the engine has now.
    threads: usize,
    towers: [Tower; 2],
    /// The commands whose phrases the engine knows.
    phrases_of: Option<Arc<CommandGrammar>>,
    /// States of the groups as they were told last, and when.
    told: (Vec<GroupState>, Instant),
}

/// When a tower was used last.
struct Tower {
    group: Group,
    used: Instant,
    was_loaded: bool,
}

impl Tower {
    fn new(group: Group) -> Tower {
        Tower {
            group,
            used: Instant::now(),
            was_loaded: false,
        }
    }
}

/// What a job is worked on with.
struct Task<'a> {
    engine: &'a mut Engine,
    desk: &'a mut Desk,
    job: &'a Job,
    queue_ms: f64,
}

/// For tests only: a file of answers that the model gives ([`Engine::follow_file`]).
const SCRIPT: &str = "GEMMAD_SCRIPT";

/// Starts the thread: it opens the model, tells [`WorkerNote::Loaded`], and works until the queue is closed.
pub(super) fn start(
    options: EngineOptions,
    settings: Arc<Settings>,
    queue: Arc<Queue>,
    heartbeat: Arc<Heartbeat>,
    events: mpsc::Sender<Event>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let body = move || {
        let path = settings.config.model.path.clone();
        let mut engine = match Engine::open(&path, options) {
            Ok(engine) => engine,
            Err(error) => {
                tell(&events, WorkerNote::OpenFailed(error));
                return;
            }
        };
        for warning in engine.warnings() {
            log::warn!("{warning}");
        }
        if let Some(script) = std::env::var_os(SCRIPT) {
            match engine.follow_file(script.as_ref()) {
                Ok(()) => log::warn!("answers are those of {SCRIPT}"),
                Err(error) => log::warn!("cannot read {SCRIPT}: {error}"),
            }
        }
        // The first answer should not wait for flash; a slice that is not served is told by the loop.
        if let Err(error) = engine.prefetch_text(settings.matformer.as_deref()) {
            log::warn!("cannot read the text weights ahead: {error}");
        }
        let loaded = Loaded::of(&engine);
        let mut desk = Desk {
            model: loaded.model.clone(),
            threads: engine.threads(),
            queue,
            heartbeat,
            events,
            phrases_of: None,
            settings,
            towers: [Tower::new(Group::Audio), Tower::new(Group::Vision)],
            told: (Vec::new(), Instant::now()),
        };
        tell(&desk.events, WorkerNote::Loaded(Box::new(loaded)));
        desk.work(&mut engine);
    };
    std::thread::Builder::new()
        .name("inference".to_owned())
        .spawn(body)
}

/// The loop takes events as fast as they come; where it has ended, nobody needs them.
fn tell(events: &mpsc::Sender<Event>, note: WorkerNote) {
    events.blocking_send(Event::Worker(note)).ok();
}

impl Desk {
    fn work(&mut self, engine: &mut Engine) {
        loop {
            let Some(job) = self.queue.pop(IDLE_LOOK) else {
                if self.queue.is_closed() {
                    return engine.earlier_answers().save();
                }
                self.unload_idle(engine);
                continue;
            };
            self.heartbeat.set_busy(true);
            self.settings = Arc::clone(&job.settings);
            self.adjust_threads(engine);
            self.learn_phrases(engine);
            let is_done = self.run(engine, job);
            self.heartbeat.set_busy(false);
            if is_done {
                self.tell_memory(engine);
            }
        }
    }

    /// Works on a job; whether nothing of it is left to be done.
    fn run(&mut self, engine: &mut Engine, mut job: Job) -> bool {
        let (audio, vision) = match &job.work {
            Work::Utterance(_) | Work::Transcribe(_) => (true, false),
            Work::Caption(_) | Work::Describe { .. } => (false, true),
            Work::Recognize { .. } => (false, false),
            Work::Ask(ask) => (ask.audio.is_some(), ask.image.is_some()),
            Work::Chat(chat) => chat::towers(chat),
        };
        let outer = engine.swap_on_step(Box::new(watch(&job.ticket, &self.heartbeat)));
        let outer_origin = engine.swap_origin(job.origin());
        let hearing = match &mut job.work {
            Work::Utterance(utterance) => utterance.hearing.take(),
            _ => None,
        };
        let mut more = None;
        let mut task = Task {
            engine,
            desk: self,
            queue_ms: job.queued_at.elapsed().as_secs_f64() * 1e3,
            job: &job,
        };
        match &job.work {
            Work::Utterance(utterance) => more = task.utterance(utterance, hearing),
            Work::Recognize { text, speaker } => task.recognize(text, speaker),
            Work::Caption(caption) => task.caption(caption),
            Work::Ask(ask) => task.ask(ask),
            Work::Chat(chat) => task.chat(chat),
            Work::Describe { image, wish } => task.describe(image, wish),
            Work::Transcribe(transcribe) => task.transcribe(transcribe),
        }
        drop(engine.swap_on_step(outer));
        engine.swap_origin(outer_origin);
        // From the end of the work: a long one is no idleness.
        for (used, group) in [(audio, Group::Audio), (vision, Group::Vision)] {
            if used {
                self.uses(group);
            }
        }
        let is_done = more.is_none();
        if let (Work::Utterance(utterance), Some(_)) = (&mut job.work, &more) {
            utterance.heard = more.as_ref().map(|hearing| hearing.samples());
            utterance.hearing = more;
            if let Some(job) = self.queue.put_back(job) {
                let error = stopping();
                let told = super::reports::refused(&job, &self.model, error);
                told.into_iter().for_each(|told| self.report(told));
            }
        } else {
            self.queue.done();
        }
        is_done
    }

    /// Does what is more urgent than work of `rank`, which goes on after.
    fn give_way(&mut self, engine: &mut Engine, rank: Rank) {
        while let Some(job) = self.queue.pop_before(rank) {
            self.run(engine, job);
        }
    }

    fn report(&self, told: Told) {
        self.events.blocking_send(Event::Told(told)).ok();
    }

    /// Fewer threads while the board is degraded, all of them again after.
    fn adjust_threads(&mut self, engine: &mut Engine) {
        let wanted = self.settings.threads;
        if wanted != self.threads {
            match engine.set_threads(wanted) {
                Ok(()) => self.threads = wanted,
                Err(error) => log::warn!("cannot use {wanted} threads: {error}"),
            }
        }
    }

    /// Names of commands and of what is at home are likely to be said.
    fn learn_phrases(&mut self, engine: &mut Engine) {
        let commands = &self.settings.commands;
        let which = |commands: &Option<Arc<_>>| commands.as_ref().map(Arc::as_ptr);
        if which(&self.phrases_of) != which(commands) {
            self.phrases_of.clone_from(commands);
            engine.set_phrases(commands.iter().flat_map(|commands| commands.phrases()));
        }
    }

    fn unload_idle(&mut self, engine: &mut Engine) {
        let model = &self.settings.config.model;
        let limits_s = [model.audio_idle_unload_s, model.vision_idle_unload_s];
        for (tower, limit_s) in self.towers.iter_mut().zip(limits_s) {
            let loaded = engine.group_state(tower.group) != GroupState::Unloaded;
            if loaded && !tower.was_loaded {
                // Prefetched, because somebody speaks or something moves: its use is still to come.
                tower.used = Instant::now();
            }
            tower.was_loaded = loaded;
            if loaded && tower.used.elapsed().as_secs() >= u64::from(limit_s) {
                engine.unload(tower.group);
                tower.was_loaded = false;
                log::info!("unloaded the {} weights: idle for {limit_s} s", tower.group);
            }
        }
        // What is read in the background arrives, and what the kernel takes back goes, while nothing else happens.
        let is_quiet = self.told.1.elapsed() >= TELL_MEMORY;
        if self.told.0 != states(engine) || is_quiet {
            self.tell_memory(engine);
        }
        if is_quiet {
            engine.earlier_answers().save();
        }
    }

    /// Notes that a tower is needed now.
    fn uses(&mut self, group: Group) {
        for tower in self.towers.iter_mut().filter(|tower| tower.group == group) {
            tower.used = Instant::now();
        }
    }

    fn tell_memory(&mut self, engine: &Engine) {
        self.told = (states(engine), Instant::now());
        let memory: Vec<GroupMemory> = engine.memory();
        let note = WorkerNote::Memory(memory, engine.ple_rows(), engine.guess_counts());
        tell(&self.events, note);
    }
}

fn states(engine: &Engine) -> Vec<GroupState> {
    Group::ALL.map(|group| engine.group_state(group)).into()
}

impl Task<'_> {
    fn settings(&self) -> &Settings {
        &self.job.settings
    }

    /// Answers a request whole; `None` where it was broken off.
    fn answer(&mut self, request: &Request) -> Result<Option<Answer>, EngineError> {
        self.answer_as_it_comes(request, &mut |_| ControlFlow::Continue(()))
    }

    /// Answers a request, telling whoever asked the text as it comes; `None` where it was broken off.
    fn stream(&mut self, request: &Request) -> Result<Option<Answer>, EngineError> {
        let (events, job) = (self.desk.events.clone(), self.job);
        self.answer_as_it_comes(request, &mut |text| {
            tell_piece(&events, job, text);
            ControlFlow::Continue(())
        })
    }

    /// Tells whoever asked a piece of the text.
    fn piece(&self, text: &str) {
        tell_piece(&self.desk.events, self.job, text);
    }

    fn answer_as_it_comes(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Option<Answer>, EngineError> {
        let (desk, job) = (&mut *self.desk, self.job);
        let answer = self
            .engine
            .answer_giving_way(request, on_text, &mut |engine| {
                desk.give_way(engine, job.rank());
            });
        whole(answer)
    }

    /// Tells everybody.
    fn tell(&self, report: Report) {
        self.desk.report(Told::All(report));
    }

    /// Tells whoever asked that it is worked on; nobody, where nobody did.
    fn begun(&self) {
        if let Some(asker) = &self.job.asker {
            let update = JobUpdate::new(asker, JobState::Running);
            self.desk.report(Told::Asker(Box::new(update)));
        }
    }

    /// Tells whoever asked how it ended.
    fn end(&self, result: Result<Reply, ErrorBody>) {
        if let Some(asker) = &self.job.asker {
            let update = JobUpdate::end(asker, result);
            self.desk.report(Told::Asker(Box::new(update)));
        }
    }

    /// An answer for whoever asked at `since`; one that was broken off is told as that.
    fn reply(
        &self,
        answer: Result<Option<Answer>, ErrorBody>,
        since: Instant,
    ) -> Result<Reply, ErrorBody> {
        let answer = answer?.ok_or_else(|| self.broken_off())?;
        Ok(Reply {
            timing: Some(self.timing(&answer.timing, since)),
            text: Some(answer.text),
            thoughts: answer.thoughts,
            calls: answer.calls.into_iter().map(chat::told).collect(),
            finish: Some(answer.finish.name().to_owned()),
            resumed: answer.resumed,
            matformer: Some(answer.matformer),
            ..Reply::default()
        })
    }

    fn timing(&self, timing: &crate::pipeline::Timing, since: Instant) -> ReportTiming {
        ReportTiming {
            queue_ms: self.queue_ms,
            load_ms: timing.load_ms,
            encode_ms: timing.encode_ms,
            prefill_ms: timing.prefill_ms,
            decode_ms: timing.decode_ms,
            latency_ms: since.elapsed().as_secs_f64() * 1e3,
            prompt_tokens: timing.prompt_tokens,
            cached_tokens: timing.cached_tokens,
            tokens: timing.tokens,
            passes: timing.passes,
            tps: timing.tokens_per_second(),
        }
    }

    /// Why a job ended without an answer, for whoever asked.
    fn broken_off(&self) -> ErrorBody {
        if self.job.ticket.is_cancelled() {
            ErrorBody {
                code: ErrorCode::Cancelled,
                message: "it was cancelled".to_owned(),
            }
        } else {
            self.job.too_late()
        }
    }
}

fn tell_piece(events: &mpsc::Sender<Event>, job: &Job, text: &str) {
    if let Some(asker) = &job.asker {
        let update = Box::new(JobUpdate {
            partial: Some(text.to_owned()),
            ..JobUpdate::new(asker, JobState::Running)
        });
        events.blocking_send(Event::Told(Told::Asker(update))).ok();
    }
}

/// What the engine calls while it works: it shows that the worker gets on, and tells whether to.
fn watch(
    ticket: &Arc<Ticket>,
    heartbeat: &Arc<Heartbeat>,
) -> impl FnMut() -> ControlFlow<()> + Send + 'static {
    let (ticket, heartbeat) = (Arc::clone(ticket), Arc::clone(heartbeat));
    move || {
        heartbeat.beat();
        match ticket.is_over() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
