//! A team of threads beside threads that never rest, on fewer CPUs than both need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use half::bf16;
use kernels::{Isa, Matrix, Pool, matvec::matvec};

use crate::{Bench, random};

/// Products that one figure is the mean of: as many as a decoded token of E2B has, some times over.
const PRODUCTS: usize = 2000;

impl Bench {
    /// Times products with one vector, small enough that handing them out counts, beside 0 to 4 busy threads.
    ///
    /// The last column is what a fair scheduler takes from the team, `(threads + busy) / CPUs`: an elapsed time that grows
    /// like it is a slow machine, one that grows much more is a team that waits for itself.
    pub(crate) fn oversubscribed(&self) {
        if !self.wants("oversubscribed") {
            return;
        }
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (rows, cols) = (2048, 512);
        let w: Vec<bf16> = random(rows * cols)
            .into_iter()
            .map(bf16::from_f32)
            .collect();
        let (w, x) = (Matrix::bf16(&w, rows, cols), random(cols));
        println!(
            "\n{:34} {:>7} {:>5} {:>9} {:>9} {:>11} {:>6} {:>6}",
            "oversubscribed",
            "threads",
            "busy",
            "median us",
            "mean us",
            "slowest us",
            "times",
            "fair"
        );
        for threads in [1, cpus, 2 * cpus] {
            let pool = Pool::new(Isa::best(), threads);
            let mut alone = 0.0;
            for busy in [0, 1, 2, 4] {
                let mut micros = beside(busy, || {
                    let mut y = vec![0.0; rows];
                    let mut one = || {
                        let before = Instant::now();
                        matvec(&pool, w, &x, &mut y);
                        before.elapsed().as_secs_f64() * 1e6
                    };
                    (0..PRODUCTS).map(|_| one()).collect::<Vec<f64>>()
                });
                let mean = micros.iter().sum::<f64>() / PRODUCTS as f64;
                if busy == 0 {
                    alone = mean;
                }
                micros.sort_by(f64::total_cmp);
                println!(
                    "{:34} {threads:>7} {busy:>5} {:>9.1} {mean:>9.1} {:>11.1} {:>6.2} {:>6.2}",
                    format!("matvec bf16 {rows}x{cols}"),
                    micros[PRODUCTS / 2],
                    micros[PRODUCTS - 1],
                    mean / alone,
                    ((threads + busy) as f64 / cpus as f64).max(1.0),
                );
            }
        }
    }
}

/// What `f` gives while `busy` threads compute without a pause.
fn beside<T>(busy: usize, f: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                let mut x = 1u64;
                while !stop.load(Ordering::Relaxed) {
                    x = std::hint::black_box(x.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                }
            });
        }
        let result = f();
        stop.store(true, Ordering::Relaxed);
        result
    })
}
