//! One picture at each resolution that the model card lists.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gemmad::features::image::RgbImage;
use gemmad::media::Resampling;
use gemmad::model::gemma3n::vision::VisionTower;
use gemmad::model::weights::Checkpoint;
use kernels::{Isa, Pool};

use crate::audio::TEXT_HIDDEN_SIZE;
use crate::{HEAP, status_mib, synthetic};

const MIB: f64 = (1 << 20) as f64;

pub(crate) fn measure(dir: &Path, threads: usize) {
    let pool = Pool::new(Isa::best(), threads);
    let config = synthetic::config();
    let start = Instant::now();
    let checkpoint = Checkpoint::open(dir).unwrap();
    let tower = VisionTower::load(
        &checkpoint,
        config.vision.as_ref().unwrap(),
        TEXT_HIDDEN_SIZE,
    )
    .unwrap();
    println!(
        "load: {:.2} s, {} threads, {}",
        start.elapsed().as_secs_f64(),
        pool.threads(),
        pool.isa()
    );
    let (width_px, height_px) = (1280, 960);
    let pixels = (0..width_px * height_px * 3)
        .map(|i| (i * i / 977) as u8)
        .collect();
    let photo = RgbImage {
        width_px,
        height_px,
        pixels,
    };

    // The first run reads the weights from the file; in the others they are in memory.
    for resolution_px in [256, 256, 512, 768, 768] {
        let before_mib = status_mib("RssAnon");
        let start = Instant::now();
        let square = photo.resized(resolution_px, resolution_px, Resampling::Bilinear);
        let resized = start.elapsed().as_secs_f64();
        let done = AtomicBool::new(false);
        let ((tokens, peak_bytes), peak_mib) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut peak_mib = 0.0f64;
                while !done.load(Relaxed) {
                    peak_mib = peak_mib.max(status_mib("RssAnon"));
                    std::thread::sleep(Duration::from_millis(5));
                }
                peak_mib
            });
            let result =
                HEAP.peak_of(|| tower.encode(&pool, &square.pixels, resolution_px).unwrap());
            done.store(true, Relaxed);
            (result, watcher.join().unwrap())
        });
        println!(
            "{resolution_px} x {resolution_px}: {:.2} s ({:.3} s of them to resize); activations {:.1} MB at the peak, own memory of the process {:.1} MB more than before",
            start.elapsed().as_secs_f64(),
            resized,
            peak_bytes as f64 / 1e6,
            (peak_mib - before_mib) * MIB / 1e6,
        );
        assert!(tokens.iter().all(|x| x.is_finite()));
    }
    println!(
        "memory: peak {:.0} MiB, of which weights mapped from the file {:.0} MiB",
        status_mib("VmHWM"),
        tower.weights().resident_bytes() as f64 / MIB,
    );
}
