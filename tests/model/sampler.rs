//! The sampler against a direct implementation, worked examples, and the stream of text behind it.

use std::sync::{Arc, LazyLock};

use crate::common::fixtures;
use gemmad::model::sampler::{Sampler, Sampling};
use gemmad::model::stop::{StopReason, StopRules, TextStream};
use gemmad::model::tokenizer::Tokenizer;
use proptest::prelude::*;

static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::load(&fixtures()).unwrap()));

/// Probability of every id as the parameters say it, by sorting everything: the definition, step by step.
fn probabilities(sampling: &Sampling, logits: &[f32], limit: usize, history: &[u32]) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (id, score) in scores.iter_mut().enumerate() {
        if history.contains(&(id as u32)) {
            // The division is one of f32 in the model's own logits.
            let (logit, penalty) = (logits[id], sampling.repetition_penalty);
            *score = f64::from(if logit > 0.0 {
                logit / penalty
            } else {
                logit * penalty
            });
        }
    }
    let mut order: Vec<usize> = (0..limit.min(logits.len()))
        .filter(|&id| scores[id].is_finite())
        .collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap().then(a.cmp(&b)));
    let mut out = vec![0.0; logits.len()];
    if sampling.temperature == 0.0 {
        out[order[0]] = 1.0;
        return out;
    }
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let softmax = |order: &[usize]| {
        let top = scores[order[0]];
        let powers: Vec<f64> = order
            .iter()
            .map(|&id| ((scores[id] - top) / f64::from(sampling.temperature)).exp())
            .collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect::<Vec<f64>>()
    };
    if sampling.top_p < 1.0 {
        let probabilities = softmax(&order);
        let mut sum = 0.0;
        let last = probabilities.iter().position(|probability| {
            sum += probability;
            sum >= f64::from(sampling.top_p)
        });
        order.truncate(last.map_or(order.len(), |last| last + 1));
    }
    let all = softmax(&order);
    order.retain({
        let mut at = 0;
        move |_| {
            at += 1;
            all[at - 1] >= f64::from(sampling.min_p) * all[0]
        }
    });
    for (&id, probability) in order.iter().zip(softmax(&order)) {
        out[id] = probability;
    }
    out
}

/// How often each id is drawn.
fn frequencies(
    sampling: Sampling,
    logits: &[f32],
    limit: usize,
    history: &[u32],
    draws: u32,
) -> Vec<f64> {
    let mut counts = vec![0_u32; logits.len()];
    for seed in 0..draws {
        let mut sampler = Sampler::new(sampling, limit, u64::from(seed)).unwrap();
        sampler.accept(history);
        counts[sampler.sample(&mut logits.to_vec()).unwrap() as usize] += 1;
    }
    counts
        .into_iter()
        .map(|count| f64::from(count) / f64::from(draws))
        .collect()
}

