//! What answers gain that are decoded together: tokens per second of all of them, beside one alone.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use super::guess::ANSWER_TOKENS;
use super::{Bench, median};
use crate::cli::failure::Failure;
use crate::cli::model_args;
use crate::cli::output::publish;
use crate::pipeline::{
    Engine, EngineError, EngineOptions, Guessing, Message, Part, Request, Sitter,
};

/// What each is asked about: prompts and answers are to be different ones.
const WORDS: [&str; 8] = [
    "one ", "two ", "red ", "sun ", "sea ", "tree ", "bird ", "lamp ",
];

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Together {
    model: String,
    quantisation: String,
    isa: String,
    threads: usize,
    prompt_tokens: usize,
    shares: Vec<Share>,
}

/// Medians of the repetitions, which were taken in turn.
#[derive(Serialize)]
struct Share {
    answers: usize,
    /// Tokens per second of all answers.
    decode_tok_s: f64,
    pass_ms: f64,
    /// How many times as many tokens per second as of one answer.
    speed: f64,
}

struct Run {
    tokens: usize,
    passes: usize,
    seconds: f64,
    prompt_tokens: usize,
}

impl Bench {
    pub(super) fn together(&self) -> Result<(), Failure> {
        let sizes = std::iter::once(1).chain(self.answers.iter().map(|&answers| answers.into()));
        let mut sizes: Vec<usize> = sizes.collect();
        sizes.sort_unstable();
        sizes.dedup();
        let options = EngineOptions {
            threads: self.threads(),
            context: self.prefill as usize + self.decode(ANSWER_TOKENS) + 64,
            kv_type: self.kv_cache.into(),
            answers: sizes.last().copied().unwrap_or(1),
            ..EngineOptions::default()
        };
        let mut engine = model_args::open(self.model()?, options)?;
        // One token of each answer a pass: what guesses give is told without.
        engine.shortcuts_mut().guessing = Guessing::Never;
        let generation = engine.most_likely(self.decode(ANSWER_TOKENS));
        let requests = WORDS.map(|word| Request {
            messages: Message::user(vec![Part::Text(word.repeat(self.prefill as usize / 2))]),
            matformer: self.matformer.clone(),
            thinking: None,
            conversation: None,
            generation: generation.clone(),
        });
        let mut runs: Vec<Vec<Run>> = sizes.iter().map(|_| Vec::new()).collect();
        // One run more than asked for: the first one reads the weights from flash.
        for run in 0..=self.runs {
            for (&size, runs) in sizes.iter().zip(&mut runs) {
                let answered = answer(&mut engine, &requests[..size])?;
                if run > 0 {
                    runs.push(answered);
                }
            }
        }
        let shares = sizes.iter().zip(&runs).map(|(&answers, runs)| Share {
            answers,
            decode_tok_s: median(runs.iter().map(|run| run.tokens as f64 / run.seconds)),
            pass_ms: median(runs.iter().map(|run| 1e3 * run.seconds / run.passes as f64)),
            speed: 1.0,
        });
        let mut shares: Vec<Share> = shares.collect();
        if let Some((one, others)) = shares.split_first_mut() {
            for share in others {
                share.speed = share.decode_tok_s / one.decode_tok_s;
            }
        }
        let report = Together {
            model: engine.dir().display().to_string(),
            quantisation: engine.quantization(),
            isa: engine.isa_name(),
            threads: engine.threads(),
            prompt_tokens: runs
                .iter()
                .flatten()
                .next()
                .map_or(0, |run| run.prompt_tokens),
            shares,
        };
        publish(&report, self.json, print)
    }
}

/// Decodes an answer to each request, all of them together, once their prompts are taken.
fn answer(engine: &mut Engine, requests: &[Request]) -> Result<Run, EngineError> {
    for request in requests {
        let sitter = Sitter {
            urgency: 1,
            on_step: Box::new(|| ControlFlow::Continue(())),
            on_piece: Box::new(|_| ControlFlow::Continue(())),
        };
        engine.seat(request, sitter, &mut |_| {})?;
    }
    let (start, mut passes) = (Instant::now(), 0);
    while engine.seated().next().is_some() {
        engine.step();
        passes += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (mut tokens, mut prompt_tokens) = (0, 0);
    while let Some((_, answer)) = engine.take_ended() {
        let timing = answer?.timing;
        // The first was chosen behind the prompt.
        tokens += timing.tokens.saturating_sub(1);
        prompt_tokens = timing.prompt_tokens;
    }
    Ok(Run {
        tokens,
        passes: passes.max(1),
        seconds,
        prompt_tokens,
    })
}

fn print(report: &Together, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} ({}), {} threads, {}: answers to prompts of {} tokens",
        report.model, report.quantisation, report.threads, report.isa, report.prompt_tokens
    )?;
    for share in &report.shares {
        writeln!(
            out,
            "  {} together {:>10.1} tok/s in all, {:>8.2} ms a pass, {:.2} times as many as one",
            share.answers, share.decode_tok_s, share.pass_ms, share.speed
        )?;
    }
    Ok(())
}
