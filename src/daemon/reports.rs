//! Payloads that the loop publishes about work that the worker never began, and about the daemon itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::clock;
use super::event::{Loaded, Told};
use super::hearing::Understood;
use super::job::{CaptionWork, Job, Speaker, Utterance, Work};
use super::scene;
use super::settings::Settings;
use super::vitals::{Degraded, Vitals};
use crate::capture::options::Trigger;
use crate::config::Config;
use crate::media::CaptionTrigger;
use crate::pipeline::commands::{NamesFrom, built_in};
use crate::pipeline::{GroupMemory, GuessCounts, RowCounts};
use crate::report::{
    CameraInfo, CaptionEvent, Cut, ErrorBody, EventType, Health, Info, JobUpdate, MicrophoneInfo,
    MqttHealth, Queues, Reply, Report, ReportTiming, SCHEMA, VoiceEvent, short,
};

/// What a job that will not be done is reported as; nothing for a caption that nobody asked for.
pub(super) fn refused(job: &Job, model: &str, error: ErrorBody) -> Option<Told> {
    if let Some(asker) = &job.asker {
        return Some(Told::Asker(Box::new(JobUpdate::end(asker, Err(error)))));
    }
    match &job.work {
        Work::Utterance(Utterance {
            speaker: Speaker::Microphone(microphone),
            ..
        }) => Some(Told::All(rejected_speech(
            &job.id,
            microphone,
            &job.settings,
            model,
            error.message,
        ))),
        _ => None,
    }
}

/// An utterance that is not answered, or did not come.
pub(super) fn rejected_speech(
    id: &str,
    microphone: &str,
    settings: &Settings,
    model: &str,
    reason: String,
) -> Report {
    let language = settings
        .microphone(microphone)
        .map(|mic| mic.language.clone());
    Report::Voice(Box::new(VoiceEvent {
        schema: SCHEMA,
        id: id.to_owned(),
        event_type: EventType::Rejected,
        ts: clock::now(),
        clock_synced: clock::is_synced(),
        source: microphone.to_owned(),
        wake_word: None,
        conversation: None,
        language: language.unwrap_or_default(),
        text: None,
        command: None,
        commands: Vec::new(),
        confidence: None,
        audio_s: 0.0,
        truncated: false,
        reason: Some(reason),
        model: model.to_owned(),
        matformer: settings.matformer.clone().unwrap_or_default(),
        timing: ReportTiming::default(),
    }))
}

/// What was heard at a microphone, `seconds` of it, and what came of it; `model` is that which was asked.
pub(super) fn heard(
    job: &Job,
    microphone: &str,
    utterance: &Utterance,
    (seconds, truncated): (f64, bool),
    understood: Understood,
    model: &str,
) -> Report {
    let event_type = understood.event_type;
    log::info!(
        source = microphone, job_id = job.id.as_str(), EVENT = event_type.name();
        "heard {seconds:.1} s of speech: {}", event_type.name()
    );
    if job.settings.config.log.content {
        log::debug!(source = microphone; "heard: {:?} {:?}", understood.text, understood.commands);
    }
    let options = job.settings.microphone(microphone);
    Report::Voice(Box::new(VoiceEvent {
        schema: SCHEMA,
        id: job.id.clone(),
        event_type,
        ts: clock::now(),
        clock_synced: clock::is_synced(),
        source: microphone.to_owned(),
        language: options.map_or_else(String::new, |options| options.language.clone()),
        wake_word: utterance.wake_word.clone(),
        conversation: utterance.conversation.clone(),
        text: understood.text,
        command: understood.commands.first().cloned(),
        commands: match understood.commands {
            several if several.len() > 1 => several,
            _ => Vec::new(),
        },
        confidence: understood.confidence,
        audio_s: seconds,
        truncated,
        reason: understood.reason,
        model: model.to_owned(),
        matformer: understood.matformer,
        timing: understood.timing,
    }))
}

