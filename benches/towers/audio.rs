//! 30 s of audio, in pieces as a microphone gives them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gemmad::media::SAMPLE_RATE_HZ;
use gemmad::model::gemma3n::audio::{AudioTower, EncodeOptions};
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::AudioStream;
use kernels::{Isa, Pool};

use crate::{HEAP, status_mib, synthetic};

/// Width of the released text models.
pub(crate) const TEXT_HIDDEN_SIZE: usize = 2048;
const SECONDS: usize = 30;

pub(crate) fn measure(dir: &Path, threads: usize) {
    let pool = Pool::new(Isa::best(), threads);
    let config = synthetic::config();
    let before_mib = status_mib("RssAnon");
    let start = Instant::now();
    let checkpoint = Checkpoint::open(dir).unwrap();
    let tower = AudioTower::load(
        &checkpoint,
        config.audio.as_ref().unwrap(),
        TEXT_HIDDEN_SIZE,
        &pool,
    )
    .unwrap();
    let tower = Arc::new(tower);
    println!(
        "load: {:.2} s, {} threads, {}",
        start.elapsed().as_secs_f64(),
        pool.threads(),
        pool.isa()
    );
    let rate = SAMPLE_RATE_HZ as usize;
    let samples: Vec<f32> = (0..SECONDS * rate)
        .map(|n| 0.1 * (n as f32 * n as f32 * 1e-6).sin())
        .collect();
    let default = EncodeOptions::default().batch_frames;
    for batch_frames in [default, 2 * default, 1000] {
        let (start, busy) = (Instant::now(), busy_seconds());
        let ((tokens, heard), heap_bytes) =
            HEAP.peak_of(|| encode(&tower, &pool, &samples, batch_frames, start));
        let (total, busy) = (start.elapsed().as_secs_f64(), busy_seconds() - busy);
        assert!(tokens.iter().all(|x| x.is_finite()));
        let seconds = SECONDS as f64;
        println!(
            "batches of {batch_frames:4} frames: {total:6.2} s for {SECONDS} s of audio, real-time factor {:.3} ({:.3} by processor time over {threads} threads), {:.3} s after the last sample, heap {:.1} MiB",
            total / seconds,
            busy / seconds / threads as f64,
            total - heard,
            heap_bytes as f64 / f64::from(1 << 20),
        );
        // Larger batches need more; what counts is the default.
        if batch_frames == default {
            println!(
                "memory: peak {:.0} MiB, of which weights mapped from the file {:.0} MiB; own memory {:.1} MiB ({before_mib:.1} before the tower)",
                status_mib("VmHWM"),
                tower.weights().resident_bytes() as f64 / f64::from(1 << 20),
                status_mib("RssAnon"),
            );
        }
    }
}

/// The soft tokens of `samples`, which come 20 ms at a time, and the seconds from `start` until the last of them was taken.
fn encode(
    tower: &Arc<AudioTower>,
    pool: &Pool,
    samples: &[f32],
    batch_frames: usize,
    start: Instant,
) -> (Vec<f32>, f64) {
    let mut stream = AudioStream::new(tower.clone(), batch_frames);
    let mut tokens = Vec::new();
    for piece in samples.chunks(SAMPLE_RATE_HZ as usize / 50) {
        stream.push(pool, piece, &mut tokens).unwrap();
    }
    let heard = start.elapsed().as_secs_f64();
    stream.finish(pool, 0, &mut tokens).unwrap();
    (tokens, heard)
}

/// Processor time of this process so far, all threads: what a shared machine leaves comparable.
fn busy_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in brackets, may hold anything; after it, user and system time are the 12th and 13th, in hundredths.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
