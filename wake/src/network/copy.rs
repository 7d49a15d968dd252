//! Operators that only move numbers: parts of one tensor become parts of another.

/// A stretch of numbers that stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) length: usize,
}

/// A box of an array of this shape: where it begins and how far it goes, by dimension.
struct Part<'a> {
    shape: &'a [usize],
    start: &'a [usize],
    size: &'a [usize],
}

/// The whole of `length` numbers.
pub(super) fn whole(length: usize) -> Vec<Run> {
    vec![Run {
        from: 0,
        to: 0,
        length,
    }]
}

/// The box of `shape` from `start` on, of `size`, to an array of that size.
pub(super) fn taken(shape: &[usize], start: &[usize], size: &[usize]) -> Vec<Run> {
    let runs = starts(&Part { shape, start, size });
    let length = runs.length;
    let numbered = runs.starts.into_iter().enumerate();
    numbered
        .map(|(i, from)| Run {
            from,
            to: i * length,
            length,
        })
        .collect()
}

/// An array of `size` to the box of `shape` from `start` on.
pub(super) fn put(shape: &[usize], start: &[usize], size: &[usize]) -> Vec<Run> {
    let taken = taken(shape, start, size).into_iter();
    taken
        .map(|run| Run {
            from: run.to,
            to: run.from,
            length: run.length,
        })
        .collect()
}

struct Starts {
    starts: Vec<usize>,
    length: usize,
}

/// How many runs a box has.
pub(super) fn count(shape: &[usize], size: &[usize]) -> usize {
    size[..split(shape, size)].iter().product()
}

/// Dimensions before those that a run goes through.
fn split(shape: &[usize], size: &[usize]) -> usize {
    let whole = (0..shape.len()).rev().take_while(|&i| shape[i] == size[i]);
    (shape.len() - whole.count()).saturating_sub(1)
}

fn starts(part: &Part<'_>) -> Starts {
    let split = split(part.shape, part.size);
    let mut starts = vec![0];
    for (i, &length) in part.shape.iter().enumerate() {
        let places = if i < split { part.size[i] } else { 1 };
        let at = |outer: usize, place: usize| outer * length + part.start[i] + place;
        starts = starts
            .into_iter()
            .flat_map(|outer| (0..places).map(move |place| at(outer, place)))
            .collect();
    }
    Starts {
        starts,
        length: part.size[split..].iter().product(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_as_few_runs_as_it_has() {
        let run = |from, to, length| Run { from, to, length };
        assert_eq!(
            taken(&[1, 5, 1, 4], &[0, 3, 0, 0], &[1, 2, 1, 4]),
            [run(12, 0, 8)]
        );
        assert_eq!(
            taken(&[2, 3, 4], &[0, 1, 2], &[2, 2, 2]),
            [run(6, 0, 2), run(10, 2, 2), run(18, 4, 2), run(22, 6, 2)]
        );
        assert_eq!(count(&[2, 3, 4], &[2, 2, 2]), 4);
        assert_eq!(put(&[2, 2], &[0, 1], &[2, 1]), [run(0, 1, 1), run(1, 3, 1)]);
        assert_eq!(taken(&[7], &[0], &[7]), whole(7));
    }
}
