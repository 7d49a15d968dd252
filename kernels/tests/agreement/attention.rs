//! Attention against its scalar reference, and the reference against a plain softmax.

use std::ops::Range;

use half::f16;
use kernels::attention::{
    KvSegment, MAX_PARTS, Queries, attend, attend_all, attend_part, attend_tile, combine, int8,
    part_keys, part_len,
};
use kernels::{Isa, Matrix, MatrixData, Pool, softmax};

use crate::common::{Random, assert_close, assert_same, isas, pools, tuned};

struct Cache {
    k: Vec<f32>,
    v: Vec<f32>,
    k16: Vec<f16>,
    v16: Vec<f16>,
    head_dim: usize,
    stride: usize,
}

impl Cache {
    /// `keys` positions whose rows lie `head_dim + padding` apart; in half precision exactly.
    fn random(random: &mut Random, keys: usize, head_dim: usize, padding: usize) -> Cache {
        let stride = head_dim + padding;
        let half = |_| f16::from_f32(random.float());
        let k16: Vec<f16> = (0..keys * stride).map(half).collect();
        let v16: Vec<f16> = (0..keys * stride)
            .map(|_| f16::from_f32(random.float()))
            .collect();
        let wide = |halves: &[f16]| halves.iter().map(|x| x.to_f32()).collect();
        Cache {
            k: wide(&k16),
            v: wide(&v16),
            k16,
            v16,
            head_dim,
            stride,
        }
    }

    /// `keys`, from the single or the half precision copy.
    fn segment(&self, keys: Range<usize>, half: bool) -> KvSegment<'_> {
        let all = self.k.len() / self.stride;
        let matrix =
            |data| Matrix::strided(data, all, self.head_dim, self.stride).rows(keys.clone());
        if half {
            KvSegment::new(
                matrix(MatrixData::F16(&self.k16)),
                matrix(MatrixData::F16(&self.v16)),
            )
        } else {
            KvSegment::new(
                matrix(MatrixData::F32(&self.k)),
                matrix(MatrixData::F32(&self.v)),
            )
        }
    }
}

/// Scores are sums of head_dim products (2e-6 sqrt(head_dim), see `products.rs`) of size up to 10 here; the exponential turns
/// their absolute error into a relative one of the weights, and the weights sum to 1.
const TOLERANCE: f32 = 3e-5;