/// What was seen on a picture of a camera, or why it was not described; `model` is that which was asked.
pub(super) fn caption(
    job: &Job,
    work: &CaptionWork,
    reply: &Result<Reply, ErrorBody>,
    model: &str,
) -> Report {
    let event_type = match reply {
        Ok(_) => EventType::Caption,
        Err(_) => EventType::Failed,
    };
    let (source, job_id) = (work.camera.as_str(), job.id.as_str());
    match reply {
        Ok(_) => log::info!(source, job_id, EVENT = event_type.name(); "described a picture"),
        Err(error) => log::warn!(
            source, job_id, EVENT = event_type.name();
            "could not describe a picture: {}", error.message
        ),
    }
    let answer = reply.as_ref().ok();
    let text = answer.and_then(|reply| reply.text.as_deref());
    let text = text.unwrap_or_default();
    let (caption, scene) = match work.frigate {
        Some(_) if job.settings.config.frigate.structured => scene::read(text),
        _ => (text.trim().to_owned(), None),
    };
    if job.settings.config.log.content {
        log::debug!(source; "saw: {caption}");
    }
    let slice = answer.and_then(|reply| reply.matformer.clone());
    let event = CaptionEvent {
        schema: SCHEMA,
        id: job.id.clone(),
        event_type,
        ts: clock::now(),
        clock_synced: clock::is_synced(),
        source: work.camera.clone(),
        short: short(&caption, Cut::AtWord),
        caption,
        trigger: work.trigger,
        motion_area: work.motion.map(|motion| motion.area),
        motion_box: work.motion.map(|motion| motion.bounds),
        frigate: work.frigate.clone(),
        scene,
        frame_ts: clock::rfc3339(work.frame.taken_at),
        image_sha256: hex::encode(Sha256::digest(&work.frame.encoded)),
        reason: reply.as_ref().err().map(|error| error.message.clone()),
        model: model.to_owned(),
        matformer: slice
            .or_else(|| job.settings.matformer.clone())
            .unwrap_or_default(),
        timing: answer
            .and_then(|reply| reply.timing.clone())
            .unwrap_or_default(),
    };
    let camera = job.settings.camera(&work.camera);
    let publishes = camera.is_some_and(|camera| camera.publish_image);
    Report::Caption {
        event: Box::new(event),
        image: publishes.then(|| work.frame.encoded.clone().into()),
    }
}

/// A camera could not give the picture that was asked for.
pub(super) fn failed_snapshot(
    camera: &str,
    settings: &Settings,
    model: &str,
    reason: String,
) -> Report {
    let now = clock::now();
    Report::Caption {
        event: Box::new(CaptionEvent {
            schema: SCHEMA,
            id: ulid::Ulid::generate().to_string(),
            event_type: EventType::Failed,
            frigate: None,
            scene: None,
            frame_ts: now.clone(),
            ts: now,
            clock_synced: clock::is_synced(),
            source: camera.to_owned(),
            caption: String::new(),
            short: String::new(),
            trigger: CaptionTrigger::Request,
            motion_area: None,
            motion_box: None,
            image_sha256: String::new(),
            reason: Some(reason),
            model: model.to_owned(),
            matformer: settings.matformer.clone().unwrap_or_default(),
            timing: ReportTiming::default(),
        }),
        image: None,
    }
}

/// Microphones and cameras as they are told of.
pub fn sources(config: &Config) -> (Vec<MicrophoneInfo>, Vec<CameraInfo>) {
    let named = |name: &Option<String>, id: &String| name.clone().unwrap_or_else(|| id.clone());
    let microphones = config.microphone.iter().map(|microphone| MicrophoneInfo {
        id: microphone.id.clone(),
        name: named(&microphone.name, &microphone.id),
        device: microphone.device.clone(),
        wakes: microphone.trigger == Trigger::WakeWord,
    });
    let cameras = config.camera.iter().map(|camera| CameraInfo {
        id: camera.id.clone(),
        name: named(&camera.name, &camera.id),
        device: camera.source(),
    });
    (microphones.collect(), cameras.collect())
}

/// What runs.
pub(super) fn info(settings: &Settings, loaded: &Loaded, started_at: &str) -> Info {
    let config = &settings.config;
    let (microphones, cameras) = sources(config);
    Info {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: started_at.to_owned(),
        model: loaded.model.clone(),
        quantisation: loaded.quantisation.clone(),
        matformer: settings
            .matformer
            .clone()
            .unwrap_or_else(|| loaded.slices.first().cloned().unwrap_or_default()),
        matformer_options: loaded.slices.clone(),
        context: config.model.context,
        isa: loaded.isa.clone(),
        threads: loaded.threads,
        microphones,
        cameras,
        speaker: config.speaker.device.clone(),
        commands: commands(config),
        config_sha256: settings.config_sha256.clone(),
    }
}

