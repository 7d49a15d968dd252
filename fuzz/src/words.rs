//! Grammars of answers, and gemmad.toml.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gemmad::config::Config;
use gemmad::model::grammar::{Compiler, Constraint, Grammar, GrammarLimits, Next};
use gemmad::model::tokenizer::Tokenizer;

use super::checkpoints::demo;

/// Tokens of an answer that is written.
const LONGEST_ANSWER: usize = 64;

/// An error is read by a person.
const LONGEST_ERROR_BYTES: usize = 16 << 10;

fn compiler() -> &'static (Compiler, Arc<Tokenizer>) {
    static COMPILER: OnceLock<(Compiler, Arc<Tokenizer>)> = OnceLock::new();
    COMPILER.get_or_init(|| {
        let tokenizer = Arc::new(Tokenizer::load(&demo()).unwrap());
        let stop = tokenizer.control().end_of_turn;
        let compiler = Compiler::new(&tokenizer, tokenizer.vocab_size(), &[stop]).unwrap();
        (compiler, tokenizer)
    })
}

/// Writes an answer, the choices of which `choose` makes; what was written where the answer is complete.
fn answer(constraint: &mut Constraint, mut choose: u64) -> Option<Vec<u8>> {
    let (_, tokenizer) = compiler();
    let end = tokenizer.control().end_of_turn;
    let mut written = Vec::new();
    for _ in 0..LONGEST_ANSWER {
        if constraint.is_complete() {
            return Some(written);
        }
        // To give up, and to say so, is allowed.
        let ids = match constraint.allowed().ok()? {
            Next::Forced(ids) => ids,
            Next::Among(set) => {
                assert!(
                    !set.is_empty(),
                    "nothing may follow, and it is not complete"
                );
                if set.contains(end) {
                    return Some(written);
                }
                choose = choose
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                vec![set.iter().nth((choose >> 33) as usize % set.len())?]
            }
        };
        for &id in &ids {
            assert!(!tokenizer.is_special(id), "a control token in an answer");
            tokenizer.append_token_bytes(id, &mut written);
        }
        constraint.accept(&ids).ok()?;
    }
    None
}

fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum, &byte| {
        u64::from(byte).wrapping_add(sum.wrapping_mul(1_099_511_628_211))
    })
}

/// A JSON schema, and an answer that fits it, which is JSON.
pub(crate) fn schema(bytes: &[u8]) {
    let Ok(schema) = serde_json::from_slice(bytes) else {
        return;
    };
    let Ok(grammar) = Grammar::json_schema(&schema, &GrammarLimits::default()) else {
        return;
    };
    match compiler().0.compile(&grammar) {
        Ok(mut constraint) => {
            if let Some(written) = answer(&mut constraint, seed(bytes)) {
                // Its numbers may be beyond what 64 bits hold.
                serde_json::from_slice::<&serde_json::value::RawValue>(&written).unwrap();
            }
        }
        Err(error) => assert!(error.to_string().len() < LONGEST_ERROR_BYTES),
    }
}

/// A regular expression; or, where there are several lines, choices.
pub(crate) fn regex(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let limits = GrammarLimits::default();
    let choices: Vec<String> = text.lines().map(str::to_owned).collect();
    let grammar = match choices.len() {
        0 | 1 => Grammar::regex(text, &limits),
        _ => Grammar::choices(&choices, &limits),
    };
    let Ok(grammar) = grammar else {
        return;
    };
    match compiler().0.compile(&grammar) {
        Ok(mut constraint) => {
            if let Some(written) = answer(&mut constraint, seed(bytes))
                && choices.len() > 1
            {
                let written = String::from_utf8(written).unwrap();
                assert!(choices.contains(&written), "{written:?} is no choice");
            }
        }
        Err(error) => assert!(error.to_string().len() < LONGEST_ERROR_BYTES),
    }
}

/// gemmad.toml.
pub(crate) fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = Config::parse(text, Path::new("gemmad.toml")) {
        let told = error.to_string();
        assert!(told.starts_with("gemmad.toml: "), "{told}");
        // A key may be as long as the file.
        assert!(told.len() < text.len() + LONGEST_ERROR_BYTES);
    }
}
