//! A day at home (`tests/fixtures/make_day_at_home.py` says how it was made), answered token by token and with guesses: how many tokens of
//! each kind of answer a pass gives, and which source gave them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and shows what it counted"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::model::grammar::{Compiler, Constraint, Next};
use crate::model::tokenizer::Tokenizer;
use crate::pipeline::commands::CommandGrammar;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Tokens of answers, what ended them not counted, and the passes that they took.
#[derive(Clone, Copy, Default)]
struct Count {
    tokens: usize,
    passes: usize,
}

struct Home {
    tokenizer: Arc<Tokenizer>,
    guesser: Guesser,
    how: Guessing,
    compiler: Compiler,
    commands: CommandGrammar,
}

impl Home {
    fn new(how: Guessing) -> Home {
        let tokenizer = Arc::new(Tokenizer::load(&top().join("models/demo")).unwrap());
        let config = Config::load(&top().join("config/examples/demo-commands.toml")).unwrap();
        let limits = &config.limits.grammar;
        let commands =
            CommandGrammar::new(&config.command, None, &config.commands, limits).unwrap();
        let end = tokenizer.control().end_of_turn;
        let compiler = Compiler::new(&tokenizer, tokenizer.vocab_size(), &[end]).unwrap();
        let mut guesser = Guesser::new(GuessOptions::default(), &EarlierAnswers::default());
        let tokens = |phrase: &str| tokenizer.encode_text(&format!(" {phrase}"));
        guesser.set_phrases(commands.phrases().map(tokens).collect());
        // As where memory bounds: each further token costs a little of a pass.
        for tokens in 1..=MAX_PASS {
            let took = Duration::from_micros(100_000 + 4_000 * (tokens as u64 - 1));
            guesser.passed(tokens, took);
        }
        Home {
            tokenizer,
            guesser,
            how,
            compiler,
            commands,
        }
    }

    /// The tokens of an answer, each with whether it had to be.
    fn tokens(&mut self, answer: &str, is_bound: bool) -> Vec<(u32, bool)> {
        if !is_bound {
            let free = self.tokenizer.encode_text(answer);
            let end = self.tokenizer.control().end_of_turn;
            return free
                .into_iter()
                .chain([end])
                .map(|id| (id, false))
                .collect();
        }
        let grammar = self.commands.generation().grammar.unwrap();
        let mut constraint: Constraint = self.compiler.compile(&grammar).unwrap();
        let (mut tokens, mut said) = (Vec::new(), Vec::new());
        while !constraint.is_complete() {
            let (ids, had_to) = match constraint.allowed().unwrap() {
                Next::Forced(run) => (run, true),
                Next::Among(allowed) => {
                    let rest = &answer[said.len()..];
                    let id = self.tokenizer.encode_text(rest)[0];
                    assert!(allowed.contains(id), "{rest:?}");
                    (vec![id], false)
                }
            };
            for id in ids {
                self.tokenizer.append_token_bytes(id, &mut said);
                constraint.accept(&[id]).unwrap();
                tokens.push((id, had_to));
            }
        }
        assert_eq!(String::from_utf8(said).unwrap(), answer);
        tokens
    }

    /// Goes through an answer as the engine does.
    fn answer(&mut self, kind: &str, source: &str, asked: &str, answer: &str) -> Count {
        let is_bound = kind == "command";
        let tokens = self.tokens(answer, is_bound);
        let prompt = self.tokenizer.encode_text(asked);
        let topic = Topic {
            origin: (!source.is_empty()).then(|| source.into()),
            prompt: prompt
                .iter()
                .fold(7, |hash, &id| hash * 31 % 1_000_003 + u64::from(id)),
            is_bound,
        };
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        let (mut open, mut at) = (Open::default(), 0);
        let mut count = Count::default();
        while at + 1 < ids.len() {
            let forced = tokens[at + 1..].iter().take_while(|(_, had_to)| *had_to);
            let certain = 1 + forced.count().min(MAX_PASS - 1);
            let known = at + certain;
            let most = self.guesser.most(certain) - certain;
            let mut stand = Stand {
                topic: &topic,
                prompt: &prompt,
                written: &ids[..known],
                model: None,
            };
            let mut guess = Vec::new();
            if known < ids.len() && most > 0 {
                guess = self
                    .guesser
                    .guess(&mut stand, self.how, [certain, 0], most, &mut open);
            }
            count.passes += 1;
            let right = guess.iter().zip(&ids[known..]).take_while(|(a, b)| a == b);
            // What is chosen behind the last right one comes with the pass.
            let next = (known + right.count()).min(ids.len() - 1);
            for &id in &ids[at + 1..=next] {
                self.guesser.came(&mut open, id);
            }
            at = next;
        }
        self.guesser.end(&mut open);
        let said = ids.len() - usize::from(!is_bound);
        count.tokens = said;
        self.guesser.learn(&topic, &ids[..said]);
        count
    }
}

fn day(how: Guessing) -> BTreeMap<String, Count> {
    let script = std::fs::read_to_string(top().join("tests/fixtures/day-at-home.tsv")).unwrap();
    let mut home = Home::new(how);
    let mut counts = BTreeMap::<String, Count>::new();
    for row in script.lines().skip(1) {
        let [kind, source, asked, answer] = *row.split('\t').collect::<Vec<_>>() else {
            panic!("{row}");
        };
        let Count { tokens, passes } = home.answer(kind, source, asked, answer);
        for of in [kind, "all"] {
            let count = counts.entry(of.to_owned()).or_default();
            count.tokens += tokens;
            count.passes += passes;
        }
    }
    println!("{how:?}");
    for (kind, count) in &counts {
        println!(
            "  {kind}: {} tokens in {} passes, {:.2} a pass",
            count.tokens,
            count.passes,
            count.tokens as f64 / count.passes as f64
        );
    }
    for counts in home.guesser.counts() {
        println!("  {counts:?}");
    }
    counts
}

#[test]
fn homes_repeat_themselves() {
    let per_pass = |counts: &BTreeMap<String, Count>, kind: &str| {
        let count = counts[kind];
        count.tokens as f64 / count.passes as f64
    };
    let plain = day(Guessing::Never);
    let guessed = day(Guessing::WherePays);
    day(Guessing::Always);
    for kind in ["transcript", "caption", "tool", "question"] {
        assert_eq!(per_pass(&plain, kind), 1.0);
    }
    for (kind, least) in [
        ("caption", 2.5),
        ("transcript", DAY_TRANSCRIPTS),
        ("command", DAY_COMMANDS),
        ("tool", 2.5),
    ] {
        let got = per_pass(&guessed, kind);
        assert!(got >= least, "{kind}: {got:.2} tokens a pass");
    }
}
