//! `gemmad eval tools`: whether the right tools are called.

mod cases;
mod prompts;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::super::failure::{Failure, note};
use super::super::model_args::{self, EngineArgs};
use super::super::{output, progress};
use crate::pipeline::{
    CallRules, Engine, EngineOptions, HouseNames, Message, Part, Request, Tools as Callable,
};
use cases::{Call, Case, Cases, Outcome};

/// Measure whether the right tools are called: sentences, and the calls that each should lead to
///
/// FILE is JSON with `instructions`, `tools` as OpenAI's protocol has them, and `cases`: `{"say", "calls": [{"name", "arguments"}],
/// "language"?}`, no calls where a sentence is to be answered. `same` lists names of one thing, `optional` arguments that may be left
/// out. Where the instructions list what is in a house, as Home Assistant's do, calls name nothing else. Without FILE, 60 sentences in
/// English, German and Spanish are taken that come with the program.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Tools {
    /// Directory of a checkpoint or pack
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
    /// MatFormer slice (`gemmad inspect` lists them) [default: the whole model]
    #[arg(long, value_name = "NAME")]
    matformer: Option<String>,
    /// The sentences and their calls [default: the example that comes with the program]
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    cases: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 160)]
    max_tokens: usize,
    /// Let calls name what is not in the house
    #[arg(long)]
    open_names: bool,
    /// Measure seconds instead, of prompts of about N tokens as Home Assistant makes them: read for the first time, known from memory
    /// and from disk, and the round behind a call; may be given several times
    #[arg(long, value_name = "N")]
    prompts: Vec<usize>,
    /// Print what became of each sentence
    #[arg(long, conflicts_with = "json")]
    verbose: bool,
    /// Print JSON, with what was called for each sentence
    #[arg(long)]
    json: bool,
}

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Report {
    model: String,
    matformer: String,
    sentences: usize,
    /// Of all sentences.
    counts: Counts,
    /// By language.
    languages: BTreeMap<String, Counts>,
    /// Tokens of a prompt and of an answer, and seconds, on average.
    prompt_tokens: f64,
    read_tokens: f64,
    answer_tokens: f64,
    seconds: f64,
    cases: Vec<Judged>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    right: usize,
    wrong_entity: usize,
    wrong_value: usize,
    wrong_tool: usize,
    no_call: usize,
    needless: usize,
}

#[derive(Serialize)]
struct Judged {
    say: String,
    language: String,
    outcome: Outcome,
    wanted: Vec<Call>,
    called: Vec<Call>,
    text: String,
    prompt_tokens: usize,
    read_tokens: usize,
    tokens: usize,
    seconds: f64,
}

impl Counts {
    fn of<'j>(judged: impl Iterator<Item = &'j Judged>) -> Counts {
        let mut counts = Counts::default();
        for judged in judged {
            *match judged.outcome {
                Outcome::Right => &mut counts.right,
                Outcome::WrongEntity => &mut counts.wrong_entity,
                Outcome::WrongValue => &mut counts.wrong_value,
                Outcome::WrongTool => &mut counts.wrong_tool,
                Outcome::NoCall => &mut counts.no_call,
                Outcome::Needless => &mut counts.needless,
            } += 1;
        }
        counts
    }

    fn print(&self, name: &str, out: &mut dyn Write) -> io::Result<()> {
        let all = self.right
            + self.wrong_entity
            + self.wrong_value
            + self.wrong_tool
            + self.no_call
            + self.needless;
        writeln!(
            out,
            "{name:<9} {:>5} of {all:<5} {:>12} {:>11} {:>10} {:>7} {:>8}",
            self.right,
            self.wrong_entity,
            self.wrong_value,
            self.wrong_tool,
            self.no_call,
            self.needless,
        )
    }
}

