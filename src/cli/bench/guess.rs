//! What guesses can give: an answer is decoded token by token, and again with guesses that are right, for it is known by then. And what
//! they can cost.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::chance::ByChance;
use super::{Bench, median};
use crate::cli::failure::Failure;
use crate::cli::model_args;
use crate::cli::output::publish;
use crate::pipeline::{
    Answer, Engine, EngineError, EngineOptions, Guessing, Message, Part, Request, STRENGTHS,
    Source, Stand,
};

/// Tokens of the answer that is decoded.
pub(super) const ANSWER_TOKENS: usize = 64;

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Passes {
    model: String,
    quantisation: String,
    isa: String,
    threads: usize,
    answer_tokens: usize,
    passes: Vec<Pass>,
    by_chance: ByChance,
}

/// Medians of the repetitions, which were taken in turn.
#[derive(Serialize)]
struct Pass {
    /// Tokens of a pass, those that are guessed among them.
    tokens: usize,
    decode_tok_s: f64,
    /// A pass, with what is chosen behind each of its tokens.
    pass_ms: f64,
    /// What a pass takes in relation to one of one token.
    cost: f64,
    /// How many times as fast the answer came as token by token.
    speed: f64,
}

/// An answer as it was given before.
#[derive(Default)]
struct Known {
    answer: Vec<u32>,
    /// Tokens that are guessed; without any, what is written is written down.
    guesses: usize,
}

struct Told(Arc<Mutex<Known>>);

impl Told {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        let mut known = self.known();
        if known.guesses == 0 {
            known.answer = stand.written.to_vec();
        } else {
            let rest = known.answer.iter().skip(stand.written.len());
            ids.extend(rest.take(most.min(known.guesses)));
        }
        STRENGTHS - 1
    }
}

impl Bench {
    pub(super) fn guess(&self) -> Result<(), Failure> {
        let options = EngineOptions {
            threads: self.threads(),
            context: self.prefill as usize + self.decode(ANSWER_TOKENS) + 64,
            kv_type: self.kv_cache.into(),
            ..EngineOptions::default()
        };
        let mut engine = model_args::open(self.model()?, options)?;
        // What it says does not matter, but that it says the same each time.
        let words = "one ".repeat(self.prefill as usize / 2);
        let request = Request {
            messages: Message::user(vec![Part::Text(words)]),
            matformer: self.matformer.clone(),
            thinking: None,
            conversation: None,
            generation: engine.most_likely(self.decode(ANSWER_TOKENS)),
        };
        let by_chance = self.by_chance(&mut engine, &request)?;
        engine.shortcuts_mut().guessing = Guessing::Always;
        let known = Arc::new(Mutex::new(Known::default()));
        let told = Told(Arc::clone(&known));
        engine.only_guesses(Box::new(Told(Arc::clone(&known))));
        let sizes = std::iter::once(1).chain(self.guess.iter().map(|&tokens| usize::from(tokens)));
        let sizes: Vec<usize> = sizes.collect();
        let mut runs: Vec<Vec<Answer>> = sizes.iter().map(|_| Vec::new()).collect();
        // One run more than asked for: the first one reads the weights from flash.
        for run in 0..=self.runs {
            for (size, runs) in sizes.iter().zip(&mut runs) {
                told.known().guesses = size - 1;
                let answer = answer(&mut engine, &request)?;
                if run > 0 {
                    runs.push(answer);
                }
            }
        }
        let passes = sizes.iter().zip(&runs).map(|(&tokens, runs)| {
            let timing = |of: &dyn Fn(&Answer) -> f64| median(runs.iter().map(of));
            let decode_tok_s = timing(&|answer| answer.timing.tokens_per_second());
            let per_pass =
                |answer: &Answer| answer.timing.decode_ms / answer.timing.passes.max(1) as f64;
            Pass {
                tokens,
                decode_tok_s,
                pass_ms: timing(&per_pass),
                cost: 1.0,
                speed: 1.0,
            }
        });
        let mut passes: Vec<Pass> = passes.collect();
        if let Some((one, others)) = passes.split_first_mut() {
            for pass in others {
                pass.cost = pass.pass_ms / one.pass_ms;
                pass.speed = pass.decode_tok_s / one.decode_tok_s;
            }
        }
        let report = Passes {
            model: engine.dir().display().to_string(),
            quantisation: engine.quantization(),
            isa: engine.isa_name(),
            threads: engine.threads(),
            answer_tokens: runs
                .iter()
                .flatten()
                .next()
                .map_or(0, |answer| answer.timing.tokens),
            passes,
            by_chance,
        };
        publish(&report, self.json, print)
    }
}

fn answer(engine: &mut Engine, request: &Request) -> Result<Answer, EngineError> {
    engine.answer(request, &mut |_| ControlFlow::Continue(()))
}

fn print(report: &Passes, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} ({}), {} threads, {}: an answer of {} tokens, guessed right",
        report.model, report.quantisation, report.threads, report.isa, report.answer_tokens
    )?;
    for pass in &report.passes {
        writeln!(
            out,
            "  {} tokens a pass {:>10.1} tok/s, {:>8.2} ms a pass, {:.2} times a pass of one, {:.2} times as fast",
            pass.tokens, pass.decode_tok_s, pass.pass_ms, pass.cost, pass.speed
        )?;
    }
    let chance = &report.by_chance;
    writeln!(
        out,
        "  by chance, where no guess is right: {:.1} tok/s without guesses, {:.1} with them, {:.1} % slower; {:.0} of 100 guessed in vain",
        chance.plain_tok_s, chance.guessing_tok_s, chance.slower_percent, chance.wasted_percent
    )
}
