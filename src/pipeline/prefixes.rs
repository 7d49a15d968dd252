//! Beginnings of prompts that may come again, in memory: keys and values by the tokens that they are of. The longest that a new prompt
//! begins with is taken over, whoever asked the one that it is from.
//!
//! Keys and values of sliding layers are a ring, so they cannot be cut to any length afterwards: they are kept at places that are known
//! to be good. Those are the end of the instructions and the ends of parts of them, the beginning of the last turn where a conversation
//! goes on, and the place where a prompt parts from an earlier one.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use crate::model::decoder::Slice;
use crate::model::decoder::kv_cache::{KvCache, KvSnapshot};

/// A token as a prefix sees it: the id of a text token, else a hash of its embedding, which is of what was seen or heard.
pub(super) type Token = u64;

/// A prompt, and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Known<'p> {
    pub(super) ids: &'p [u32],
    /// Embeddings of those ids that take one.
    pub(super) rows: &'p [f32],
    /// Tokens at its beginning that are the same whatever is asked.
    pub(super) fixed: usize,
    /// It is a part of a conversation that will go on.
    pub(super) goes_on: bool,
    /// Tools may be called in it.
    pub(super) calls: bool,
    /// What is asked follows: all of it may be kept. Else its last token is computed, for an answer begins with it.
    pub(super) more_follows: bool,
}

impl Known<'_> {
    /// Tokens that may be taken over or kept.
    pub(super) fn most(&self) -> usize {
        self.ids
            .len()
            .saturating_sub(usize::from(!self.more_follows))
    }
}

/// Prompts that are remembered, to see where others part from them.
const REMEMBERED: usize = 16;

/// A place that is so much nearer to the beginning than another, tokens, is as good, where a turn begins there.
const NEAR: usize = 64;

/// Keys and values of the beginning of a prompt.
struct Kept {
    widths: String,
    tokens: Vec<Token>,
    snapshot: KvSnapshot,
    /// Whether it has been taken over.
    used: bool,
    why: Why,
}

/// Why a beginning is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Something may change behind it.
    Spare,
    /// The instructions end there: whatever is asked begins like this.
    Instructions,
    /// A conversation may go on, or prompts part there.
    Turn,
}

/// A beginning that was taken over.
pub(super) struct Found {
    pub(super) length: usize,
    /// Whether that is the first time.
    pub(super) first: bool,
}

/// What is kept, the least recently used first.
pub(super) struct Prefixes {
    kept: VecDeque<Kept>,
    remembered: VecDeque<(String, Vec<Token>)>,
    limit_bytes: u64,
    hasher: RandomState,
}

/// What of a slice decides about keys and values: its layers that have their own.
pub(super) fn widths(slice: &Slice, kv_layers: usize) -> String {
    (0..kv_layers)
        .map(|layer| format!("{:?} ", slice.width(layer)))
        .collect()
}

fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Prefixes {
    /// Nothing is kept where the limit is 0.
    pub(super) fn new(limit_bytes: u64) -> Prefixes {
        Prefixes {
            kept: VecDeque::new(),
            remembered: VecDeque::new(),
            limit_bytes,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.limit_bytes > 0
    }

    /// The tokens of a prompt; `rows` are the embeddings, `width` wide, of those ids that take one.
    pub(super) fn tokens(
        &self,
        ids: &[u32],
        rows: &[f32],
        width: usize,
        takes_row: impl Fn(u32) -> bool,
    ) -> Vec<Token> {
        let mut rows = rows.chunks_exact(width);
        let token = |&id: &u32| match takes_row(id) {
            true => {
                let row: &[u8] = bytemuck::cast_slice(rows.next().unwrap_or_default());
                self.hasher.hash_one(row) | 1 << 63
            }
            false => id.into(),
        };
        ids.iter().map(token).collect()
    }

    /// Fills `cache`, which is empty, with the longest beginning of `tokens` that is kept.
    pub(super) fn take_over(
        &mut self,
        slice: &Slice,
        kv_layers: usize,
        tokens: &[Token],
        cache: &mut KvCache,
    ) -> Option<Found> {
        let widths = widths(slice, kv_layers);
        let fits = |kept: &Kept| kept.widths == widths && tokens.starts_with(&kept.tokens);
        let found = self.kept.iter().enumerate().filter(|(_, kept)| fits(kept));
        let (at, _) = found.max_by_key(|(_, kept)| kept.tokens.len())?;
        let mut kept = self.kept.remove(at)?;
        cache.restore(&kept.snapshot);
        cache.slice = Some(slice.clone());
        let found = Found {
            length: kept.tokens.len(),
            first: !std::mem::replace(&mut kept.used, true),
        };
        self.kept.push_back(kept);
        Some(found)
    }

    /// Where `tokens` part from those of an earlier prompt, if that is worth keeping: at least `least` tokens beyond `from`. `turns` are
    /// the places where turns begin. The prompt is remembered from then on.
    pub(super) fn parting(
        &mut self,
        widths: String,
        tokens: &[Token],
        turns: &[usize],
        from: usize,
        least: usize,
    ) -> Option<usize> {
        let same = self.remembered.iter().filter(|(other, _)| *other == widths);
        let longest = same
            .map(|(_, other)| common(other, tokens))
            .max()
            .unwrap_or(0);
        let at = longest.min(tokens.len().saturating_sub(1));
        // Pictures are not cut.
        let soft = |at: usize| tokens.get(at).is_some_and(|token| token >> 63 == 1);
        let at = match soft(at) {
            true => (0..at).rev().find(|&at| !soft(at)).map_or(0, |at| at + 1),
            false => at,
        };
        let turn = turns.iter().copied().filter(|turn| *turn <= at).max();
        let turn = turn.filter(|turn| at - turn < NEAR && *turn >= from + least);
        let at = turn.unwrap_or(at);
        self.remembered
            .retain(|(other, known)| *other != widths || known != tokens);
        self.remembered.truncate(REMEMBERED - 1);
        self.remembered.push_front((widths, tokens.to_vec()));
        (at >= from + least).then_some(at)
    }

    /// Keeps what `cache` holds of `tokens`, and forgets the least recently used beginnings that are too much then: first such as were
    /// kept in case something changes behind them, and nothing has; the instructions that were used last stay, for a turn of one
    /// conversation is no gain to any other.
    pub(super) fn keep(&mut self, widths: String, tokens: &[Token], cache: &KvCache, why: Why) {
        if !self.is_on() || cache.used_bytes() > self.limit_bytes {
            return;
        }
        if self
            .kept
            .iter()
            .any(|kept| kept.widths == widths && kept.tokens == tokens)
        {
            return;
        }
        self.kept.push_back(Kept {
            widths,
            tokens: tokens.to_vec(),
            snapshot: cache.snapshot(),
            used: false,
            why,
        });
        while self.bytes() > self.limit_bytes {
            let is_idle = |kept: &Kept| kept.why == Why::Spare && !kept.used;
            let is_of_all = |kept: &Kept| kept.why == Why::Instructions;
            let stays = self.kept.iter().rposition(is_of_all);
            let others = || (0..self.kept.len()).find(|&at| Some(at) != stays);
            let first = self.kept.iter().position(is_idle).or_else(others);
            self.kept.remove(first.unwrap_or(0));
        }
    }

    /// Forgets beginnings of `tokens` that are longer than `from`: what is kept behind them holds more, and serves the same.
    pub(super) fn outgrow(&mut self, widths: &str, tokens: &[Token], from: usize) {
        self.kept.retain(|kept| {
            let length = kept.tokens.len();
            length <= from
                || length >= tokens.len()
                || kept.widths != widths
                || !tokens.starts_with(&kept.tokens)
        });
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |kept: &Kept| (kept.snapshot.bytes() + size_of_val(&kept.tokens[..])) as u64;
        self.kept.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decoder::kv_cache::KvType;

    #[test]
    fn prompts_part_where_something_else_follows() {
        let mut prefixes = Prefixes::new(1);
        let mut parting = |tokens: &[Token], turns: &[usize], from| {
            prefixes.parting(String::new(), tokens, turns, from, 4)
        };
        let head: Vec<Token> = (0..100).collect();
        let with = |tail: &[Token]| [&head[..], tail].concat();
        assert_eq!(parting(&with(&[200, 201]), &[0], 0), None);
        assert_eq!(parting(&with(&[300, 301]), &[0], 0), Some(100));
        // What is known already is no gain.
        assert_eq!(parting(&with(&[400, 401]), &[0], 98), None);
        // A turn begins a little before: what is said in it is another's.
        assert_eq!(parting(&with(&[200, 500]), &[0, 90], 0), Some(90));
        assert_eq!(parting(&with(&[200, 500]), &[0, 10], 0), Some(101));
        // Of a picture that is the same for a while nothing is cut.
        let soft = |n: Token| n | 1 << 63;
        parting(&with(&[soft(1), soft(2), soft(3)]), &[], 0);
        assert_eq!(
            parting(&with(&[soft(1), soft(2), soft(9)]), &[], 0),
            Some(100)
        );
    }

    #[test]
    fn what_was_kept_in_case_of_a_change_goes_first() {
        // Tokens alone take room here, eight bytes each.
        let cache = KvCache::new(&[], KvType::F32, 16, 4);
        let mut prefixes = Prefixes::new(8 * 10);
        let mut keep = |tokens: &[Token], why| {
            prefixes.keep(String::new(), tokens, &cache, why);
            let kept = prefixes.kept.iter();
            kept.map(|kept| kept.tokens[0]).collect::<Vec<_>>()
        };
        keep(&[1; 4], Why::Turn);
        keep(&[2; 3], Why::Spare);
        assert_eq!(keep(&[3; 3], Why::Spare), [1, 2, 3]);
        assert_eq!(keep(&[4; 2], Why::Turn), [1, 3, 4]);
        // Then the least recently used.
        assert_eq!(keep(&[5; 5], Why::Turn), [4, 5]);
        // One that has served is as good as any.
        assert_eq!(keep(&[6; 2], Why::Spare), [4, 5, 6]);
        prefixes.kept[2].used = true;
        prefixes.keep(String::new(), &[7; 3], &cache, Why::Turn);
        let kept = prefixes.kept.iter().map(|kept| kept.tokens[0]);
        assert_eq!(kept.collect::<Vec<_>>(), [5, 6, 7]);
        // What one conversation came to does not drive out what all begin with.
        prefixes.keep(String::new(), &[8; 6], &cache, Why::Instructions);
        prefixes.keep(String::new(), &[9; 4], &cache, Why::Turn);
        prefixes.keep(String::new(), &[10; 4], &cache, Why::Turn);
        let kept = prefixes.kept.iter().map(|kept| kept.tokens[0]);
        assert_eq!(kept.collect::<Vec<_>>(), [8, 10]);
    }

    #[test]
    fn a_token_of_a_picture_is_what_is_seen() {
        let prefixes = Prefixes::new(1);
        let of = |rows: &[f32]| prefixes.tokens(&[7, 99, 99, 8], rows, 2, |id| id == 99);
        let (a, b) = (of(&[0.0, 1.0, 2.0, 3.0]), of(&[0.0, 1.0, 2.0, 3.5]));
        assert_eq!((a[0], a[3]), (7, 8));
        assert_eq!(a[1], b[1]);
        assert_ne!(a[2], b[2]);
        assert!(a[1] >> 63 == 1 && a[1] != a[2]);
    }
}
