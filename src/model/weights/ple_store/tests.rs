//! Which reads a disk sees, and that what comes back is the table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use kernels::Pool;

use super::super::pack::Blocks;
use super::*;
use crate::model::decoder::kv_cache::{KvCache, KvType};
use crate::model::decoder::{Slice, TextError, Tokens, no_probe};
use crate::model::gemma3n::config::Config;
use crate::model::gemma3n::text::{TextModel, Workspace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Asked(u64),
    Read(u64),
    Forgotten(u64),
}

/// A disk that notes what it is asked for, by row, and that can fail.
#[derive(Debug)]
struct Disk {
    file: File,
    start: u64,
    row_bytes: u64,
    seen: Arc<Mutex<Vec<Event>>>,
    broken: Arc<Mutex<bool>>,
}

impl Disk {
    fn note(&self, at: u64, event: fn(u64) -> Event) {
        let row = (at - self.start) / self.row_bytes;
        self.seen.lock().unwrap().push(event(row));
    }
}

impl RowSource for Disk {
    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.note(at, Event::Read);
        if *self.broken.lock().unwrap() {
            out.fill(0xff);
            return Err(std::io::Error::other("the disk is gone"));
        }
        self.file.read_exact_at(out, at)
    }

    fn will_need(&self, at: u64, _: u64) {
        self.note(at, Event::Asked);
    }

    fn forget(&self, at: u64, _: u64) {
        self.note(at, Event::Forgotten);
    }

    fn forget_all(&self, _: u64, _: u64) {}
}

struct Bench {
    store: PleStore,
    config: Config,
    checkpoint: Checkpoint,
    seen: Arc<Mutex<Vec<Event>>>,
    broken: Arc<Mutex<bool>>,
    /// The table, number by number.
    table: Vec<f32>,
}

fn bench(capacity: usize) -> Bench {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a");
    let config = Config::load(&dir).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let options = PleOptions::default();
    let mut store = PleStore::open(
        &checkpoint,
        config.text.ple_shape(),
        &options,
        &mut |_, _| {},
    )
    .unwrap();
    let (seen, broken) = (Arc::default(), Arc::default());
    let file = File::open(&store.path).unwrap();
    let mut bytes = vec![0; store.rows * store.row_bytes];
    file.read_exact_at(&mut bytes, store.start).unwrap();
    let table = bytes.as_chunks::<2>().0;
    let scale = store.scale;
    let table = table
        .iter()
        .map(|&b| half::bf16::from_le_bytes(b).to_f32() * scale)
        .collect();
    store.source = Box::new(Disk {
        file,
        start: store.start,
        row_bytes: store.row_bytes as u64,
        seen: Arc::clone(&seen),
        broken: Arc::clone(&broken),
    });
    let bytes = capacity * store.row_bytes.next_multiple_of(8);
    store.state.get_mut().unwrap().cache = RowCache::new(store.rows, store.row_bytes, bytes);
    assert_eq!(store.capacity(), capacity);
    Bench {
        store,
        config,
        checkpoint,
        seen,
        broken,
        table,
    }
}

/// Ids all over the vocabulary: a linear congruential generator (Knuth).
fn ids(n: usize, below: u32) -> Vec<u32> {
    let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let random = std::iter::successors(Some(1u32), next);
    random.map(|x| (x >> 8) % below).take(n).collect()
}

#[test]
fn rows_are_those_of_the_table_however_small_the_cache() {
    for capacity in [1, 2, 7, 300] {
        let bench = bench(capacity);
        let width = bench.store.width();
        // Often the same few, sometimes any, so that rows are held, pushed out and read again.
        let any = ids(900, bench.store.rows as u32);
        let wanted: Vec<u32> = any
            .iter()
            .map(|id| if id % 3 == 0 { *id } else { id % 11 })
            .collect();
        for wanted in wanted.chunks(13) {
            let mut out = vec![0.0; wanted.len() * width];
            let (rows, layers) = (wanted.iter().copied(), bench.config.text.num_hidden_layers);
            bench
                .store
                .read(kernels::Isa::best(), rows, layers, &mut out)
                .unwrap();
            for (&id, out) in wanted.iter().zip(out.chunks_exact(width)) {
                let row = id as usize;
                assert_eq!(out, &bench.table[row * width..][..width], "row {row}");
            }
            assert!(bench.store.resident_bytes() <= (capacity * bench.store.row_bytes) as u64);
        }
        let RowCounts { used, read, .. } = bench.store.counts();
        assert_eq!(used, 900);
        let seen = bench.seen.lock().unwrap();
        let reads = seen.iter().filter(|event| matches!(event, Event::Read(_)));
        let forgotten = seen
            .iter()
            .filter(|event| matches!(event, Event::Forgotten(_)));
        assert_eq!(reads.count() as u64, read);
        assert_eq!(
            forgotten.count() as u64,
            read,
            "its pages leave the page cache"
        );
        assert!(
            capacity < 300 || read < 500,
            "{read} reads: nothing was held"
        );
    }
}

