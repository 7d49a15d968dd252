//! What a capture event costs: a picture, a clip, an utterance; its time by step, and the memory before, with and after its tower.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use super::{Bench, mb, median, noise, status_bytes};
use crate::cli::failure::{Failure, exit};
use crate::cli::output::publish;
use crate::config::Config;
use crate::features::image::RgbImage;
use crate::media::{AudioClip, SAMPLE_RATE_HZ};
use crate::model::family;
use crate::model::spec::Spec;
use crate::model::tasks::Tasks;
use crate::pipeline::{
    Answer, EncoderOptions, Engine, EngineError, EngineOptions, Media, Message, Part,
    PictureOptions, Request, SoftTokenPadding,
};

/// Sides of the squares that MobileNetV5 was trained on.
const RESOLUTIONS_PX: [usize; 3] = [256, 512, 768];

/// What the daemon hears at a time: 160 ms.
const PIECE_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 160 / 1000;

/// Ends the name of speech that was filled up.
pub(in crate::cli) const PADDED: &str = ", padded as the reference does";

/// The documented keys of `--json`.
#[derive(Serialize)]
pub(in crate::cli) struct Events {
    model: String,
    quantisation: String,
    matformer: String,
    isa: String,
    threads: usize,
    pub(in crate::cli) events: Vec<Event>,
}

/// Times are medians of the repetitions but for the first, whose page faults read the tower from flash.
#[derive(Serialize)]
pub(in crate::cli) struct Event {
    pub(in crate::cli) event: String,
    /// Of the first repetition: mapping the tower.
    load_ms: f64,
    /// Picture or sound to soft tokens; of the first repetition `first_encode_ms`.
    pub(in crate::cli) encode_ms: f64,
    first_encode_ms: f64,
    /// Of a clip: `encode_ms` as a share of what it takes to say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) real_time_factor: Option<f64>,
    /// Sound that is encoded together where it is spoken: as it is configured, or as it was chosen by what was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_ms: Option<usize>,
    prefill_ms: f64,
    decode_ms: f64,
    prompt_tokens: usize,
    tokens: usize,
    /// From the end of the event (the picture is there, the last word was said) to the last token.
    pub(in crate::cli) latency_ms: f64,
    unload_ms: f64,
    /// Memory of this process after an answer to text, mapped weights included; with the tower; and after its unloading.
    resident_before_bytes: u64,
    pub(in crate::cli) resident_loaded_bytes: u64,
    resident_after_bytes: u64,
}

/// One repetition.
struct Heard {
    answer: Answer,
    latency_ms: f64,
}

impl Bench {
    pub(super) fn image(&self) -> Result<(), Failure> {
        self.tell(self.seen(usize::MAX)?)
    }

    /// What `gemmad bench image` tells of the first `sizes`.
    ///
    /// # Errors
    /// The model cannot be opened, or sees nothing.
    pub(in crate::cli) fn seen(&self, sizes: usize) -> Result<Option<Events>, Failure> {
        let (config, tasks) = self.tasks()?;
        let prompt = tasks.describe().map_err(misconfigured)?;
        let mut report = None;
        for size in self.picture_sizes(&config)?.into_iter().take(sizes) {
            let mut engine = self.open(&config, |_| {})?;
            let request = self.request(
                &engine,
                vec![
                    Part::Media(Media::Image(picture(), size)),
                    Part::Text(prompt.clone()),
                ],
            );
            let name = match size.soft_tokens {
                Some(soft_tokens) => format!("picture, {soft_tokens} soft tokens"),
                None => format!("picture, {} px", size.resolution_px.unwrap_or_default()),
            };
            let event = self.event(&mut engine, name, None, &mut |engine| {
                answer_whole(engine, &request)
            })?;
            self.add(&engine, &mut report, event);
        }
        Ok(report)
    }

    /// What is measured: the size that was asked for, else those that the model knows, of soft tokens no more than it has by itself.
    fn picture_sizes(&self, config: &Config) -> Result<Vec<PictureOptions>, Failure> {
        let asked = self.pictures.or(PictureOptions::default());
        if asked != PictureOptions::default() {
            return Ok(vec![asked]);
        }
        let engine = self.open(config, |_| {})?;
        let Some(most) = engine.picture_options().soft_tokens else {
            let sides = RESOLUTIONS_PX.into_iter();
            return Ok(sides.map(PictureOptions::of_resolution).collect());
        };
        let known = engine.spec().pictures.iter();
        let known = known.flat_map(|pictures| pictures.soft_tokens);
        let wanted = known.filter(|&&soft_tokens| soft_tokens <= most);
        Ok(wanted
            .map(|&soft_tokens| PictureOptions::of_soft_tokens(soft_tokens))
            .collect())
    }