fn samplings() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(0.0_f32), 0.2_f32..3.0];
    let top_k = prop_oneof![Just(0_usize), 1_usize..12, Just(1000)];
    let top_p = prop_oneof![Just(1.0_f32), 0.0_f32..1.0];
    let min_p = prop_oneof![Just(0.0_f32), 0.0_f32..0.9];
    let repetition_penalty = prop_oneof![Just(1.0_f32), 0.5_f32..2.0];
    (temperature, top_k, top_p, min_p, repetition_penalty).prop_map(
        |(temperature, top_k, top_p, min_p, repetition_penalty)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
        },
    )
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    // Some masked, some equal.
    let logit = prop_oneof![6 => -8.0_f32..8.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::NAN), 2 => Just(1.0_f32)];
    prop::collection::vec(logit, 3..40).prop_map(|mut logits| {
        logits[0] = 0.5;
        logits
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// 1000 draws each: a true share differs by more than 0.1 from its frequency with a probability of 4e-9 (Hoeffding).
    #[test]
    fn frequencies_are_those_of_the_definition(
        sampling in samplings(), logits in logits(), cut in 0_usize..3, history in prop::collection::vec(0_u32..40, 0..6),
    ) {
        let limit = logits.len() - cut;
        let expected = probabilities(&sampling, &logits, limit, &history);
        let found = frequencies(sampling, &logits, limit, &history, 1000);
        for (id, (expected, found)) in expected.iter().zip(&found).enumerate() {
            prop_assert!((expected - found).abs() < 0.1, "id {id}: {expected} and {found}");
            prop_assert!(*expected > 1e-12 || *found == 0.0, "id {id} is excluded");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The others may have any lower logit.
    #[test]
    fn as_many_of_the_best_decide_as_is_said(
        sampling in samplings(), logits in logits(), seed in 0_u64..100, history in prop::collection::vec(0_u32..40, 0..6),
    ) {
        let mut sampler = Sampler::new(sampling, logits.len(), seed).unwrap();
        sampler.accept(&history);
        if let Some(count) = sampler.deciding() {
            let mut order: Vec<usize> = (0..logits.len()).filter(|&id| logits[id].is_finite()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let mut lowered = logits.clone();
            for &id in order.iter().skip(count) {
                lowered[id] -= 0.7;
            }
            let chosen = sampler.sample(&mut lowered).unwrap();
            let mut sampler = Sampler::new(sampling, logits.len(), seed).unwrap();
            sampler.accept(&history);
            prop_assert_eq!(chosen, sampler.sample(&mut logits.clone()).unwrap());
        }
    }
}

/// The parts that top-p sorts: more candidates than one part holds.
#[test]
fn many_candidates_are_the_same_candidates() {
    let logits: Vec<f32> = (0..5000_u32)
        .map(|id| (id.wrapping_mul(2_654_435_761) >> 8) as f32 / 4e6)
        .collect();
    for (top_k, top_p) in [(0, 0.3), (0, 0.9), (0, 0.9999), (3000, 0.9), (300, 1.0)] {
        let sampling = Sampling {
            temperature: 1.0,
            top_k,
            top_p,
            min_p: 0.0,
            repetition_penalty: 1.0,
        };
        let expected = probabilities(&sampling, &logits, 5000, &[]);
        let mut sampler = Sampler::new(sampling, 5000, 3).unwrap();
        let mut mean = 0.0;
        for _ in 0..500 {
            let id = sampler.sample(&mut logits.clone()).unwrap() as usize;
            assert!(expected[id] > 0.0, "{id} is excluded by {sampling:?}");
            mean += f64::from(logits[id]) / 500.0;
        }
        // The spread of the logits is at most 1, so the mean of 500 lies within 5 sigma = 0.22.
        let expected: f64 = expected
            .iter()
            .zip(&logits)
            .map(|(p, &logit)| p * f64::from(logit))
            .sum();
        assert!(
            (mean - expected).abs() < 0.22,
            "{mean} and {expected} with {sampling:?}"
        );
    }
}

#[test]
fn worked_examples() {
    // softmax of 2, 1, 0, -1 is 0.6439, 0.2369, 0.0871, 0.0321.
    let logits = [2.0, 1.0, 0.0, -1.0];
    let allowed = |sampling: Sampling| -> Vec<bool> {
        frequencies(sampling, &logits, 4, &[], 2000)
            .into_iter()
            .map(|frequency| frequency > 0.0)
            .collect()
    };
    let plain = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
    assert_eq!(allowed(plain), [true; 4]);
    assert_eq!(
        allowed(Sampling {
            top_p: 0.8,
            ..plain
        }),
        [true, true, false, false]
    );
    assert_eq!(
        allowed(Sampling {
            top_p: 0.6,
            ..plain
        }),
        [true, false, false, false]
    );
    assert_eq!(
        allowed(Sampling {
            top_p: 0.0,
            ..plain
        }),
        [true, false, false, false]
    );
    assert_eq!(
        allowed(Sampling {
            min_p: 0.1,
            ..plain
        }),
        [true, true, true, false]
    );
    assert_eq!(
        allowed(Sampling { top_k: 2, ..plain }),
        [true, true, false, false]
    );
    assert_eq!(
        allowed(Sampling { top_k: 1, ..plain }),
        [true, false, false, false]
    );
    // A penalty of 4 puts the first below the second: 0.5 against 1.
    let mut sampler = Sampler::new(
        Sampling {
            repetition_penalty: 4.0,
            ..Sampling::GREEDY
        },
        4,
        0,
    )
    .unwrap();
    let chosen = [(); 4].map(|()| sampler.sample(&mut logits.to_vec()).unwrap());
    assert_eq!(chosen, [0, 1, 0, 0]);
    // Of equals the lowest id, and never an id beyond the limit.
    let mut sampler = Sampler::new(Sampling::GREEDY, 3, 0).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 4.0, 4.0, 9.0]), Ok(1));
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let logits: Vec<f32> = (0..100).map(|id| (id * 37 % 101) as f32 / 16.0).collect();
    let draw = |seed| {
        let mut sampler = Sampler::new(Sampling::PUBLISHED, 100, seed).unwrap();
        (0..12)
            .map(|_| sampler.sample(&mut logits.clone()).unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    // From a script in another language: the same on every platform, and for the users of the next version.
    assert_eq!(draw(42), [65, 90, 49, 8, 30, 2, 19, 54, 8, 16, 19, 98]);
}

#[test]
fn bad_numbers_are_refused() {
    let refused = |sampling| Sampler::new(sampling, 4, 0).unwrap_err().to_string();
    let base = Sampling::PUBLISHED;
    assert!(
        refused(Sampling {
            temperature: -1.0,
            ..base
        })
        .contains("temperature: expected 0")
    );
    assert!(
        refused(Sampling {
            temperature: f32::NAN,
            ..base
        })
        .contains("found NaN")
    );
    assert!(refused(Sampling { top_p: 1.1, ..base }).contains("top_p"));
    assert!(
        refused(Sampling {
            min_p: -0.1,
            ..base
        })
        .contains("min_p")
    );
    assert!(
        refused(Sampling {
            repetition_penalty: 0.0,
            ..base
        })
        .contains("repetition_penalty")
    );
    for sampling in [base, Sampling::GREEDY, Sampling { top_k: 0, ..base }] {
        let mut sampler = Sampler::new(sampling, 3, 0).unwrap();
        let error = sampler
            .sample(&mut [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 1.0])
            .unwrap_err();
        assert!(
            error.to_string().starts_with("none of the 3 logits"),
            "{error}"
        );
        assert!(sampler.sample(&mut []).is_err());
        assert_eq!(
            sampler.sample(&mut [f32::NAN, 1.0, f32::NEG_INFINITY]),
            Ok(1)
        );
    }
}

fn rules(strings: &[&str]) -> StopRules {
    StopRules {
        tokens: vec![106],
        strings: strings.iter().map(|&s| s.to_owned()).collect(),
        max_tokens: 1000,
    }
}

/// One token per byte, so that every character is split.
fn byte_ids(text: &str) -> Vec<u32> {
    text.bytes()
        .map(|byte| TOKENIZER.id_of(&format!("<0x{byte:02X}>")).unwrap())
        .collect()
}

/// Everything printed, and why it ended.
fn stream(ids: &[u32], rules: &StopRules) -> (Vec<String>, Option<StopReason>) {
    let mut stream = TextStream::new(Arc::clone(&TOKENIZER), Arc::new(rules.clone()));
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).0.to_owned()).collect();
    pieces.push(stream.finish().to_owned());
    (pieces, stream.stopped())
}

#[test]
fn half_characters_wait_for_the_other_half() {
    let (pieces, stopped) = stream(&byte_ids("né日😀"), &rules(&[]));
    assert_eq!(pieces, ["n", "", "é", "", "", "日", "", "", "", "😀", ""]);
    assert_eq!(stopped, None);
    // Broken bytes do not wait for ever.
    let ids: Vec<u32> = [0xe3, 0x81, b'x', 0xff, 0xc3]
        .map(|byte: u8| TOKENIZER.id_of(&format!("<0x{byte:02X}>")).unwrap())
        .to_vec();
    assert_eq!(
        stream(&ids, &rules(&[])).0,
        ["", "", "\u{fffd}\u{fffd}x", "\u{fffd}", "", "\u{fffd}"]
    );
}

#[test]
fn what_may_be_a_stop_string_waits() {
    let (pieces, stopped) = stream(&byte_ids("a##b###c"), &rules(&["###"]));
    assert_eq!(pieces, ["a", "", "", "##b", "", "", "", "", ""]);
    assert_eq!(stopped, Some(StopReason::String));
    let (pieces, stopped) = stream(&byte_ids("say ¡al"), &rules(&["¡alto!"]));
    assert_eq!(pieces.concat(), "say ¡al");
    assert_eq!(stopped, None);
    // The one that is complete first, wherever it began; an empty one stops nothing.
    assert_eq!(
        stream(&byte_ids("xabc"), &rules(&["abc", "b", ""]))
            .0
            .concat(),
        "xa"
    );
    assert_eq!(
        stream(&TOKENIZER.encode_text("xabc"), &rules(&["abc", "b", ""]))
            .0
            .concat(),
        "xa"
    );
}

#[test]
fn tokens_and_their_number_end_an_answer() {
    let eos = TOKENIZER.control().end_of_turn;
    let rules = StopRules {
        tokens: vec![eos],
        strings: vec!["abc".into()],
        max_tokens: 3,
    };
    let mut ids = byte_ids("ab");
    ids.extend([eos, 7]);
    let (pieces, stopped) = stream(&ids, &rules);
    assert_eq!(
        (pieces.concat().as_str(), stopped),
        ("ab", Some(StopReason::Token))
    );
    let (pieces, stopped) = stream(&byte_ids("xyabab"), &rules);
    assert_eq!(
        (pieces.concat().as_str(), stopped),
        ("xya", Some(StopReason::MaxTokens))
    );
    let none = StopRules {
        max_tokens: 0,
        ..rules
    };
    assert_eq!(
        TextStream::new(Arc::clone(&TOKENIZER), Arc::new(none.clone())).stopped(),
        Some(StopReason::MaxTokens)
    );
    // Control tokens other than stop tokens are silent.
    let bos = TOKENIZER.control().bos;
    assert_eq!(stream(&[bos, byte_ids("a")[0]], &none).0.concat(), "");
}

proptest! {
    #[test]
    fn a_stream_is_the_text_up_to_the_stop_string(
        text in "[abé日 \n]{0,30}|\\PC{0,20}", strings in prop::collection::vec("[abé日 ]{1,4}", 0..3), bytewise in any::<bool>(),
    ) {
        let text = text.replace('\u{2581}', " ");
        let ids = if bytewise { byte_ids(&text) } else { TOKENIZER.encode_text(&text) };
        let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
        let (pieces, stopped) = stream(&ids, &rules(&strings));
        let replaced = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
        prop_assert!(replaced(&text) || !replaced(&pieces.concat()));
        // The first stop string to be complete cuts the text.
        let first = (0..=text.len())
            .filter(|&end| text.is_char_boundary(end))
            .find_map(|end| strings.iter().filter_map(|s| text[..end].strip_suffix(s)).map(str::len).min());
        prop_assert_eq!(pieces.concat(), &text[..first.unwrap_or(text.len())]);
        prop_assert_eq!(stopped, first.map(|_| StopReason::String));
    }

    #[test]
    fn a_stream_of_any_ids_is_their_text(ids in prop::collection::vec(0_u32..2048, 0..40)) {
        let text: Vec<u32> = ids.iter().copied().filter(|&id| !TOKENIZER.is_special(id)).collect();
        let rules = StopRules { tokens: Vec::new(), strings: Vec::new(), max_tokens: 100 };
        prop_assert_eq!(stream(&ids, &rules).0.concat(), TOKENIZER.decode(&text).unwrap());
    }
}