impl Tools {
    pub(super) fn run(self) -> Result<(), Failure> {
        if !self.prompts.is_empty() {
            return prompts::run(&self);
        }
        let cases = Cases::read(self.cases.as_deref())?;
        let mut engine = self.open(self.options()?)?;
        let callable = self.callable(&cases);
        let progress = progress::of_files(cases.cases.len());
        let mut judged = Vec::new();
        for case in &cases.cases {
            progress.set_message(crate::guard::harmless::line(&case.say).into_owned());
            judged.push(self.judge(&mut engine, &cases, case, callable.clone())?);
            progress.inc(1);
        }
        progress.finish_and_clear();
        let average =
            |of: &dyn Fn(&Judged) -> f64| judged.iter().map(of).sum::<f64>() / judged.len() as f64;
        let mut languages: BTreeMap<String, Vec<&Judged>> = BTreeMap::new();
        for case in judged.iter().filter(|case| !case.language.is_empty()) {
            languages
                .entry(case.language.clone())
                .or_default()
                .push(case);
        }
        let report = Report {
            model: self.model.display().to_string(),
            matformer: self.matformer.clone().unwrap_or_else(|| "full".to_owned()),
            sentences: judged.len(),
            counts: Counts::of(judged.iter()),
            languages: languages
                .into_iter()
                .map(|(language, judged)| (language, Counts::of(judged.into_iter())))
                .collect(),
            prompt_tokens: average(&|case| case.prompt_tokens as f64),
            read_tokens: average(&|case| case.read_tokens as f64),
            answer_tokens: average(&|case| case.tokens as f64),
            seconds: average(&|case| case.seconds),
            cases: judged,
        };
        output::publish(&report, self.json, |report, out| {
            report.print(self.verbose, out)
        })
    }

    /// As the daemon runs a model: what comes again is kept.
    fn options(&self) -> Result<EngineOptions, Failure> {
        let config = self.engine.config()?;
        let options = self.engine.options(&config);
        Ok(EngineOptions {
            prefix_bytes: (config.prefix_cache.memory_mib as u64) << 20,
            ..options
        })
    }

    fn open(&self, options: EngineOptions) -> Result<Engine, Failure> {
        model_args::open(&self.model, options)
    }

    fn callable(&self, cases: &Cases) -> Callable {
        let offered = cases.tools();
        let mut callable = offered.clone();
        match HouseNames::find([cases.instructions.as_str()].into_iter()) {
            Some(names) if !self.open_names => names.close(&mut callable, usize::MAX),
            Some(_) => {}
            None => {
                note("the instructions list nothing that is in a house: any name may be called")
            }
        }
        Callable {
            offered,
            callable,
            rules: CallRules {
                must: false,
                several: true,
            },
        }
    }

    fn judge(
        &self,
        engine: &mut Engine,
        cases: &Cases,
        case: &Case,
        tools: Callable,
    ) -> Result<Judged, Failure> {
        let mut generation = engine.most_likely(self.max_tokens);
        generation.tools = Some(tools);
        let request = Request {
            messages: Message::with_instructions(
                Some(cases.instructions.clone()),
                vec![Part::Text(case.say.clone())],
            ),
            matformer: self.matformer.clone(),
            thinking: None,
            conversation: None,
            generation,
        };
        engine.accepts(&request)?;
        let start = Instant::now();
        let answer = engine.answer(&request, &mut |_| ControlFlow::Continue(()))?;
        let called = answer.calls.into_iter().map(|call| Call {
            name: call.name,
            arguments: call.arguments,
        });
        let called: Vec<Call> = called.collect();
        Ok(Judged {
            say: case.say.clone(),
            language: case.language.clone(),
            outcome: cases.judge(case, &called),
            wanted: case.calls.clone(),
            called,
            text: answer.text,
            prompt_tokens: answer.timing.prompt_tokens,
            read_tokens: answer.timing.prompt_tokens - answer.timing.cached_tokens,
            tokens: answer.timing.tokens,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

impl Report {
    fn print(&self, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
        if verbose {
            for case in &self.cases {
                let outcome = serde_json::to_value(case.outcome)?;
                let outcome = outcome.as_str().unwrap_or_default();
                writeln!(out, "{outcome:<13} {}", case.say)?;
                for call in &case.called {
                    let arguments = serde_json::Value::Object(call.arguments.clone());
                    writeln!(out, "              {} {arguments}", call.name)?;
                }
                if case.called.is_empty() && !case.text.is_empty() {
                    writeln!(out, "              {}", case.text.replace('\n', " "))?;
                }
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "{:<9} {:>14} {:>12} {:>11} {:>10} {:>7} {:>8}",
            "", "right", "wrong entity", "wrong value", "wrong tool", "no call", "needless"
        )?;
        for (language, counts) in &self.languages {
            counts.print(language, out)?;
        }
        self.counts.print("all", out)?;
        writeln!(
            out,
            "on average {:.0} tokens of a prompt, {:.0} of them read anew, {:.0} of an answer, {:.2} s",
            self.prompt_tokens, self.read_tokens, self.answer_tokens, self.seconds
        )
    }
}