    pub(super) fn audio(&self) -> Result<(), Failure> {
        let (config, tasks) = self.tasks()?;
        let prompt = tasks.transcribe("English").map_err(misconfigured)?;
        let mut report = None;
        for seconds in [3, 10, 30] {
            let mut engine = self.open(&config, |_| {})?;
            let request = self.request(&engine, clip_parts(seconds, &prompt));
            let name = format!("clip, {seconds} s");
            let event = self.event(&mut engine, name, Some(seconds), &mut |engine| {
                answer_whole(engine, &request)
            })?;
            self.add(&engine, &mut report, event);
        }
        self.tell(report)
    }

    pub(super) fn voice(&self) -> Result<(), Failure> {
        self.tell(self.spoken(true)?)
    }

    /// What `gemmad bench voice` tells of speech that is encoded while it is spoken, and of speech that comes whole, if that is wanted.
    ///
    /// # Errors
    /// The model cannot be opened, or hears nothing.
    pub(in crate::cli) fn spoken(&self, whole: bool) -> Result<Option<Events>, Failure> {
        const SECONDS: usize = 3;
        let (config, tasks) = self.tasks()?;
        let prompt = tasks.transcribe("English").map_err(misconfigured)?;
        let mut report = None;
        let padded = self
            .spec()?
            .audio
            .and_then(|audio| audio.padded_soft_tokens);
        let paddings = match padded {
            Some(_) => vec![
                (Some(SoftTokenPadding::Reference), PADDED),
                (Some(SoftTokenPadding::None), ", not padded"),
            ],
            None => vec![(None, "")],
        };
        for (padding, padded) in paddings {
            let mut engine =
                self.open(&config, |encoders| encoders.soft_token_padding = padding)?;
            if whole {
                let request = self.request(&engine, clip_parts(SECONDS, &prompt));
                let name = format!("{SECONDS} s of speech, whole{padded}");
                let event = self.event(&mut engine, name, Some(SECONDS), &mut |engine| {
                    answer_whole(engine, &request)
                })?;
                self.add(&engine, &mut report, event);
            }
            let samples = sound(SECONDS);
            let name = format!("{SECONDS} s of speech, streamed{padded}");
            let event = self.event(&mut engine, name, Some(SECONDS), &mut |engine| {
                let mut speech = engine.start_speech(None, &prompt, self.matformer.as_deref())?;
                for heard in samples.chunks(PIECE_SAMPLES) {
                    engine.hear(&mut speech, heard)?;
                }
                let end_of_speech = Instant::now();
                let generation = engine.most_likely(self.decode(12));
                let answer = engine.finish_speech(speech, &generation, &mut go_on)?;
                Ok(Heard {
                    answer,
                    latency_ms: milliseconds(end_of_speech),
                })
            })?;
            self.add(&engine, &mut report, event);
        }
        Ok(report)
    }

    fn spec(&self) -> Result<Spec, Failure> {
        Ok(family::load(self.model()?)?.spec().clone())
    }

    fn tasks(&self) -> Result<(Config, Tasks), Failure> {
        let config = match &self.config {
            None => Config::default(),
            Some(path) => Config::load(path).map_err(misconfigured)?,
        };
        let tasks = config.tasks.clone();
        Ok((config, tasks))
    }

    fn open(
        &self,
        config: &Config,
        adjust: impl FnOnce(&mut EncoderOptions),
    ) -> Result<Engine, Failure> {
        let mut encoders = EncoderOptions::new(&config.audio, &config.vision);
        adjust(&mut encoders);
        let options = EngineOptions {
            threads: self.threads(),
            kv_type: self.kv_cache.into(),
            encoders,
            ple: config.ple.clone(),
            ..EngineOptions::default()
        };
        Ok(Engine::open(self.model()?, options)?)
    }

    fn request(&self, engine: &Engine, user: Vec<Part>) -> Request {
        Request {
            messages: Message::user(user),
            matformer: self.matformer.clone(),
            thinking: None,
            generation: engine.most_likely(self.decode(12)),
            conversation: None,
        }
    }