#[test]
fn of_a_row_no_more_is_read_than_asked_for_and_nothing_twice() {
    let bench = bench(3);
    let (store, width) = (&bench.store, bench.store.width());
    let (all, isa) = (bench.config.text.num_hidden_layers, kernels::Isa::best());
    let part = width / all;
    let mut out = vec![0.0; width];
    let mut bytes = 0;
    // (row, layers, those of them that are read); rows 6 to 10 push 5 out.
    for (row, layers, missing) in [
        (5, 3, 3),
        (5, 2, 0),
        (5, 7, 4),
        (5, all, all - 7),
        (5, all, 0),
        (5, 0, 0),
        (6, 1, 1),
        (7, all, all),
        (8, 4, 4),
        (9, 4, 4),
        (10, 1, 1),
        (5, 2, 2),
    ] {
        out.fill(f32::NAN);
        store
            .read(isa, std::iter::once(row), layers, &mut out)
            .unwrap();
        let want = &bench.table[row as usize * width..][..layers * part];
        assert_eq!(&out[..layers * part], want, "row {row}, {layers} layers");
        bytes += (missing * part * 2) as u64;
        assert_eq!(store.counts().bytes, bytes, "row {row}, {layers} layers");
    }
}

#[test]
fn a_row_in_constant_use_is_read_once() {
    let bench = bench(8);
    let mut out = vec![0.0; 2 * bench.store.width()];
    for other in 100..400 {
        bench
            .store
            .read(
                kernels::Isa::best(),
                [5, other].into_iter(),
                bench.config.text.num_hidden_layers,
                &mut out,
            )
            .unwrap();
    }
    let reads = bench
        .seen
        .lock()
        .unwrap()
        .iter()
        .filter(|&&event| event == Event::Read(5))
        .count();
    assert_eq!(reads, 1);
}

#[test]
fn a_prompt_is_asked_for_at_once_and_a_token_waits_for_one_read() {
    let Bench {
        store,
        config,
        checkpoint,
        seen,
        ..
    } = bench(64);
    let text = TextModel::with_ple(&checkpoint, &config.text, store).unwrap();
    let pool = Pool::new(kernels::Isa::best(), 1);
    let chunk = 16;
    let mut cache = KvCache::new(&config.text.layers(), KvType::F32, 512, chunk);
    let mut work = Workspace::new(&config.text, chunk);
    let slice = Slice::full(&config.text.layers());
    let prompt = ids(48, text.text_vocab_size() as u32);
    text.extend(
        &pool,
        &mut cache,
        &mut work,
        Tokens::new(&prompt, &slice),
        &mut no_probe,
    )
    .unwrap();
    let events = std::mem::take(&mut *seen.lock().unwrap());
    let asked: Vec<Event> = prompt.iter().map(|&id| Event::Asked(id.into())).collect();
    assert_eq!(
        events[..48],
        asked,
        "all of the prompt before its first row is read"
    );
    let reads = events
        .iter()
        .filter(|event| matches!(event, Event::Read(_)))
        .count();
    let mut distinct = prompt.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(reads, distinct.len());

    // A prompt longer than the cache: never more on their way than the cache has room for.
    let prompt = ids(200, text.text_vocab_size() as u32);
    text.extend(
        &pool,
        &mut cache,
        &mut work,
        Tokens::new(&prompt, &slice),
        &mut no_probe,
    )
    .unwrap();
    let mut on_their_way = std::collections::BTreeSet::new();
    for event in std::mem::take(&mut *seen.lock().unwrap()) {
        match event {
            Event::Asked(row) => on_their_way.insert(row),
            Event::Read(row) | Event::Forgotten(row) => on_their_way.remove(&row),
        };
        assert!(on_their_way.len() <= 64, "{}", on_their_way.len());
    }

    for &id in &ids(100, text.text_vocab_size() as u32) {
        for expected in [1, 0] {
            text.extend(
                &pool,
                &mut cache,
                &mut work,
                Tokens::new(&[id], &slice),
                &mut no_probe,
            )
            .unwrap();
            let events = std::mem::take(&mut *seen.lock().unwrap());
            let reads = events
                .iter()
                .filter(|event| matches!(event, Event::Read(_)))
                .count();
            assert!(reads <= expected, "{events:?}");
            assert!(
                events.iter().all(|&event| event == Event::Read(id.into())
                    || event == Event::Forgotten(id.into()))
            );
        }
    }
}

