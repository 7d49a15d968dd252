#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kernels::Isa;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

fn bytes_of(gguf: &Gguf, name: &str) -> Vec<u8> {
    let info = &gguf.header.tensors[name];
    let mut bytes = vec![0; info.block_type.bytes(&info.shape).unwrap() as usize];
    let file = &gguf.parts[0].file;
    file.read_exact_at(&mut bytes, info.start).unwrap();
    bytes
}

#[test]
fn every_type_gives_the_values_of_the_gguf_package() {
    let gguf = Gguf::open(&fixture("blocks.gguf")).unwrap();
    let mut types = 0;
    for (name, info) in &gguf.header.tensors {
        let Some(expected) = gguf.header.tensors.get(&format!("{name}.expected")) else {
            continue;
        };
        assert_eq!(expected.shape, info.shape);
        let (len, size) = (info.block_type.block_len(), info.block_type.block_bytes());
        let bytes = bytes_of(&gguf, name);
        let want: Vec<f32> = bytes_of(&gguf, &format!("{name}.expected"))
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect();
        let mut got = vec![0.0; want.len()];
        for (block, out) in bytes.chunks_exact(size).zip(got.chunks_exact_mut(len)) {
            info.block_type.dequantize(block, out);
        }
        // The same products in the same order: not a bit may differ.
        assert_eq!(got, want, "{name}");
        types += 1;
    }
    assert_eq!(types, 7);
}

/// Copies of a file with some bytes changed, in turn.
fn spoiled(name: &str, spoil: impl Fn(u64, &mut Vec<u8>), times: u64) {
    let sound = std::fs::read(fixture(name)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.gguf");
    for time in 0..times {
        let mut bytes = sound.clone();
        spoil(time, &mut bytes);
        std::fs::write(&path, bytes).unwrap();
        // Whatever comes of it, it is no panic and no large allocation.
        if let Ok(mut gguf) = Gguf::open(&path) {
            drop(gguf.companions(None));
        }
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let sound = std::fs::read(fixture("blocks.gguf")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.gguf");
    for end in (0..sound.len() - 1).step_by(101) {
        std::fs::write(&path, &sound[..end]).unwrap();
        let error = Gguf::open(&path).unwrap_err().to_string();
        assert!(error.contains("a.gguf"), "{end}: {error}");
    }
}

#[test]
fn no_flipped_byte_of_a_header_panics() {
    // The header of blocks.gguf has about 800 bytes; each is set to values that hurt counts, types and lengths.
    let hurtful = [0x00, 0x01, 0x7f, 0x80, 0xff];
    spoiled(
        "blocks.gguf",
        |time, bytes| bytes[time as usize / 5] = hurtful[time as usize % 5],
        4000,
    );
    spoiled(
        "tiny-a.gguf",
        |time, bytes| {
            let at = time as usize * 523 + 3;
            bytes[at] ^= 1 << (time % 8);
        },
        120,
    );
}

#[test]
fn claims_are_refused_before_they_cost_memory() {
    let claim = |n_tensors: u64, n_keys: u64, rest: &[u8]| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.gguf");
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(n_tensors.to_le_bytes());
        bytes.extend(n_keys.to_le_bytes());
        bytes.extend(rest);
        bytes.resize(bytes.len() + 64, 0);
        std::fs::write(&path, bytes).unwrap();
        Gguf::open(&path).unwrap_err().to_string()
    };
    assert!(claim(u64::MAX, 0, &[]).contains("tensors; 65536 are allowed"));
    assert!(claim(0, u64::MAX, &[]).contains("keys; 16384 are allowed"));
    assert!(claim(0, 1, &u64::MAX.to_le_bytes()).contains("bytes of one text"));
    let key_of = |kind: u32, item_kind: u32, n: u64| {
        let mut rest = 1u64.to_le_bytes().to_vec();
        rest.push(b'k');
        rest.extend(kind.to_le_bytes());
        rest.extend(item_kind.to_le_bytes());
        rest.extend(n.to_le_bytes());
        rest
    };
    assert!(claim(0, 1, &key_of(9, 4, u64::MAX)).contains("items in k"));
    assert!(claim(0, 1, &key_of(9, 4, 1 << 20)).contains("truncated"));
    // A list of lists of lists: nothing here calls itself.
    assert!(claim(0, 1, &key_of(9, 9, 5)).contains("unknown type 9"));
    assert!(claim(0, 1, &key_of(77, 0, 0)).contains("unknown type 77"));
}

#[test]
fn a_rectangle_is_read_across_blocks() {
    let mut gguf = Gguf::open(&fixture("tiny-a.gguf")).unwrap();
    let pool = Pool::new(Isa::from_environment().unwrap(), 2);
    let name = "model.language_model.layers.7.mlp.down_proj.weight";
    let mut whole = vec![0.0; 64 * 256];
    gguf.read(&pool, name, 0..64, 0..256, &mut whole).unwrap();
    let mut part = vec![0.0; 10 * 50];
    gguf.read(&pool, name, 5..15, 20..70, &mut part).unwrap();
    for (row, part) in part.chunks_exact(50).enumerate() {
        assert_eq!(part, &whole[(5 + row) * 256 + 20..][..50]);
    }
    assert!(whole.iter().any(|&w| w != 0.0));
}
