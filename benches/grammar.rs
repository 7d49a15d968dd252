//! What constraining answers costs with 262,144 tokens: the trie of the vocabulary, compiling, and the allowed tokens of a step.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail loudly"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gemmad::config::Config;
use gemmad::model::grammar::{Compiler, Grammar, GrammarLimits, Next};
use gemmad::model::tokenizer::Tokenizer;
use gemmad::pipeline::commands::CommandGrammar;
use serde_json::json;

fn main() {
    let json = gemmad::pack::SyntheticSize::E4b.tokenizer_json();
    let tokenizer = Arc::new(Tokenizer::parse(&json, Path::new("tokenizer.json")).unwrap());
    drop(json);
    let end = tokenizer.control().end_of_turn;
    let before_mb = status_mb("VmRSS");
    let start = Instant::now();
    let compiler = Compiler::new(&tokenizer, tokenizer.vocab_size(), &[end]).unwrap();
    println!(
        "trie of {} tokens: {:.0} ms, resident {:.1} MB",
        tokenizer.vocab_size(),
        milliseconds(start),
        status_mb("VmRSS") - before_mb
    );
    let config = Config::load(Path::new("config/examples/demo-commands.toml")).unwrap();
    let commands = CommandGrammar::new(
        &config.command,
        None,
        &config.commands,
        &config.limits.grammar,
    )
    .unwrap();
    let limits = GrammarLimits::default();
    let object = json!({ "type": "object", "properties": { "note": { "type": "string" } },
        "required": ["note"], "additionalProperties": false });
    let choices: Vec<String> = (0..1000).map(|n| format!("{n} choices")).collect();
    for (what, grammar, answer) in [
        (
            "18 commands",
            commands.generation().grammar.unwrap(),
            r#"{"action":"set","device":"light","area":"garden","value":60}"#,
        ),
        (
            "JSON with a text",
            Grammar::json_schema(&object, &limits).unwrap(),
            r#"{"note": "the lazy dog jumps over nothing at all"}"#,
        ),
        (
            "1000 choices",
            Grammar::choices(&choices, &limits).unwrap(),
            "731 choices",
        ),
    ] {
        let start = Instant::now();
        let mut constraint = compiler.compile(&grammar).unwrap();
        let compile_ms = milliseconds(start);
        let mut steps = Vec::new();
        let mut most = 0;
        for id in tokenizer.encode_text(answer) {
            let start = Instant::now();
            if let Next::Among(allowed) = constraint.allowed().unwrap() {
                most = most.max(allowed.len());
            }
            steps.push(milliseconds(start));
            constraint.accept(&[id]).unwrap();
        }
        steps.sort_by(f64::total_cmp);
        println!(
            "{what}: compiled in {compile_ms:.1} ms; {} steps, median {:.2} ms, longest {:.2} ms, at most {most} tokens allowed",
            steps.len(),
            steps[steps.len() / 2],
            steps[steps.len() - 1]
        );
    }
    println!(
        "in the end: resident {:.1} MB",
        status_mb("VmRSS") - before_mb
    );
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A figure of `/proc/self/status` in MB.
fn status_mb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024.0 / 1e6
}
