//! Attention of all rows over all rows in 8 bits.

use kernels::attention::{Int8Memory, attend_all, attend_all_int8};
use kernels::{Matrix, Pool, softmax};

use crate::common::{Random, assert_close, assert_same, pools};

struct Case {
    heads: usize,
    key_dim: usize,
    value_dim: usize,
    keys: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
}

impl Case {
    fn random(
        random: &mut Random,
        [heads, key_dim, value_dim]: [usize; 3],
        queries: usize,
        keys: usize,
    ) -> Case {
        Case {
            heads,
            key_dim,
            value_dim,
            keys,
            k: random.floats(keys * heads * key_dim, 1.0),
            v: random.floats(keys * heads * value_dim, 1.0),
            q: random.floats(queries * heads * key_dim, 1.0),
        }
    }

    fn attended(&self, pool: &Pool, scale: f32) -> Vec<f32> {
        let dims = [self.key_dim, self.value_dim];
        let memory = Int8Memory::new(pool, [&self.k, &self.v], self.keys, self.heads, dims);
        let mut out = vec![f32::NAN; self.q.len() / self.key_dim * self.value_dim];
        attend_all_int8(pool, &self.q, &memory, scale, &mut out);
        out
    }

    /// In floats, by another way: all scores, their softmax, the weighted sum.
    fn in_floats(&self, scale: f32) -> Vec<f32> {
        let isa = Pool::new(kernels::Isa::scalar(), 1).isa();
        let mut out = Vec::new();
        for (i, q) in self.q.chunks(self.key_dim).enumerate() {
            let row = |of: usize, dim: usize| (of * self.heads + i % self.heads) * dim;
            let score = |key: usize| {
                let k = &self.k[row(key, self.key_dim)..];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() * scale
            };
            let mut weights: Vec<f32> = (0..self.keys).map(score).collect();
            softmax::softmax(isa, &mut weights);
            out.extend((0..self.value_dim).map(|c| {
                let values = (0..self.keys).map(|key| self.v[row(key, self.value_dim) + c]);
                weights.iter().zip(values).map(|(w, v)| w * v).sum::<f32>()
            }));
        }
        out
    }
}

/// To the bit on every instruction set and for every number of threads, and near what floats give.
#[test]
fn all_rows_over_all_rows_in_8_bits() {
    let mut random = Random::new(31);
    let (scalar, pools) = pools();
    for (dims, queries, keys) in (0..=70)
        .map(|keys| ([1 + keys % 3, 32, 16], 1 + keys % 7, keys))
        .chain((1..=40).map(|dim| ([2, dim, 1 + dim * 7 % 40], 17, 77)))
        .chain([
            ([12, 64, 64], 150, 70),
            ([1, 72, 72], 300, 133),
            ([2, 128, 96], 65, 200),
        ])
    {
        let what = format!("heads, widths {dims:?}, {queries} queries, {keys} keys");
        let case = Case::random(&mut random, dims, queries, keys);
        let expected = case.attended(&scalar, 0.3);
        for pool in &pools {
            let isa = pool.isa();
            assert_same(
                &format!("{isa}: {what}"),
                &case.attended(pool, 0.3),
                &expected,
            );
        }
        // Three roundings, each by at most 1/254 of the largest.
        assert_close(&what, &expected, &case.in_floats(0.3), 0.0, 0.03);
    }
}

/// Wherever the key is that takes all the weight, no block of keys is lost to another, and none of it to rounding.
#[test]
fn scores_far_apart_in_8_bits() {
    let mut random = Random::new(32);
    let (_, pools) = pools();
    for best in [0, 63, 64, 100, 199] {
        let mut case = Case::random(&mut random, [1, 32, 32], 5, 200);
        case.q.fill(1.0);
        case.k[best * 32..][..32].fill(40.0);
        for pool in &pools {
            let out = case.attended(pool, 1.0);
            for row in out.chunks(32) {
                assert_close(
                    pool.isa().name(),
                    row,
                    &case.v[best * 32..][..32],
                    0.0,
                    0.005,
                );
            }
        }
    }
    // Blocks with as much weight as each other, whose scores differ among themselves by more than 8 bits tell.
    let mut case = Case::random(&mut random, [1, 32, 1], 1, 128);
    case.q.fill(1.0);
    case.k.fill(-1.0);
    for (key, value) in [(3, 1.0), (90, 3.0)] {
        case.k[key * 32..][..32].fill(1.0);
        case.v[key] = value;
    }
    for pool in &pools {
        assert_close(
            pool.isa().name(),
            &case.attended(pool, 1.0),
            &[2.0],
            0.0,
            0.02,
        );
    }
}

#[test]
fn not_a_number_in_8_bits_reaches_what_sees_it_only() {
    let mut random = Random::new(33);
    let (_, pools) = pools();
    for odd in [f32::NAN, f32::INFINITY] {
        let case = || Case::random(&mut Random::new(34), [3, 16, 16], 6, 70);
        let (mut query, mut key, mut value) = (case(), case(), case());
        let at = (random.float().abs() * 15.0) as usize;
        query.q[(2 * 3 + 1) * 16 + at] = odd;
        key.k[(69 * 3 + 2) * 16 + at] = odd;
        value.v[(5 * 3) * 16 + at] = odd;
        for pool in &pools {
            let heads = |case: &Case| -> Vec<usize> {
                let out = case.attended(pool, 1.0);
                let heads = out.chunks(16).enumerate();
                heads
                    .filter(|(_, head)| head.iter().any(|x| !x.is_finite()))
                    .map(|(at, _)| at)
                    .collect()
            };
            let isa = pool.isa();
            assert_eq!(heads(&query), [7], "{isa}");
            assert_eq!(heads(&key), [2, 5, 8, 11, 14, 17], "{isa}");
            assert_eq!(heads(&value), [0, 3, 6, 9, 12, 15], "{isa}");
        }
    }
}

/// Of the float kernel's result this is off by less than what 8 bits are: a mistake in a scale would be larger.
#[test]
fn eight_bits_are_near_floats_as_a_whole() {
    let mut random = Random::new(35);
    let (_, pools) = pools();
    let case = Case::random(&mut random, [2, 64, 64], 100, 300);
    for pool in &pools {
        let mut floats = vec![0.0; case.q.len()];
        let matrix = |rows| Matrix::f32(rows, 300, 128);
        attend_all(
            pool,
            &case.q,
            matrix(&case.k),
            matrix(&case.v),
            2,
            0.5,
            &mut floats,
        );
        let got = case.attended(pool, 0.5);
        let rms =
            |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let off = rms(&mut got.iter().zip(&floats).map(|(a, b)| a - b));
        let share = off / rms(&mut floats.iter().copied());
        assert!((1e-4..0.02).contains(&share), "{}: {share}", pool.isa());
    }
}
