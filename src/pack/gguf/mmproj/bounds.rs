//! The bounds of linear layers: what goes in and what comes out is cut off at these.

use std::cmp::Ordering;

use kernels::Pool;

use super::Mmproj;
use crate::model::tensor_table::NamedShape;
use crate::pack::error::PackError;

impl Mmproj {
    /// Finds the bounds of linear layers: four of each, or none.
    pub(super) fn find_bounds(&mut self, tensors: &[NamedShape]) -> Result<(), PackError> {
        // They stand together: both of what goes in, both of what comes out.
        for of_layer in bounds(tensors).chunks(4) {
            let (there, absent): (Vec<&str>, Vec<&str>) = of_layer
                .iter()
                .partition(|name| self.tensors.contains_key(**name));
            if let (Some(there), Some(absent)) = (there.first(), absent.first()) {
                return Err(self.keys().bad(format!(
                    "tensor {} is there, but {} is not: a layer has all four bounds or none; download it again",
                    self.theirs(there),
                    self.theirs(absent)
                )));
            }
            for pair in there.chunks_exact(2) {
                self.upper.insert(pair[0].to_owned(), pair[1].to_owned());
            }
        }
        Ok(())
    }

    /// Looks at every bound.
    ///
    /// # Errors
    /// Two of them bound nothing.
    pub(in crate::pack) fn look_at_bounds(&self, pool: &Pool) -> Result<(), PackError> {
        self.upper
            .iter()
            .try_for_each(|(least, most)| self.look_at_bound(pool, least, most))
    }

    pub(super) fn look_at_bound(
        &self,
        pool: &Pool,
        least: &str,
        most: &str,
    ) -> Result<(), PackError> {
        let number = |name: &str| {
            let mut number = [0.0];
            let read = self.rectangle(pool, name, 0..1, 0..1, &mut number);
            read.map(|()| number[0])
        };
        let names = [self.theirs(least), self.theirs(most)];
        let (least, most) = (number(least)?, number(most)?);
        // What is not a number is in no order.
        match least.partial_cmp(&most).is_none_or(Ordering::is_gt) {
            true => Err(self.keys().bad(format!(
                "{} is {least} and {} is {most}, which bound nothing; download it again",
                names[0], names[1]
            ))),
            false => Ok(()),
        }
    }
}

/// What bounds linear layers: tensors without dimensions.
fn bounds(tensors: &[NamedShape]) -> Vec<&str> {
    let bounds = tensors.iter().filter(|(_, shape)| shape.is_empty());
    bounds.map(|(name, _)| name.as_str()).collect()
}
