//! Token texts by id, and ids by text: one arena, one span per id, one hash index of ids.
//!
//! The texts stand in the arena once; the index holds only ids and compares through the arena. A 262,144-entry
//! vocabulary takes about 7 MB this way.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Ids at or above this are refused: four times the published vocabulary, and a bound for the tables that ids index.
pub(super) const MAX_VOCAB_SIZE: u32 = 1 << 20;

/// A span that no token has: ids may have holes.
const HOLE: (u32, u32) = (u32::MAX, u32::MAX);

/// Texts of all tokens, as they stand in the file.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    arena: String,
    spans: Vec<(u32, u32)>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Vocabulary {
    /// Adds a token; says what is wrong when the id is taken or absurd. Of a text that stands twice, as in some published files, both ids
    /// mean it and it means the later one, as in the `tokenizers` library.
    pub(super) fn insert(&mut self, text: &str, id: u32) -> Result<(), String> {
        if id >= MAX_VOCAB_SIZE {
            return Err(format!(
                "token {text:?}: expected an id below {MAX_VOCAB_SIZE}, found {id}"
            ));
        }
        let slot = id as usize;
        if slot >= self.spans.len() {
            self.spans.resize(slot + 1, HOLE);
        }
        if let Some(other) = self.text(id) {
            return Err(format!(
                "id {id} belongs to two tokens, {other:?} and {text:?}"
            ));
        }
        // The file's size limit keeps the arena far below 4 GiB.
        let start = self.arena.len() as u32;
        self.arena.push_str(text);
        self.spans[slot] = (start, self.arena.len() as u32);
        let (arena, spans, hasher) = (&self.arena, &self.spans, &self.hasher);
        let text_of = |id: u32| {
            let (start, end) = spans[id as usize];
            &arena[start as usize..end as usize]
        };
        let hash = hasher.hash_one(text);
        match self.index.find_mut(hash, |&id| text_of(id) == text) {
            Some(place) => *place = id,
            None => {
                self.index
                    .insert_unique(hash, id, |&id| hasher.hash_one(text_of(id)));
            }
        }
        Ok(())
    }

    /// The id of a text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.index
            .find(self.hasher.hash_one(text), |&id| {
                self.text(id) == Some(text)
            })
            .copied()
    }

    /// The text of an id, as it stands in the file.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let &(start, end) = self.spans.get(id as usize).filter(|&&span| span != HOLE)?;
        Some(&self.arena[start as usize..end as usize])
    }

    /// One more than the highest id.
    pub(super) fn size(&self) -> usize {
        self.spans.len()
    }

    /// Gives back what growing had reserved.
    pub(super) fn shrink_to_fit(&mut self) {
        self.arena.shrink_to_fit();
        self.spans.shrink_to_fit();
    }
}
