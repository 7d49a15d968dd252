//! Rows of a matrix where they lie: the operands of every product.

/// Rows of `depth` elements, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) stride: usize,
    pub(crate) depth: usize,
}

impl<'a, E> Rows<'a, E> {
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [E] {
        &self.data[row * self.stride..][..self.depth]
    }

    /// The rows from `row` on.
    pub(crate) fn from(self, row: usize) -> Rows<'a, E> {
        Rows {
            data: &self.data[row * self.stride..],
            ..self
        }
    }
}
