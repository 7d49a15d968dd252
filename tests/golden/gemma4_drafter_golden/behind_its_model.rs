//! The drafter behind the model that it drafts for, on that one's own keys, values and states.

use super::{STATES, golden, layers};
use crate::common::{
    Golden, assert_close, fixtures_gemma4, fixtures_gemma4_drafter, pack_with_drafter,
};
use crate::gemma4_golden::text_runs::{PROMPTS, Text, UNCUT, argmax, ids};
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::no_probe;
use gemmad::model::drafter::Drafter;
use gemmad::model::weights::Checkpoint;
use gemmad::pack::Recipe;
use std::path::Path;

/// A model and its drafter.
struct Both {
    text: Text,
    drafter: Box<dyn Drafter>,
}

impl Both {
    fn open(pack: &Path) -> Both {
        let mut text = Text::open(pack);
        text.shortcuts = UNCUT;
        let checkpoint = Checkpoint::open(pack).unwrap();
        let drafter = text.architecture.drafter(&checkpoint).unwrap();
        Both {
            drafter: drafter.unwrap(),
            text,
        }
    }

    /// Guesses behind `newest`, which the model chose by the state of the last token of its last chunk.
    fn guess(&mut self, cache: &KvCache, newest: i32, count: usize) -> Vec<i32> {
        let text = &mut self.text;
        let last = text.decoder.hidden(text.decoder.ready() - 1);
        self.drafter.begin(cache, last);
        let mut embedding = vec![0.0; last.len()];
        let mut guesses = vec![newest];
        for at in 0..count {
            let newest = guesses[at] as u32;
            text.decoder
                .embedding(&text.pool, newest, &mut embedding)
                .unwrap();
            let guess = self.drafter.next(&text.pool, cache, &embedding);
            guesses.push(guess as i32);
        }
        guesses.split_off(1)
    }
}

#[test]
fn guesses_behind_a_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let pack = pack_with_drafter(&fixtures_gemma4_drafter(), Recipe::Float, dir.path()).unwrap();
    let (mut both, drafts) = (Both::open(&pack), golden());
    let texts = Golden::of(&fixtures_gemma4(), "text");
    for prompt in PROMPTS {
        let ids = ids(&texts, &format!("{prompt}.input_ids"));
        for chunk in [7, ids.len()] {
            let mut cache = both.text.cache(KvType::F32, chunk);
            both.text.extend(&mut cache, &ids, &mut no_probe);
            let decoder = &both.text.decoder;
            let (hidden, _) = drafts.f32(&format!("{prompt}.target_hidden"));
            let last = decoder.hidden(decoder.ready() - 1);
            assert_close(prompt, last, &hidden, 10.0 * STATES);
            let newest = argmax(&both.text.last_logits());
            assert_eq!(drafts.i32(&format!("{prompt}.first_token")).0, [newest]);
            let (want, _) = drafts.i32(&format!("{prompt}.strict.tokens"));
            let got = both.guess(&cache, newest, want.len());
            assert_eq!(got, want, "{prompt}: guesses");
        }
    }
}

/// A text that was drafted and verified, four guesses a round, is the one that the model writes alone; keys and values of rejected
/// guesses are never seen. Far behind the window.
#[test]
fn a_drafted_text_is_the_plain_one() {
    const GUESSES: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let pack = pack_with_drafter(&fixtures_gemma4_drafter(), Recipe::Float, dir.path()).unwrap();
    let mut both = Both::open(&pack);
    let texts = Golden::of(&fixtures_gemma4(), "text");
    let window = layers().iter().filter_map(|layer| layer.window).max();
    let mut right = 0;
    for prompt in PROMPTS {
        let ids = ids(&texts, &format!("{prompt}.input_ids"));
        let (want, _) = texts.i32(&format!("{prompt}.greedy32"));
        let mut cache = both.text.cache(KvType::F32, ids.len().max(GUESSES + 1));
        both.text.extend(&mut cache, &ids, &mut no_probe);
        let mut text = vec![argmax(&both.text.last_logits())];
        let (mut rounds, mut accepted) = (0, 0);
        while text.len() < want.len() {
            let newest = text[text.len() - 1];
            let mut round = vec![newest];
            round.extend(both.guess(&cache, newest, GUESSES));
            let before = cache.snapshot();
            let tokens: Vec<u32> = round.iter().map(|&id| id as u32).collect();
            both.text.extend(&mut cache, &tokens, &mut no_probe);
            let chosen: Vec<i32> = (0..round.len())
                .map(|at| argmax(&both.text.logits(at)))
                .collect();
            let agreeing = round[1..].iter().zip(&chosen);
            let agreeing = agreeing.take_while(|(guess, chosen)| guess == chosen);
            let agreeing = agreeing.count();
            text.extend(&chosen[..=agreeing]);
            if agreeing < GUESSES {
                cache.restore(&before);
                both.text
                    .extend(&mut cache, &tokens[..=agreeing], &mut no_probe);
            }
            (rounds, accepted) = (rounds + 1, accepted + agreeing);
        }
        println!(
            "{prompt}: {accepted} of {} guesses in {rounds} rounds",
            GUESSES * rounds
        );
        assert_eq!(text[..want.len()], want, "{prompt}");
        assert_eq!(cache.position(), ids.len() + text.len() - 1);
        assert!(prompt != "long" || Some(ids.len()) > window);
        right += accepted;
    }
    assert!(right > 0, "no guess was right");
}
