//! Rotary position embedding: cosines and sines of the positions of the chunk in work.
//!
//! Source: RoFormer (arXiv 2104.09864), rotate-half form; reference section 2.5.

use kernels::Isa;

use super::shape::{LayerShape, Rope};

/// The tables that a decoder's layers need, one for each way of turning.
#[derive(Debug)]
pub(crate) struct RopeTables {
    tables: Vec<RopeTable>,
}

/// Cosines and sines, \[T, head_dim / 2\] each.
#[derive(Debug)]
pub(crate) struct RopeTable {
    rope: Rope,
    frequencies: Vec<f64>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTables {
    pub(crate) fn new(layers: &[LayerShape], tokens: usize) -> RopeTables {
        let mut tables: Vec<RopeTable> = Vec::new();
        for layer in layers {
            if !tables.iter().any(|table| table.serves(layer)) {
                tables.push(RopeTable::new(layer, tokens));
            }
        }
        RopeTables { tables }
    }

    /// Fills the tables for `t` tokens from `position` on, the first of them token `first` of the chunk.
    pub(crate) fn fill(&mut self, first: usize, position: usize, t: usize) {
        for table in &mut self.tables {
            table.fill(first, position, t);
        }
    }

    /// The table of a layer.
    pub(crate) fn of(&self, layer: &LayerShape) -> &RopeTable {
        match self.tables.iter().find(|table| table.serves(layer)) {
            Some(table) => table,
            None => unreachable!("the tables were made for these layers"),
        }
    }
}

impl RopeTable {
    fn new(layer: &LayerShape, tokens: usize) -> RopeTable {
        let mut frequencies = kernels::rope::inverse_frequencies(layer.rope.base, layer.head_dim);
        for frequency in &mut frequencies {
            *frequency /= layer.rope.factor;
        }
        // A pair that turns by nothing stays as it is, to the bit.
        frequencies[layer.rope.rotated_pairs..].fill(0.0);
        let len = tokens * frequencies.len();
        RopeTable {
            rope: layer.rope,
            frequencies,
            cos: vec![0.0; len],
            sin: vec![0.0; len],
        }
    }

    fn serves(&self, layer: &LayerShape) -> bool {
        self.rope == layer.rope && 2 * self.frequencies.len() == layer.head_dim
    }

    fn fill(&mut self, first: usize, position: usize, t: usize) {
        let half = self.frequencies.len();
        let rows = self.cos.chunks_exact_mut(half);
        let rows = rows.zip(self.sin.chunks_exact_mut(half));
        for (t, (cos, sin)) in rows.skip(first).take(t).enumerate() {
            kernels::rope::cos_sin(position + t, &self.frequencies, cos, sin);
        }
    }

    /// Turns heads of token `t` of the chunk.
    pub(crate) fn rotate(&self, isa: Isa, t: usize, heads: &mut [f32]) {
        let half = self.frequencies.len();
        let row = t * half..(t + 1) * half;
        kernels::rope::rope(isa, heads, &self.cos[row.clone()], &self.sin[row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(head_dim: usize, base: f64, rotated_pairs: usize) -> LayerShape {
        let rope = Rope {
            base,
            factor: 1.0,
            rotated_pairs,
        };
        LayerShape {
            heads: 2,
            kv_heads: 1,
            head_dim,
            window: None,
            rope,
            kv_of: None,
            ffn_width: 8,
        }
    }

    #[test]
    fn pairs_that_do_not_turn_stay_as_they_are_and_the_others_know_the_whole_head() {
        let (whole, partial) = (layer(16, 1e4, 8), layer(16, 1e4, 2));
        let mut tables = RopeTables::new(&[whole, partial, layer(8, 1e4, 4), whole], 4);
        assert_eq!(tables.tables.len(), 3);
        tables.fill(0, 7, 4);
        let head: Vec<f32> = (0..16).map(|i| (i as f32 - 7.3) / 3.0).collect();
        let (mut turned, mut partly) = (head.clone(), head.clone());
        tables.of(&whole).rotate(Isa::best(), 3, &mut turned);
        tables.of(&partial).rotate(Isa::best(), 3, &mut partly);
        for i in 0..16 {
            let want = if i % 8 < 2 { turned[i] } else { head[i] };
            assert_eq!(partly[i].to_bits(), want.to_bits(), "{i}");
            assert_ne!(turned[i], head[i]);
        }
    }
}