#[test]
fn the_reference_is_softmax_times_values() {
    let mut random = Random::new(20);
    let (heads, head_dim, keys) = (3, 16, 40);
    let cache = Cache::random(&mut random, keys, head_dim, 0);
    let q = random.floats(heads * head_dim, 1.0);
    let mut out = vec![f32::NAN; q.len()];
    attend(
        Isa::scalar(),
        &q,
        head_dim,
        0.5,
        &[cache.segment(0..keys, false)],
        &mut out,
    );
    for (q, out) in q.chunks(head_dim).zip(out.chunks(head_dim)) {
        let mut weights: Vec<f32> = cache
            .k
            .chunks(head_dim)
            .map(|k| 0.5 * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>())
            .collect();
        softmax::softmax(Isa::scalar(), &mut weights);
        for (d, &out) in out.iter().enumerate() {
            let expected: f32 = weights
                .iter()
                .zip(cache.v.chunks(head_dim))
                .map(|(w, v)| w * v[d])
                .sum();
            assert!((out - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn all_shapes() {
    let mut random = Random::new(21);
    let shapes = (0..=70)
        .map(|keys| (1 + keys % 6, 8, keys, 0))
        .chain((1..=70).map(|head_dim| (4, head_dim, 33, 5)))
        .chain([
            (4, 256, 512, 0),
            (4, 256, 100, 256),
            (1, 192, 13, 0),
            (12, 64, 576, 0),
            (4, 32, 1100, 0),
            (2, 8, 17_000, 0),
        ]);
    for (heads, head_dim, keys, padding) in shapes {
        let cache = Cache::random(&mut random, keys, head_dim, padding);
        let q = random.floats(heads * head_dim, 1.0);
        let cut = keys / 3;
        let segments = [
            cache.segment(0..cut, true),
            cache.segment(cut..cut + keys / 4, true),
            cache.segment(cut + keys / 4..keys, false),
        ];
        let mut expected = vec![f32::NAN; q.len()];
        attend(
            Isa::scalar(),
            &q,
            head_dim,
            1.0,
            &[cache.segment(0..keys, false)],
            &mut expected,
        );
        for isa in isas() {
            let what = format!("{isa}: {heads} heads of {head_dim}, {keys} keys");
            let mut got = vec![f32::NAN; q.len()];
            attend(isa, &q, head_dim, 1.0, &segments, &mut got);
            assert_same(&what, &got, &expected);

            for ranges in [
                vec![0, keys],
                vec![0, keys / 2, keys],
                vec![0, 0, keys / 5, keys / 2, keys, keys],
            ] {
                let part = part_len(heads, head_dim);
                let mut parts = vec![f32::NAN; (ranges.len() - 1) * part];
                for (range, part) in ranges.windows(2).zip(parts.chunks_mut(part)) {
                    attend_part(isa, &q, head_dim, 1.0, &segments, range[0]..range[1], part);
                }
                let mut got = vec![f32::NAN; q.len()];
                combine(isa, &parts, head_dim, &mut got);
                assert_close(&what, &got, &expected, 0.0, TOLERANCE);
            }

            // Whoever does the parts that `attend` takes gets its bits.
            let (part, in_part) = (part_len(heads, head_dim), part_keys(keys));
            let mut parts = vec![f32::NAN; keys.div_ceil(in_part) * part];
            for (i, part) in parts.chunks_mut(part).enumerate() {
                let range = i * in_part..keys.min((i + 1) * in_part);
                attend_part(isa, &q, head_dim, 1.0, &segments, range, part);
            }
            combine(isa, &parts, head_dim, &mut got);
            assert_same(&what, &got, &expected);
        }
    }
}

/// A ring's end, its beginning and the fresh keys of the chunk in work, each in one of the formats.
enum Stored<'a> {
    Floats(&'a Cache),
    Bytes {
        k: Vec<i8>,
        v: Vec<i8>,
        head_dim: usize,
    },
}

impl Stored<'_> {
    fn segments(&self, keys: Range<usize>, cuts: [usize; 2]) -> Vec<KvSegment<'_>> {
        let cuts = cuts.map(|cut| keys.start + cut.min(keys.len()));
        let ranges = [
            keys.start..cuts[0],
            cuts[0]..cuts[1].max(cuts[0]),
            cuts[1].max(cuts[0])..keys.end,
        ];
        let segment = |(i, keys): (usize, Range<usize>)| match self {
            Stored::Floats(cache) => cache.segment(keys, i < 2),
            Stored::Bytes { k, v, head_dim } => {
                let row = int8::row_len(*head_dim);
                let bytes = keys.start * row..keys.end * row;
                KvSegment::int8(&k[bytes.clone()], &v[bytes], *head_dim)
            }
        };
        ranges.into_iter().enumerate().map(segment).collect()
    }
}

/// Tokens that are done together get what each gets alone, to the bit: with a causal mask and with windows, whose blocks begin
/// at other keys for each token.
#[test]
fn tokens_together_are_each_as_alone() {
    let mut random = Random::new(26);
    let mut any = |most: usize| (random.float().abs() * most as f32) as usize;
    let shapes: Vec<_> = (0..40)
        .map(|i| {
            let keys = [40, 80, 600, 900][i % 4];
            let tokens = 1 + any(9);
            let window = (i % 3 == 0).then(|| 1 + any(keys));
            (tokens, 1 + any(9), 1 + any(80), tokens + any(keys), window)
        })
        .chain([
            (4, 8, 512, 300, None),
            (4, 8, 256, 530, Some(512)),
            (8, 4, 256, 530, Some(512)),
            (1, 8, 512, 1100, None),
            (2, 8, 64, 70, None),
            (3, 2, 16, 17_000, None),
            (32, 1, 8, 100, Some(40)),
            (2, 3, 600, 40, None),
        ])
        .collect();
    for (case, (tokens, heads, head_dim, keys, window)) in shapes.into_iter().enumerate() {
        let what = format!(
            "{tokens} tokens of {heads} heads of {head_dim}, {keys} keys, window {window:?}"
        );
        let cache = Cache::random(&mut random, keys, head_dim, case % 2 * 7);
        let width = heads * head_dim;
        let stride = width + case % 3 * 5;
        let q = random.floats(tokens * stride, 1.0);
        let seen = |token: usize| {
            let end = keys - (tokens - 1 - token);
            end.saturating_sub(window.unwrap_or(end))..end
        };
        let (size, base) = (part_keys(seen(tokens - 1).len()), seen(0).start);
        let rows: Vec<f32> = (cache.k.chunks(cache.stride))
            .flat_map(|row| &row[..head_dim])
            .copied()
            .collect();
        let values: Vec<f32> = (cache.v.chunks(cache.stride))
            .flat_map(|row| &row[..head_dim])
            .copied()
            .collect();
        let bytes = Stored::Bytes {
            k: in_8_bits(&rows, head_dim).0,
            v: in_8_bits(&values, head_dim).0,
            head_dim,
        };
        for stored in [Stored::Floats(&cache), bytes] {
            let alone: Vec<Vec<f32>> = (0..tokens)
                .map(|token| {
                    let mut out = vec![f32::NAN; width];
                    let q = &q[token * stride..][..width];
                    let segments = stored.segments(seen(token), [usize::MAX; 2]);
                    attend(Isa::scalar(), q, head_dim, 0.7, &segments, &mut out);
                    out
                })
                .collect();
            let segments = stored.segments(base..keys, [keys / 3, keys / 2]);
            let queries = Queries {
                q: &q,
                stride,
                heads,
                head_dim,
                scale: 0.7,
            };
            let parts = seen(tokens - 1).len().div_ceil(size);
            let len = part_len(heads, head_dim);
            for isa in isas() {
                let pool = Pool::new(isa, 1);
                let mut all = vec![f32::NAN; tokens * parts * len];
                pool.for_each_tile_mut(&mut all, parts * len, tokens, len, &|_, at, out| {
                    let part = at / len;
                    let own = |token: usize| {
                        let seen = seen(token);
                        let at = |part: usize| seen.end.min(seen.start + part * size) - base;
                        at(part)..at(part + 1)
                    };
                    let own: Vec<Range<usize>> = (0..tokens).map(own).collect();
                    attend_tile(isa, queries, &segments, &own, out);
                });
                for (token, (alone, all)) in alone.iter().zip(all.chunks(parts * len)).enumerate() {
                    let mut out = vec![f32::NAN; width];
                    let own = seen(token).len().div_ceil(size);
                    combine(isa, &all[..own * len], head_dim, &mut out);
                    assert_same(&format!("{isa}: {what}, token {token}"), &out, alone);
                }
            }
        }
    }
}

#[test]
fn parts_grow_by_doubling() {
    for (keys, size) in [
        (0, 512),
        (512, 512),
        (513, 512),
        (16_384, 512),
        (16_385, 1024),
        (32_769, 2048),
        (131_072, 4096),
    ] {
        assert_eq!(part_keys(keys), size.max(512), "{keys} keys");
        assert!(keys.div_ceil(part_keys(keys)) <= MAX_PARTS);
    }
}

/// Rows as [`int8`] stores them, and the floats that these stand for.
fn in_8_bits(rows: &[f32], head_dim: usize) -> (Vec<i8>, Vec<f32>) {
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    for row in rows.chunks(head_dim) {
        let mut stored = vec![0; int8::row_len(head_dim)];
        int8::quantize(row, &mut stored);
        let (integers, scale) = stored.split_at(head_dim);
        let scale = f32::from_ne_bytes([0, 1, 2, 3].map(|i| scale[i].cast_unsigned()));
        let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (&integer, &x) in integers.iter().zip(row) {
            let float = f32::from(integer) * scale;
            assert!(
                (float - x).abs() <= largest / 254.0 * 1.0001,
                "{x} became {float}"
            );
            floats.push(float);
        }
        bytes.extend(stored);
    }
    (bytes, floats)
}

#[test]
fn keys_and_values_in_8_bits() {
    let mut random = Random::new(24);
    for (heads, head_dim, keys) in (0..=40)
        .map(|keys| (1 + keys % 6, 8, keys))
        .chain((1..=40).map(|head_dim| (4, head_dim, 37)))
        .chain([(4, 256, 600), (2, 8, 17_000)])
    {
        let what = format!("{heads} heads of {head_dim}, {keys} keys");
        let cache = Cache::random(&mut random, keys, head_dim, 0);
        let (k, k_floats) = in_8_bits(&cache.k, head_dim);
        let (v, v_floats) = in_8_bits(&cache.v, head_dim);
        let q = random.floats(heads * head_dim, 1.0);
        let attended = |isa: Isa, segments: &[KvSegment<'_>]| {
            let mut out = vec![f32::NAN; q.len()];
            attend(isa, &q, head_dim, 1.0, segments, &mut out);
            out
        };
        let cut = keys / 3 * int8::row_len(head_dim);
        let (k, v) = (k.split_at(cut), v.split_at(cut));
        let segments = [
            KvSegment::int8(k.0, v.0, head_dim),
            KvSegment::int8(k.1, v.1, head_dim),
        ];
        let expected = attended(Isa::scalar(), &segments);
        let floats = KvSegment::new(
            Matrix::f32(&k_floats, keys, head_dim),
            Matrix::f32(&v_floats, keys, head_dim),
        );
        let of_floats = attended(Isa::scalar(), &[floats]);
        assert_close(&what, &expected, &of_floats, 0.0, TOLERANCE);
        for isa in isas() {
            assert_same(
                &format!("{isa}: {what}"),
                &attended(isa, &segments),
                &expected,
            );
        }
    }
}

#[test]
fn rows_of_nothing_and_of_no_number_are_stored_in_8_bits() {
    for odd in [0.0, 1e-44, f32::INFINITY, f32::NAN] {
        let mut stored = vec![1; int8::row_len(3)];
        int8::quantize(&[odd, 0.0, -0.0], &mut stored);
        assert_eq!(&stored[1..3], [0, 0], "{odd}");
        let scale = stored[3..].iter().map(|byte| byte.cast_unsigned());
        let scale: Vec<u8> = scale.collect();
        let scale = f32::from_ne_bytes(scale.try_into().unwrap());
        assert_eq!(scale.is_finite(), odd.is_finite(), "{odd}: {scale}");
    }
}

/// As a plain loop rounds, ties and signs included, whatever the length.
#[test]
fn rows_are_rounded_to_the_nearest_of_8_bits() {
    let mut random = Random::new(29);
    for len in (1..70).chain([256]) {
        let mut row = random.floats(len, 3.0);
        // With 127 as the largest every number is its own step.
        let ties = [127.0, 2.5, 3.5, -2.5, -0.5, 126.5, -127.0];
        for (to, tie) in row.iter_mut().zip(if len > 40 { ties } else { [0.0; 7] }) {
            *to = tie;
        }
        let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let steps = 127.0 / largest;
        let want = row.iter().map(|x| (x * steps).round_ties_even() as i8);
        let want: Vec<i8> = want
            .chain((largest / 127.0).to_ne_bytes().map(u8::cast_signed))
            .collect();
        let mut got = vec![1; int8::row_len(len)];
        int8::quantize(&row, &mut got);
        assert_eq!(got, want, "{row:?}");
    }
}

/// Scores in the thousands: one key takes all the weight, wherever it stands, and nothing overflows.
#[test]
fn large_scores() {
    let mut random = Random::new(22);
    for best in [0, 5, 31, 32, 63, 99] {
        let mut cache = Cache::random(&mut random, 100, 32, 0);
        cache.k[best * 32..][..32].fill(40.0);
        let q = vec![100.0; 64];
        for isa in isas() {
            let mut out = vec![0.0; 64];
            attend(isa, &q, 32, 1.0, &[cache.segment(0..100, false)], &mut out);
            for head in out.chunks(32) {
                assert_close(isa.name(), head, &cache.v[best * 32..][..32], 1e-6, 0.0);
            }
        }
    }
}

#[test]
fn not_a_number_reaches_its_own_heads_only() {
    let mut random = Random::new(23);
    let cache = Cache::random(&mut random, 50, 16, 0);
    let mut q = random.floats(6 * 16, 1.0);
    q[2 * 16 + 3] = f32::NAN;
    for isa in tuned() {
        let mut out = vec![0.0; q.len()];
        attend(isa, &q, 16, 1.0, &[cache.segment(0..50, true)], &mut out);
        for (h, head) in out.chunks(16).enumerate() {
            assert!(
                head.iter().all(|x| x.is_nan() == (h == 2)),
                "{isa} head {h}: {head:?}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "keys 10 x 8 and values 10 x 16")]
fn a_wrong_shape_is_told() {
    let (k, v) = (vec![0.0; 80], vec![0.0; 160]);
    KvSegment::new(Matrix::f32(&k, 10, 8), Matrix::f32(&v, 10, 16));
}

/// Attention of all rows over all rows: to the bit on every instruction set, and near a plain softmax; keys in any float format.
#[test]
fn all_rows_over_all_rows() {
    let mut random = Random::new(25);
    let (scalar, pools) = pools();
    for (heads, head_dim, queries, keys) in (0..=40)
        .map(|keys| (1 + keys % 3, 8, 1 + keys % 5, keys))
        .chain((1..=20).map(|head_dim| (2, head_dim, 17, 37)))
        .chain([(12, 64, 150, 70), (1, 72, 300, 33), (2, 128, 65, 100)])
    {
        let what = format!("{heads} heads of {head_dim}, {queries} queries, {keys} keys");
        let width = heads * head_dim;
        let cache = Cache::random(&mut random, keys, width, 3);
        let q = random.floats(queries * width, 1.0);
        let matrix = |data| Matrix::strided(data, keys, width, cache.stride);
        let floats = [MatrixData::F32(&cache.k), MatrixData::F32(&cache.v)].map(matrix);
        let halves = [MatrixData::F16(&cache.k16), MatrixData::F16(&cache.v16)].map(matrix);
        let attended = |pool: &Pool, [k, v]: [Matrix<'_>; 2]| {
            let mut out = vec![f32::NAN; q.len()];
            attend_all(pool, &q, k, v, heads, 0.3, &mut out);
            out
        };
        let expected = attended(&scalar, floats);
        for pool in &pools {
            for kv in [floats, halves] {
                let isa = pool.isa();
                assert_same(&format!("{isa}: {what}"), &attended(pool, kv), &expected);
            }
        }
        for (i, (q, out)) in q
            .chunks(head_dim)
            .zip(expected.chunks(head_dim))
            .enumerate()
        {
            let segment = KvSegment::new(
                floats[0].columns(i % heads * head_dim..(i % heads + 1) * head_dim),
                floats[1].columns(i % heads * head_dim..(i % heads + 1) * head_dim),
            );
            let mut one = vec![f32::NAN; head_dim];
            attend(Isa::scalar(), q, head_dim, 0.3, &[segment], &mut one);
            assert_close(&what, out, &one, 0.0, TOLERANCE);
        }
    }
}