#[test]
fn a_disk_that_fails_is_told_and_leaves_no_wrong_row() {
    let Bench {
        store,
        config,
        checkpoint,
        broken,
        table,
        ..
    } = bench(2);
    let path = store.path().display().to_string();
    let width = store.width();
    let text = TextModel::with_ple(&checkpoint, &config.text, store).unwrap();
    let pool = Pool::new(kernels::Isa::best(), 1);
    let mut cache = KvCache::new(&config.text.layers(), KvType::F32, 64, 8);
    let mut work = Workspace::new(&config.text, 8);
    let slice = Slice::full(&config.text.layers());
    let mut extend = |ids: &[u32]| {
        text.extend(
            &pool,
            &mut cache,
            &mut work,
            Tokens::new(ids, &slice),
            &mut no_probe,
        )
    };
    extend(&[7, 8, 9]).unwrap();
    *broken.lock().unwrap() = true;
    let error = extend(&[10]).unwrap_err();
    assert!(matches!(error, TextError::Rows(_)));
    let told = error.to_string();
    assert!(
        told.contains(&path) && told.contains("the disk is gone"),
        "{told}"
    );
    *broken.lock().unwrap() = false;
    extend(&[10]).unwrap();
    let mut out = vec![0.0; 4 * width];
    let layers = config.text.num_hidden_layers;
    text.ple()
        .read(pool.isa(), 7..11, layers, &mut out)
        .unwrap();
    assert_eq!(out, table[7 * width..11 * width]);
}

/// In a pack the scales of a row lie behind its numbers: they are read with any part of them, and so is what lies between, if that is no
/// whole page.
#[test]
fn of_a_row_in_blocks_the_front_and_the_scales_are_read() {
    use kernels::quant::{Format, quantize};
    let (rows, layers, width) = (3, 40, 256);
    let cols = layers * width;
    let pool = Pool::new(kernels::Isa::best(), 1);
    let source: Vec<f32> = ids(rows * cols, 1000)
        .iter()
        .map(|&x| x as f32 - 500.0)
        .collect();
    for (format, group_bytes, whole_from) in [(Format::Q8Rows, 32, 24), (Format::Q4Rows, 16, 8)] {
        let mut bytes = vec![0; format.matrix_bytes(rows, cols).unwrap()];
        quantize(&pool, format, &source, rows, cols, &mut bytes).unwrap();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &bytes).unwrap();
        let row_bytes = bytes.len() / rows;
        let blocks = Blocks {
            format,
            columns: false,
            rows,
            cols,
        };
        let stored = StoredRows {
            file: path.reopen().unwrap(),
            path: path.path().to_owned(),
            start: 0,
            row_bytes,
            rows,
            cols,
            kind: Kind::Quantized(blocks),
        };
        let shape = PleShape {
            rows,
            layers,
            width,
        };
        let store = PleStore::new(stored, shape, &PleOptions::default());
        let read = |row: u32, layers: usize| {
            let mut out = vec![0.0; cols];
            let before = store.counts().bytes;
            store
                .read(pool.isa(), std::iter::once(row), layers, &mut out)
                .unwrap();
            out.truncate(layers * width);
            (out, (store.counts().bytes - before) as usize)
        };
        let (want, all) = read(0, layers);
        assert_eq!(all, row_bytes);
        store.evict();
        // Numbers end where fewer than 4096 bytes of them are left out.
        let numbers = |layers: usize| match layers > whole_from {
            true => cols / 32 * group_bytes,
            false => layers * width / 32 * group_bytes,
        };
        let scales = row_bytes - numbers(layers);
        let mut held = 0;
        for layers in [1, whole_from, whole_from + 1, layers] {
            let (got, bytes) = read(0, layers);
            assert_eq!(got, want[..layers * width], "{format:?}, {layers} layers");
            let first = if held == 0 { scales } else { 0 };
            assert_eq!(
                bytes,
                numbers(layers) - held + first,
                "{format:?}, {layers}"
            );
            held = numbers(layers);
        }
    }
}
