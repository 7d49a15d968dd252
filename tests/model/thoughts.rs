//! Thoughts of an answer as its tokens come: beside the text, never in it.

use std::sync::{Arc, LazyLock};

use crate::common::fixtures_gemma4;
use gemmad::model::stop::{StopReason, StopRules, TextStream};
use gemmad::model::tokenizer::Tokenizer;
use proptest::prelude::*;

static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::load(&fixtures_gemma4()).unwrap()));

/// Text, thoughts, and why it ended.
fn streamed(
    ids: &[u32],
    strings: &[&str],
    max_tokens: usize,
) -> (String, Option<String>, Option<StopReason>) {
    let rules = StopRules {
        tokens: vec![TOKENIZER.control().end_of_turn],
        strings: strings.iter().map(|&text| text.to_owned()).collect(),
        max_tokens,
    };
    let mut stream = TextStream::new(Arc::clone(&TOKENIZER), Arc::new(rules));
    let (mut text, mut given) = (String::new(), String::new());
    for &id in ids {
        let (piece, stopped) = stream.push(id);
        text.push_str(piece);
        given.extend(stream.new_thoughts());
        if stopped.is_some() {
            break;
        }
    }
    text.push_str(stream.finish());
    let thoughts = stream.thoughts();
    // As they came, but for half a character at the end.
    let all = thoughts.clone().unwrap_or_default();
    assert_eq!(all.strip_suffix('\u{fffd}').unwrap_or(&all), given);
    (text, thoughts, stream.stopped())
}

fn of(answer: &str) -> (String, Option<String>, Option<StopReason>) {
    streamed(&TOKENIZER.encode(answer), &[], 1000)
}

fn thought(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_thought_stands_beside_the_text() {
    for (answer, text, thoughts) in [
        ("Because.", "Because.", None),
        (
            "<|channel>thought\nHm, so.\n<channel|>Because.",
            "Because.",
            thought("Hm, so."),
        ),
        ("<|channel>thought\n\n<channel|>Because.", "Because.", None),
        (
            "a<|channel>thought\nb\n<channel|>c<|channel>d<channel|>e",
            "ace",
            thought("b\nd"),
        ),
        // Cut in the middle of one, begun twice, ended without a beginning.
        ("a<|channel>thought\nb c", "a", thought("b c")),
        (
            "<|channel>thought\na<|channel>thought\nb<channel|>c",
            "c",
            thought("a\nb"),
        ),
        ("a<|channel>thoug", "a", None),
        ("a<channel|>b", "ab", None),
    ] {
        assert_eq!(of(answer), (text.to_owned(), thoughts, None), "{answer:?}");
    }
}

#[test]
fn what_ends_an_answer_ends_its_thoughts_too() {
    let (text, thoughts, stopped) = of("<|channel>thought\nHm<turn|>Because");
    assert_eq!((text.as_str(), thoughts), ("", thought("Hm")));
    assert_eq!(stopped, Some(StopReason::Token));
    // Tokens of thoughts count, texts that end an answer do not look at them.
    let ids = TOKENIZER.encode("<|channel>thought\nab stop\n<channel|>x stop y");
    let (text, thoughts, stopped) = streamed(&ids, &["stop"], 1000);
    assert_eq!((text.as_str(), thoughts), ("x ", thought("ab stop")));
    assert_eq!(stopped, Some(StopReason::String));
    let marks = TOKENIZER.control().thoughts.unwrap();
    let before = ids.iter().position(|&id| id == marks.end).unwrap();
    let (text, thoughts, stopped) = streamed(&ids, &[], before);
    assert_eq!((text.as_str(), thoughts), ("", thought("ab stop")));
    assert_eq!(stopped, Some(StopReason::MaxTokens));
}

proptest! {
    #[test]
    fn no_letter_of_a_thought_is_in_the_text(pieces in prop::collection::vec(("[a-fé ]{0,8}", "[x-z日 ]{0,8}"), 0..5)) {
        let mut ids = Vec::new();
        let marks = TOKENIZER.control().thoughts.unwrap();
        for (said, thought) in &pieces {
            ids.extend(TOKENIZER.encode_text(said));
            ids.push(marks.start);
            ids.extend(TOKENIZER.encode_text(&format!("thought\n{thought}\n")));
            ids.push(marks.end);
        }
        let (text, thoughts, _) = streamed(&ids, &[], 1000);
        let said: String = pieces.iter().map(|(said, _)| said.as_str()).collect();
        prop_assert_eq!(text, said);
        let thought: Vec<&str> = pieces.iter().map(|(_, thought)| thought.trim()).filter(|text| !text.is_empty()).collect();
        prop_assert_eq!(thoughts.unwrap_or_default(), thought.join("\n"));
    }
}
