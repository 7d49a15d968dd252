//! What most of some texts go on with.

/// Follows texts that go on differently: each next token is the one of most of those that agree so far, `weight` telling how often a text
/// came. Appends at most `most` tokens, and gives the share of all that the first of them had.
pub(super) fn follow(rests: &[(&[u32], f64)], most: usize, ids: &mut Vec<u32>) -> f64 {
    let mut rests: Vec<(&[u32], f64)> = rests.to_vec();
    let all: f64 = rests.iter().map(|(_, weight)| weight).sum();
    let mut first = None;
    for depth in 0..most {
        let ended: f64 = rests
            .iter()
            .filter(|(rest, _)| rest.len() <= depth)
            .map(|(_, weight)| weight)
            .sum();
        let mut best: Option<(u32, f64)> = None;
        for (rest, _) in &rests {
            let Some(&id) = rest.get(depth) else { continue };
            let with = rests
                .iter()
                .filter(|(rest, _)| rest.get(depth) == Some(&id));
            let weight: f64 = with.map(|(_, weight)| weight).sum();
            // Of equals the one that came first.
            if best.is_none_or(|(_, heaviest)| weight > heaviest) {
                best = Some((id, weight));
            }
        }
        let Some((id, weight)) = best.filter(|(_, weight)| *weight > ended) else {
            break;
        };
        first.get_or_insert(weight / all);
        ids.push(id);
        rests.retain(|(rest, _)| rest.get(depth) == Some(&id));
    }
    first.unwrap_or(0.0)
}

/// How sure such a share makes.
pub(super) fn strength(share: f64) -> usize {
    match share {
        share if share >= 0.9 => 3,
        share if share >= 0.6 => 2,
        share if share >= 0.3 => 1,
        _ => 0,
    }
}

/// Tokens that `a` and `b` end in together, at most `most`.
pub(super) fn common_end(a: &[u32], b: &[u32], most: usize) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take(most).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_are_followed_until_they_end() {
        let rests: [(&[u32], f64); 4] = [
            (&[1, 2, 3], 1.0),
            (&[1, 2, 4, 5], 2.0),
            (&[1, 2, 4, 6], 1.0),
            (&[9], 1.0),
        ];
        let mut ids = Vec::new();
        assert_eq!(follow(&rests, 8, &mut ids), 0.8);
        assert_eq!(ids, [1, 2, 4, 5]);
        ids.clear();
        follow(&rests, 2, &mut ids);
        assert_eq!(ids, [1, 2]);
        ids.clear();
        assert_eq!(follow(&[(&[], 2.0), (&[7], 1.0)], 4, &mut ids), 0.0);
        assert!(ids.is_empty());
        assert_eq!(common_end(&[1, 2, 3], &[9, 2, 3], 8), 2);
    }
}
