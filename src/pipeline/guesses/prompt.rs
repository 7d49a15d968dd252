//! What was copied once goes on being copied: what stood behind the last tokens where they came before, in the prompt or in the answer.
//! For JSON, calls of tools, translations and quotations.

use super::{Source, Stand};

/// Tokens that are compared at most.
const LONGEST: usize = 8;

/// Tokens that must agree at least: one alone says little.
const LEAST: usize = 2;

/// Looks for the longest end of the text that came before, the latest of equals.
pub(super) struct PromptLookup;

impl Source for PromptLookup {
    fn name(&self) -> &'static str {
        "prompt"
    }

    fn guess(&mut self, stand: &mut Stand<'_>, most: usize, ids: &mut Vec<u32>) -> usize {
        look_up(stand.prompt, stand.written, most, ids)
    }
}

fn look_up(prompt: &[u32], written: &[u32], most: usize, ids: &mut Vec<u32>) -> usize {
    let len = prompt.len() + written.len();
    let at = |place: usize| match place.checked_sub(prompt.len()) {
        None => prompt[place],
        Some(place) => written[place],
    };
    if len == 0 {
        return 0;
    }
    let mut best = (LEAST - 1, 0);
    for end in (1..len).rev() {
        if at(end - 1) == at(len - 1) {
            let back = 1..=LONGEST.min(end);
            let agree = back.take_while(|n| at(end - n) == at(len - n)).count();
            if agree > best.0 {
                best = (agree, end);
            }
            if agree == LONGEST {
                break;
            }
        }
    }
    let (agree, end) = best;
    if agree < LEAST {
        return 0;
    }
    ids.extend((end..len).take(most).map(at));
    match agree {
        2 => 0,
        3 => 1,
        4..=5 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_end_that_came_before_is_followed() {
        let guess = |prompt: &[u32], written: &[u32]| {
            let mut ids = Vec::new();
            let strength = look_up(prompt, written, 3, &mut ids);
            (ids, strength)
        };
        let prompt = [5, 1, 2, 3, 4, 9, 2, 3, 8];
        assert_eq!(guess(&prompt, &[7, 1, 2, 3]), (vec![4, 9, 2], 1));
        assert_eq!(guess(&prompt, &[2, 3]), (vec![8, 2, 3], 0));
        assert_eq!(guess(&prompt, &[7, 3]), (vec![], 0));
        assert_eq!(guess(&[], &[4]), (vec![], 0));
        // What repeats itself.
        assert_eq!(guess(&[], &[1, 2, 1, 2, 1, 2]), (vec![1, 2], 2));
    }
}
