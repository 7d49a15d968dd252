//! Rows of the PLE table that were used lately, as they are stored; of some only the front.

/// A fixed number of rows. The one to give way is chosen by the clock algorithm: a row that was used again since the hand passed it
/// last stays for another round.
#[derive(Debug)]
pub(super) struct RowCache {
    /// Slots one behind the other; 64-bit words, so that every slot is aligned for any number.
    words: Vec<u64>,
    words_per_slot: usize,
    row_bytes: usize,
    /// For every row of the table: its slot plus one, or 0.
    slot_of: Vec<u32>,
    slots: Vec<Slot>,
    capacity: usize,
    hand: usize,
}

/// A slot in use.
#[derive(Debug)]
struct Slot {
    row: u32,
    /// How much of the row is held.
    front: usize,
    /// Whether it was used again since the hand passed.
    is_used: bool,
}

impl RowCache {
    /// A cache of at most `limit_bytes`, but one row at least, for a table of `rows`. Memory is taken as rows come.
    pub(super) fn new(rows: usize, row_bytes: usize, limit_bytes: usize) -> RowCache {
        let words_per_slot = row_bytes.div_ceil(8);
        let fitting = limit_bytes / (words_per_slot * 8).max(1);
        let capacity = fitting.clamp(1, rows.clamp(1, u32::MAX as usize - 1));
        RowCache {
            // Zeroed memory that nobody has written to is not in memory yet.
            words: vec![0; capacity * words_per_slot],
            words_per_slot,
            row_bytes,
            slot_of: vec![0; rows],
            slots: Vec::with_capacity(capacity),
            capacity,
            hand: 0,
        }
    }

    /// Rows that have room.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the rows that are held.
    pub(super) fn bytes(&self) -> u64 {
        (self.slots.len() * self.words_per_slot * 8) as u64
    }

    fn slot_of(&self, row: u32) -> Option<usize> {
        Some(self.slot_of[row as usize].checked_sub(1)? as usize)
    }

    /// How much of the row is held; 0 where it is not.
    pub(super) fn front(&self, row: u32) -> usize {
        self.slot_of(row).map_or(0, |slot| self.slots[slot].front)
    }

    /// The row's bytes, if it is held, of which those of its front count.
    pub(super) fn get(&mut self, row: u32) -> Option<&[u8]> {
        let slot = self.slot_of(row)?;
        self.slots[slot].is_used = true;
        Some(self.slot(slot))
    }

    /// Holds the row up to `front`; `fill` is given its bytes. What it fails to put there is not held afterwards.
    pub(super) fn insert<E>(
        &mut self,
        row: u32,
        front: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<&[u8], E> {
        let slot = self.slot_of(row).unwrap_or_else(|| self.free_slot());
        let bytes = bytemuck::cast_slice_mut::<u64, u8>(
            &mut self.words[slot * self.words_per_slot..][..self.words_per_slot],
        );
        if let Err(error) = fill(&mut bytes[..self.row_bytes]) {
            // Of the row that lay there nothing can be said any more.
            self.clear();
            return Err(error);
        }
        if let Some(before) = self.slots.get(slot) {
            self.slot_of[before.row as usize] = 0;
        }
        self.slot_of[row as usize] = slot as u32 + 1;
        let filled = Slot {
            row,
            front,
            is_used: false,
        };
        match self.slots.get_mut(slot) {
            Some(slot) => *slot = filled,
            None => self.slots.push(filled),
        }
        Ok(self.slot(slot))
    }

    /// Forgets every row and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.words = vec![0; self.words.len()];
        for slot in self.slots.drain(..) {
            self.slot_of[slot.row as usize] = 0;
        }
        self.hand = 0;
    }

    fn slot(&self, slot: usize) -> &[u8] {
        let words = &self.words[slot * self.words_per_slot..][..self.words_per_slot];
        &bytemuck::cast_slice::<u64, u8>(words)[..self.row_bytes]
    }

    fn free_slot(&mut self) -> usize {
        if self.slots.len() < self.capacity {
            return self.slots.len();
        }
        loop {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.capacity;
            if !std::mem::take(&mut self.slots[slot].is_used) {
                return slot;
            }
        }
    }
}
