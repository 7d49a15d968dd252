//! The pool: each task once, on any number of threads, whatever the tasks do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::{Isa, Pool};

#[test]
fn each_task_once() {
    for threads in 1..=8 {
        let pool = Pool::new(Isa::scalar(), threads);
        assert_eq!(pool.threads(), threads);
        for n_tasks in [0, 1, 2, 3, 7, 64, 1000] {
            let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n_tasks, &|task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }
}

/// Many short runs, with pauses that let the workers fall asleep now and then: what is written is there when `run` returns.
#[test]
fn results_are_visible_after_the_run() {
    for threads in [2, 3, 8] {
        let pool = Pool::new(Isa::scalar(), threads);
        let mut out = vec![0usize; 100];
        for round in 0..2000 {
            pool.for_each_chunk_mut(&mut out, 7, &|chunk, slice| {
                for (i, x) in slice.iter_mut().enumerate() {
                    *x = round + chunk * 7 + i;
                }
            });
            assert!(out.iter().enumerate().all(|(i, &x)| x == round + i));
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}

#[test]
fn rows_and_tiles_cover_the_output() {
    let pool = Pool::new(Isa::scalar(), 3);
    for rows in [0, 1, 2, 23, 24, 25, 100] {
        let mut out = vec![0; rows * 5];
        pool.for_each_row_mut(&mut out, 5, &|row, slice| {
            assert_eq!(slice.len(), 5);
            slice.iter_mut().for_each(|x| *x += row + 1);
        });
        assert!(out.iter().enumerate().all(|(i, &x)| x == i / 5 + 1));
    }
    for (tile_rows, tile_cols) in [(1, 1), (3, 4), (7, 11), (100, 100)] {
        let mut out = vec![0; 10 * 13];
        pool.for_each_tile_mut(&mut out, 13, tile_rows, tile_cols, &|row, col, tile| {
            for r in 0..tile.rows() {
                for (c, x) in tile.row_mut(r).iter_mut().enumerate() {
                    *x += (row + r) * 13 + col + c + 1;
                }
            }
        });
        assert!(out.iter().enumerate().all(|(i, &x)| x == i + 1));
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    for threads in 1..=4 {
        let pool = Pool::new(Isa::scalar(), threads);
        for bad in [0, 17, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|task| assert_ne!(task, bad, "task {bad} fails"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("task {bad} fails")), "{message}");
            let done = AtomicUsize::new(0);
            pool.run(100, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 100);
        }
    }
}

#[test]
fn a_run_within_a_task_is_done_by_that_thread() {
    let pool = Pool::new(Isa::scalar(), 4);
    let done = AtomicUsize::new(0);
    pool.run(10, &|_| {
        let me = std::thread::current().id();
        pool.run(10, &|_| {
            assert_eq!(std::thread::current().id(), me);
            done.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(done.into_inner(), 100);
}

#[test]
fn two_callers_take_turns() {
    let pool = Arc::new(Pool::new(Isa::scalar(), 3));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                for _ in 0..300 {
                    let done = AtomicUsize::new(0);
                    pool.run(20, &|_| {
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                    assert_eq!(done.into_inner(), 20);
                }
            })
        })
        .collect();
    callers
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
}
