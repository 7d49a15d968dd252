//! The inference thread: it owns the model, takes the most urgent piece of work, and reports. It waits for nobody's sound: an
//! utterance is taken piece by piece as it comes, and long work gives way between two tokens or two pieces.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::{Event, Loaded, Told, WorkerNote};
use super::hearing;
use super::job::{Job, Ticket, Work};
use super::queue::Queue;
use super::settings::Settings;
use crate::pipeline::commands::CommandGrammar;
use crate::pipeline::{
    Answer, Engine, EngineError, EngineOptions, Group, GroupMemory, GroupState, Request,
};
use crate::report::{
    ErrorBody, ErrorCode, Header, JobState, JobUpdate, Reply, Report, ReportTiming,
};

mod caption;
mod chat;
mod early;
mod error;
mod heartbeat;
mod question;
mod seated;
mod transcript;
mod utterance;
mod wake_phrase;

use error::{engine_error, invalid_audio, invalid_image, whole};
use seated::{Seated, may_begin};

pub(super) use error::stopping;
pub(super) use heartbeat::Heartbeat;
pub(super) use wake_phrase::meant;

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
    /// Jobs whose answers have seats in the engine.
    seated: Vec<Seated>,
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
            seated: Vec::new(),
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
        let heartbeat = Arc::clone(&self.heartbeat);
        engine.on_step(move || {
            heartbeat.beat();
            ControlFlow::Continue(())
        });
        loop {
            let job = match self.seated.is_empty() {
                true => self.queue.pop(IDLE_LOOK),
                false => self.queue.pop_now(|_, rank| may_begin(engine, rank)),
            };
            let is_done = match job {
                Some(job) => {
                    self.heartbeat.set_busy(true);
                    self.settings = Arc::clone(&job.settings);
                    self.adjust(engine);
                    self.learn_phrases(engine);
                    self.run(engine, job)
                }
                None if !self.seated.is_empty() => {
                    engine.step();
                    false
                }
                None if self.queue.is_closed() => return engine.earlier_answers().save(),
                None => {
                    self.unload_idle(engine);
                    false
                }
            };
            let has_ended = self.tell_ended(engine);
            if self.seated.is_empty() {
                self.heartbeat.set_busy(false);
            }
            if is_done || has_ended {
                self.tell_memory(engine);
            }
        }
    }

    /// Works on a job; whether nothing of it is left to be done.
    fn run(&mut self, engine: &mut Engine, mut job: Job) -> bool {
        let outer = engine.swap_on_step(Box::new(watch(&job.ticket, &self.heartbeat)));
        let outer_origin = engine.swap_origin(job.origin());
        let outer_urgency = engine.swap_urgency(job.rank() as u8);
        let outer_lessons = engine.hold_lessons(None);
        let hearing = match &mut job.work {
            Work::Utterance(utterance) => utterance.hearing.take(),
            _ => None,
        };
        let (mut more, mut seat) = (None, None);
        let mut task = Task {
            engine,
            desk: self,
            queue_ms: job.queued_at.elapsed().as_secs_f64() * 1e3,
            job: &job,
        };
        let queue_ms = task.queue_ms;
        match &job.work {
            Work::Utterance(utterance) => more = task.utterance(utterance, hearing),
            Work::Transcribe(transcribe) if !job.work.is_one_answer() => {
                task.transcribe_pieces(transcribe);
            }
            _ => seat = task.seat(),
        }
        drop(engine.swap_on_step(outer));
        engine.swap_origin(outer_origin);
        engine.swap_urgency(outer_urgency);
        engine.hold_lessons(outer_lessons);
        self.used(&job);
        if let Some(id) = seat {
            self.seated.push(Seated { id, job, queue_ms });
            return false;
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
            self.queue.done(&job.id);
        }
        is_done
    }

    fn report(&self, told: Told) {
        self.events.blocking_send(Event::Told(told)).ok();
    }

    /// Fewer threads while the board is degraded, all of them again after; and as many answers together as are configured now.
    fn adjust(&mut self, engine: &mut Engine) {
        engine.set_answers(self.settings.config.queue.answers);
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

    /// Notes which towers a job needs. From the end of the work: a long one is no idleness.
    fn used(&mut self, job: &Job) {
        let (audio, vision) = match &job.work {
            Work::Utterance(_) | Work::Transcribe(_) => (true, false),
            Work::Caption(_) | Work::Describe { .. } => (false, true),
            Work::Recognize { .. } | Work::Worded(_) => (false, false),
            Work::Ask(ask) => (ask.audio.is_some(), ask.image.is_some()),
            Work::Chat(chat) => chat::towers(chat),
        };
        for tower in &mut self.towers {
            let is_used = match tower.group {
                Group::Audio => audio,
                _ => vision,
            };
            if is_used {
                tower.used = Instant::now();
            }
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

    /// Answers a request whole, while the job waits for it; `None` where it was broken off.
    fn answer(&mut self, request: &Request) -> Result<Option<Answer>, EngineError> {
        let (desk, job) = (&mut *self.desk, self.job);
        let on_text = &mut |_: &str| ControlFlow::Continue(());
        let answer = self
            .engine
            .answer_giving_way(request, on_text, &mut |engine| {
                desk.give_way(engine, job.rank());
            });
        whole(answer)
    }

    /// Tells whoever asked a piece of the text.
    fn piece(&self, text: &str) {
        tell_piece(&self.desk.events, self.job.asker.as_ref(), text);
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
            details: hearing::told(answer.grammar_confidence),
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

fn tell_piece(events: &mpsc::Sender<Event>, asker: Option<&Header>, text: &str) {
    if let Some(asker) = asker {
        let update = Box::new(JobUpdate {
            partial: Some(text.to_owned()),
            ..JobUpdate::new(asker, JobState::Running)
        });
        events.blocking_send(Event::Told(Told::Asker(update))).ok();
    }
}

/// Thoughts go to whoever reads them apart from the text.
fn tell_thoughts(events: &mpsc::Sender<Event>, asker: Option<&Header>, thoughts: &str) {
    if let Some(asker) = asker.filter(|asker| asker.origin.reads_thoughts()) {
        let update = Box::new(JobUpdate {
            thoughts: Some(thoughts.to_owned()),
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