    fn event(
        &self,
        engine: &mut Engine,
        event: String,
        seconds: Option<usize>,
        once: &mut dyn FnMut(&mut Engine) -> Result<Heard, EngineError>,
    ) -> Result<Event, Failure> {
        // Numbers, as different tokens as there are: together they reach nearly every neuron of the sparse layers, so that what is
        // resident before and after differs by the tower alone.
        let numbers: Vec<String> = (0..250).map(|number| (number * 37).to_string()).collect();
        let text = self.request(engine, vec![Part::Text(numbers.join(" "))]);
        engine.answer(&text, &mut go_on)?;
        let resident_before_bytes = status_bytes("VmRSS:");
        let first = once(engine)?.answer;
        let runs = (0..self.runs)
            .map(|_| once(engine))
            .collect::<Result<Vec<Heard>, _>>()?;
        let resident_loaded_bytes = status_bytes("VmRSS:");
        let start = Instant::now();
        engine.unload_encoders();
        let unload_ms = milliseconds(start);
        engine.answer(&text, &mut go_on)?;
        let of = |get: fn(&Heard) -> f64| median(runs.iter().map(get));
        let encode_ms = of(|run| run.answer.timing.encode_ms);
        Ok(Event {
            event,
            load_ms: first.timing.load_ms,
            first_encode_ms: first.timing.encode_ms,
            encode_ms,
            real_time_factor: seconds.map(|seconds| encode_ms / (seconds as f64 * 1e3)),
            batch_ms: seconds.map(|_| engine.audio_batch_ms()),
            prefill_ms: of(|run| run.answer.timing.prefill_ms),
            decode_ms: of(|run| run.answer.timing.decode_ms),
            prompt_tokens: first.timing.prompt_tokens,
            tokens: first.timing.tokens,
            latency_ms: of(|run| run.latency_ms),
            unload_ms,
            resident_before_bytes,
            resident_loaded_bytes,
            resident_after_bytes: status_bytes("VmRSS:"),
        })
    }

    fn add(&self, engine: &Engine, report: &mut Option<Events>, event: Event) {
        let report = report.get_or_insert_with(|| Events {
            model: engine.dir().display().to_string(),
            quantisation: engine.quantization(),
            matformer: self.matformer.clone().unwrap_or_else(|| "full".to_owned()),
            isa: engine.isa_name(),
            threads: engine.threads(),
            events: Vec::new(),
        });
        report.events.push(event);
    }

    fn tell(&self, report: Option<Events>) -> Result<(), Failure> {
        report.map_or(Ok(()), |report| publish(&report, self.json, print))
    }
}

fn misconfigured(error: impl std::fmt::Display) -> Failure {
    Failure::new(exit::CONFIG, error)
}

fn go_on(_: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn answer_whole(engine: &mut Engine, request: &Request) -> Result<Heard, EngineError> {
    let start = Instant::now();
    let answer = engine.answer(request, &mut go_on)?;
    Ok(Heard {
        answer,
        latency_ms: milliseconds(start),
    })
}

/// Samples of quiet noise.
fn sound(seconds: usize) -> Vec<f32> {
    let samples = noise().take(seconds * SAMPLE_RATE_HZ as usize);
    samples.map(|sample| 0.1 * sample).collect()
}

fn clip_parts(seconds: usize, prompt: &str) -> Vec<Part> {
    let clip = AudioClip {
        samples: sound(seconds),
        sample_rate_hz: SAMPLE_RATE_HZ,
    };
    vec![
        Part::Media(Media::Clip(clip)),
        Part::Text(prompt.to_owned()),
    ]
}

/// A picture as a camera gives it: 1280 x 720.
fn picture() -> RgbImage {
    let (width_px, height_px) = (1280, 720);
    let pixels = noise().take(width_px * height_px * 3);
    RgbImage {
        width_px,
        height_px,
        pixels: pixels.map(|value| (value * 127.0 + 128.0) as u8).collect(),
    }
}

fn print(report: &Events, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} ({}), slice {}, {} threads, {}",
        report.model, report.quantisation, report.matformer, report.threads, report.isa
    )?;
    for event in &report.events {
        let real_time = event
            .real_time_factor
            .map_or_else(String::new, |factor| format!(" ({factor:.3} of real time)"));
        let batches = event.batch_ms.map_or_else(String::new, |ms| {
            format!("; {ms} ms of what is spoken are encoded together")
        });
        writeln!(out, "{}", event.event)?;
        writeln!(
            out,
            "  encode {:.0} ms{real_time}, prefill {:.0} ms ({} tokens), decode {:.0} ms ({} tokens){batches}",
            event.encode_ms, event.prefill_ms, event.prompt_tokens, event.decode_ms, event.tokens
        )?;
        writeln!(
            out,
            "  from its end to the last token {:.0} ms; the first one: load {:.0} ms, encode {:.0} ms",
            event.latency_ms, event.load_ms, event.first_encode_ms
        )?;
        writeln!(
            out,
            "  resident before {}, with the tower {}, after unloading it in {:.0} ms {}",
            mb(event.resident_before_bytes),
            mb(event.resident_loaded_bytes),
            event.unload_ms,
            mb(event.resident_after_bytes)
        )?;
    }
    Ok(())
}