/// Names of what may be commanded: also of what may be once the names of a home have come.
fn commands(config: &Config) -> Vec<String> {
    let own = config.command.iter().map(|command| command.name.clone());
    let wanted = config.homeassistant.names != NamesFrom::Off;
    let built_in = built_in().filter(|_| wanted).map(str::to_owned);
    own.chain(built_in).collect()
}

/// What is counted and remembered for `health`.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) started: Instant,
    pub(super) queues: Queues,
    pub(super) memory: Vec<GroupMemory>,
    pub(super) ple: RowCounts,
    /// What came of the guesses of each source.
    pub(super) guesses: Vec<GuessCounts>,
    pub(super) tokens_per_second: f64,
    pub(super) prefill_tokens_per_second: f64,
    pub(super) last_error: Option<String>,
}

impl Record {
    pub(super) fn new(memory: Vec<GroupMemory>) -> Record {
        Record {
            started: Instant::now(),
            queues: Queues::default(),
            memory,
            ple: RowCounts::default(),
            guesses: Vec::new(),
            tokens_per_second: 0.0,
            prefill_tokens_per_second: 0.0,
            last_error: None,
        }
    }

    fn guessed(&self, of: impl Fn(&GuessCounts) -> u64) -> BTreeMap<String, u64> {
        let count = |counts: &GuessCounts| (counts.source.to_owned(), of(counts));
        self.guesses.iter().map(count).collect()
    }

    /// Remembers an error, with its time.
    pub(super) fn error(&mut self, message: &str) {
        self.last_error = Some(format!("{} {message}", clock::now()));
    }

    /// Remembers how fast an answer was.
    pub(super) fn speed(&mut self, timing: &ReportTiming) {
        if timing.tokens > 0 {
            self.tokens_per_second = timing.tps;
        }
        if timing.prefill_ms > 0.0 {
            let read = timing.prompt_tokens.saturating_sub(timing.cached_tokens);
            self.prefill_tokens_per_second = read as f64 * 1e3 / timing.prefill_ms;
        }
    }

    /// How it is.
    pub(super) fn health(
        &self,
        board_root: &Path,
        state: &str,
        degraded: &Degraded,
        jobs: usize,
        mqtt: MqttHealth,
    ) -> Health {
        let vitals = Vitals::read(board_root);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let groups = |of: &dyn Fn(&GroupMemory) -> f64| -> BTreeMap<String, f64> {
            self.memory
                .iter()
                .map(|memory| (memory.group.to_string(), of(memory)))
                .collect()
        };
        Health {
            schema: SCHEMA,
            ts: clock::now(),
            state: state.to_owned(),
            degraded: degraded.reasons(),
            uptime_s: self.started.elapsed().as_secs(),
            rss_mib: vitals.rss_mib,
            anonymous_mib: vitals.anonymous_mib,
            memory_groups_mib: groups(&|memory| mib(memory.resident_bytes)),
            group_states: self
                .memory
                .iter()
                .map(|memory| (memory.group.to_string(), memory.state.to_string()))
                .collect(),
            load_1m: vitals.load_1m,
            soc_temp_c: vitals.hottest_c,
            queues: Queues {
                jobs,
                ..self.queues.clone()
            },
            mqtt,
            fleet: None,
            tokens_per_second: self.tokens_per_second,
            prefill_tokens_per_second: self.prefill_tokens_per_second,
            ple_rows: self.ple.used,
            ple_row_reads: self.ple.read,
            guessed_tokens: self.guessed(|counts| counts.guessed),
            accepted_tokens: self.guessed(|counts| counts.accepted),
            last_error: self.last_error.clone(),
        }
    }
}

/// The answer to a request that was done at once.
pub(super) fn done(details: serde_json::Value) -> Reply {
    let details = match details {
        serde_json::Value::Object(details) => details,
        _ => serde_json::Map::new(),
    };
    Reply {
        details,
        ..Reply::default()
    }
}
