//! Checkpoints of either family in which something, anything, is different: they open and answer, or end in one line; none panics, and none
//! allocates by a number that nobody vouches for.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::{Checkpoint, GEMMA4_PACK, open_and_answer, split};

/// The fixtures' checkpoint of one of the families.
fn checkpoint(is_gemma4: bool) -> Checkpoint {
    if is_gemma4 {
        Checkpoint::gemma4()
    } else {
        Checkpoint::copy()
    }
}

/// Likewise as a pack.
fn pack(is_gemma4: bool) -> Checkpoint {
    if is_gemma4 {
        Checkpoint::copy_of(&GEMMA4_PACK.1)
    } else {
        Checkpoint::pack()
    }
}

/// A value that stands where another was expected.
fn values() -> impl Strategy<Value = Value> {
    let numbers = prop::sample::select(vec![
        0_i64,
        1,
        2,
        3,
        5,
        7,
        16,
        31,
        64,
        255,
        4096,
        100_000,
        1 << 18,
        1 << 20,
        1 << 24,
        1 << 31,
        1 << 40,
        -1,
        i64::MIN,
        i64::MAX,
    ]);
    prop_oneof![
        4 => numbers.prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => (0.0..2.0).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => prop::sample::select(vec!["", "gemma3n", "gemma4", "full_attention", "x"]).prop_map(Value::from),
        1 => Just(json!([])),
        1 => Just(json!([1, 2])),
        1 => Just(json!({})),
    ]
}

/// Follows indices down into a value and puts another in its place, or takes it away.
fn mutate(value: &mut Value, path: &[Index], new: Option<Value>) {
    let [first, rest @ ..] = path else {
        *value = new.unwrap_or(Value::Null);
        return;
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(first.index(map.len())).unwrap().clone();
            let leaf = !(map[&key].is_object() || map[&key].is_array());
            match new {
                None if leaf || rest.is_empty() => {
                    map.shift_remove(&key);
                }
                new => mutate(
                    map.get_mut(&key).unwrap(),
                    if leaf { &[] } else { rest },
                    new,
                ),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = first.index(list.len());
            let leaf = !(list[at].is_object() || list[at].is_array());
            match new {
                None if leaf || rest.is_empty() => {
                    list.remove(at);
                }
                new => mutate(&mut list[at], if leaf { &[] } else { rest }, new),
            }
        }
        leaf => *leaf = new.unwrap_or(Value::Null),
    }
}

fn cases() -> ProptestConfig {
    // Each case runs the whole model; PROPTEST_CASES asks for more.
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            default.cases
        } else {
            80
        },
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn mutated_configs_never_panic(
        is_gemma4 in any::<bool>(),
        changes in prop::collection::vec(
            (prop::collection::vec(any::<Index>(), 6), prop::option::weighted(0.9, values())),
            1..3,
        ),
    ) {
        let checkpoint = checkpoint(is_gemma4);
        checkpoint.edit_json("config.json", |config| {
            for (path, value) in changes {
                mutate(config, &path, value);
            }
        });
        if let Err(message) = open_and_answer(checkpoint.path()) {
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }

    /// Values of the text section alone: the ones that size buffers.
    #[test]
    fn mutated_dimensions_never_panic(
        is_gemma4 in any::<bool>(),
        key in any::<Index>(),
        value in values(),
        at in any::<Index>(),
    ) {
        let checkpoint = checkpoint(is_gemma4);
        checkpoint.edit_json("config.json", |config| {
            let section = ["text_config", "audio_config", "vision_config"][at.index(3)];
            let map = config[section].as_object_mut().unwrap();
            let place = key.index(map.len());
            *map.values_mut().nth(place).unwrap() = value;
        });
        if let Err(message) = open_and_answer(checkpoint.path()) {
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }

    #[test]
    fn mutated_header_bytes_never_panic(
        is_gemma4 in any::<bool>(),
        shard in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let checkpoint = checkpoint(is_gemma4);
        let name = checkpoint.shards()[shard.index(checkpoint.shards().len())].clone();
        let mut file = checkpoint.read(&name);
        let header = 8 + split(&file).0.len();
        for (at, byte) in changes {
            file[at.index(header)] = byte;
        }
        checkpoint.write(&name, &file);
        if let Err(message) = open_and_answer(checkpoint.path()) {
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }

    #[test]
    fn mutated_header_values_never_panic(
        is_gemma4 in any::<bool>(),
        shard in any::<Index>(),
        path in prop::collection::vec(any::<Index>(), 3),
        value in prop::option::weighted(0.9, values()),
    ) {
        let checkpoint = checkpoint(is_gemma4);
        let name = checkpoint.shards()[shard.index(checkpoint.shards().len())].clone();
        checkpoint.edit_header(&name, |header| mutate(header, &path, value));
        if let Err(message) = open_and_answer(checkpoint.path()) {
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }

    #[test]
    fn mutated_packs_never_panic(
        is_gemma4 in any::<bool>(),
        shard in any::<Index>(),
        path in prop::collection::vec(any::<Index>(), 3),
        value in prop::option::weighted(0.9, values()),
        words in prop::option::of((0..6usize, any::<Index>(), any::<Index>())),
    ) {
        let checkpoint = pack(is_gemma4);
        let name = checkpoint.shards()[shard.index(checkpoint.shards().len())].clone();
        checkpoint.edit_header_in_place(&name, |header| match words {
            None => mutate(header, &path, value),
            // Another block format, or other sizes: those of another tensor fit the bytes now and then.
            Some((format, rows, cols)) => {
                const FORMATS: [&str; 6] =
                    ["q4_tiled", "q8_tiled", "q4_rows", "q8_rows", "q4_columns", "q8_columns"];
                const SIZES: [usize; 9] = [0, 1, 16, 32, 64, 128, 256, 1 << 33, usize::MAX];
                let Some(metadata) = header["__metadata__"].as_object_mut() else { return };
                let at = path[0].index(metadata.len());
                *metadata.values_mut().nth(at).unwrap() =
                    format!("{} {} {}", FORMATS[format], SIZES[rows.index(9)], SIZES[cols.index(9)]).into();
            }
        });
        if let Err(message) = open_and_answer(checkpoint.path()) {
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }
}
