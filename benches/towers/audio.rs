//! 30 s of audio, in pieces as a microphone gives them.

use std::path::Path;
use std::time::Instant;

use gemmad::features::log_mel::SAMPLE_RATE_HZ;
use gemmad::model::audio::{AudioTower, EncodeOptions};
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::{AudioStream, SoftTokenPadding};
use kernels::{Isa, Pool};

use crate::{status_mib, synthetic};

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
    // The first run reads the weights from the file; in the others they are in memory, as they are while somebody speaks.
    let default = EncodeOptions::default().batch_frames;
    for batch_frames in [default, default, 2 * default, 1000] {
        let mut stream = AudioStream::new(&tower, batch_frames);
        let mut tokens = Vec::new();
        let start = Instant::now();
        for piece in samples.chunks(rate / 50) {
            stream.push(&tower, &pool, piece, &mut tokens).unwrap();
        }
        let heard = start.elapsed().as_secs_f64();
        let count = stream
            .finish(&tower, &pool, SoftTokenPadding::None, 188, &mut tokens)
            .unwrap();
        let total = start.elapsed().as_secs_f64();
        println!(
            "batches of {batch_frames:4} frames: {total:.2} s for {SECONDS} s of audio, real-time factor {:.3}, {:.3} s after the last sample, {count} tokens",
            total / SECONDS as f64,
            total - heard,
        );
        assert!(tokens.iter().all(|x| x.is_finite()));
        // Larger batches need more; what counts is the default.
        if batch_frames == default {
            println!(
                "memory: peak {:.0} MiB, of which weights mapped from the file {:.0} MiB; own memory {:.1} MiB ({:.1} before the tower)",
                status_mib("VmHWM"),
                tower.weights().resident_bytes() as f64 / f64::from(1 << 20),
                status_mib("RssAnon"),
                before_mib,
            );
        }
    }
}
