//! The rows of a matrix over a few threads.
//!
//! A run is a number of tasks, handed out one by one through an atomic counter, so that a slow core simply takes fewer of
//! them. The calling thread does its share. A worker *joins* a run when it sees it open, and the caller waits only for
//! those that joined: a worker that the scheduler keeps away costs nothing but its share, and an oversubscribed machine
//! slows down in proportion instead of collapsing. Who has nothing to do spins for [`SPIN`], then sleeps.
//!
//! One word tells the state of the run: how many workers are inside, whether it is open, and its number. Everything a
//! worker reads (task, counter) is written before the run opens and not touched again until the last one has left.

mod pieces;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use self::pieces::TASKS_PER_THREAD;
pub use self::pieces::TileMut;
use crate::Isa;
use crate::cores;

/// How long a thread that waits keeps its core: longer than the pause between two kernels, shorter than anybody notices.
const SPIN: Duration = Duration::from_micros(50);

// The state word: workers inside in the low bits, then two flags, then the number of the run.
const INSIDE: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const RUN: u64 = 1 << 18;

thread_local! {
    /// Set while this thread executes tasks: a run started by a task is done by that thread alone.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// A fixed team of threads, the calling one included, that shares out numbered tasks.
pub struct Pool {
    isa: Isa,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Two threads may hold the pool; their runs take turns.
    turn: Mutex<()>,
    weight_bytes: AtomicU64,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    n_tasks: usize,
}

/// Counters that different threads write, kept off each other's cache lines.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    state: Padded<AtomicU64>,
    next: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleep: Mutex<()>,
    work: Condvar,
    done: Condvar,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    spin: Duration,
}

// SAFETY: `job` is written by the caller only while no worker is inside and the run is closed, and read only by threads
// that are inside; the task that it points to is `Sync`, and the caller keeps it alive until all have left.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

impl Pool {
    /// A team of `threads` threads (at least one: the caller), of which `threads - 1` are started now.
    ///
    /// Where the CPUs of the machine differ, all of them, the calling thread included, are bound to the `threads` most
    /// capable CPUs; threads that the caller starts later inherit that. A thread that the system refuses is left out:
    /// [`Pool::threads`] says how many there are.
    pub fn new(isa: Isa, threads: usize) -> Pool {
        let threads = threads.clamp(1, INSIDE as usize);
        if let Some(cpus) = cores::biggest(threads, Path::new(cores::SYSFS)) {
            bind_to(&cpus);
        }
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            next: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job {
                task: &|_| (),
                n_tasks: 0,
            }),
            panic: Mutex::new(None),
            sleep: Mutex::new(()),
            work: Condvar::new(),
            done: Condvar::new(),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            // With more threads than CPUs, spinning takes the core from the one that is waited for.
            spin: if threads > cpus { Duration::ZERO } else { SPIN },
        });
        let workers = (1..threads)
            .filter_map(|n| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernels-{n}"))
                    .spawn(move || shared.work())
                    .ok()
            })
            .collect();
        Pool {
            isa,
            shared,
            workers,
            turn: Mutex::new(()),
            weight_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes of weights that products on this pool have read so far.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes.load(Relaxed)
    }

    /// Counts weights that are read elsewhere than in a product.
    pub fn count_weights(&self, bytes: usize) {
        self.weight_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The instruction set that this pool's kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many threads share a run, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` exactly once for each `i < n_tasks`, on any thread of the team, and returns when all are done.
    ///
    /// Allocates nothing. A task that itself starts a run (on whatever pool) does that run alone, on its own thread.
    ///
    /// # Panics
    /// When a task panics: no further tasks are begun, and the first panic goes on in the caller once all have left.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if n_tasks <= 1 || self.workers.is_empty() || IN_TASK.get() {
            (0..n_tasks).for_each(task);
            return;
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; `close` below returns after the last worker has left the task.
        let task: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(task) };
        // SAFETY: we hold the turn and the last run was closed with nobody inside, so no other thread reads the job.
        unsafe { *shared.job.get() = Job { task, n_tasks } };
        shared.next.0.store(0, Relaxed);
        shared.state.0.fetch_add(RUN | OPEN, SeqCst);
        shared.wake(n_tasks - 1);
        shared.take_tasks();
        shared.close();
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // Tasks' panics are caught and handed to the caller, so a worker ends without one.
            drop(worker.join());
        }
    }
}

impl Shared {
    /// The life of a worker: join a run, do tasks, leave; until the pool is dropped.
    fn work(&self) {
        let mut last = 0;
        while let Some(run) = self.join(last) {
            self.take_tasks();
            self.leave();
            last = run;
        }
    }

    /// Waits for an open run other than `last`, counts this worker in and returns its number; `None` to stop.
    fn join(&self, last: u64) -> Option<u64> {
        let mut found = None;
        if spin(self.spin, || {
            found = self.try_join(last);
            found.is_some()
        }) {
            return found.flatten();
        }
        // Announce the sleep before the last look: either that look sees the new run, or the caller sees the sleeper.
        self.sleepers.fetch_add(1, SeqCst);
        let mut guard = lock(&self.sleep);
        let found = loop {
            match self.try_join(last) {
                Some(found) => break found,
                None => {
                    guard = self
                        .work
                        .wait(guard)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        };
        self.sleepers.fetch_sub(1, SeqCst);
        found
    }

    /// `Some(Some(run))` when counted in, `Some(None)` to stop, `None` when there is nothing new.
    fn try_join(&self, last: u64) -> Option<Option<u64>> {
        let mut state = self.state.0.load(SeqCst);
        loop {
            if state & STOP != 0 {
                return Some(None);
            }
            let run = state / RUN;
            if state & OPEN == 0 || run == last {
                return None;
            }
            match self
                .state
                .0
                .compare_exchange_weak(state, state + 1, SeqCst, SeqCst)
            {
                Ok(_) => return Some(Some(run)),
                Err(now) => state = now,
            }
        }
    }

    /// Does tasks until none is left; only for threads inside the run.
    fn take_tasks(&self) {
        // SAFETY: we are inside an open run (or are its caller), so the job is set and nobody writes it.
        let job = unsafe { *self.job.get() };
        // SAFETY: the caller keeps the task alive until everybody inside has left.
        let task = unsafe { &*job.task };
        IN_TASK.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.0.fetch_add(1, Relaxed);
                if i >= job.n_tasks {
                    break;
                }
                task(i);
            }
        }));
        IN_TASK.set(false);
        if let Err(panic) = result {
            self.next.0.store(job.n_tasks, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    fn leave(&self) {
        let before = self.state.0.fetch_sub(1, SeqCst);
        let last_one_out = before & (INSIDE | OPEN) == 1;
        if last_one_out && self.caller_sleeps.load(SeqCst) {
            drop(lock(&self.sleep));
            self.done.notify_one();
        }
    }

    /// Wakes up to `wanted` sleeping workers.
    fn wake(&self, wanted: usize) {
        let sleepers = self.sleepers.load(SeqCst);
        if sleepers == 0 {
            return;
        }
        // A worker that announced its sleep but does not wait yet holds the lock until it does.
        drop(lock(&self.sleep));
        if wanted >= sleepers {
            self.work.notify_all();
        } else {
            (0..wanted).for_each(|_| self.work.notify_one());
        }
    }

    /// Lets nobody in any more and waits until the last worker has left.
    fn close(&self) {
        self.state.0.fetch_and(!OPEN, SeqCst);
        let empty = || self.state.0.load(SeqCst) & INSIDE == 0;
        if spin(self.spin, empty) {
            return;
        }
        self.caller_sleeps.store(true, SeqCst);
        let mut guard = lock(&self.sleep);
        while !empty() {
            guard = self
                .done
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, SeqCst);
    }
}

/// Looks at `done` until it holds or `limit` has passed; the clock is asked only now and then.
fn spin(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    if done() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            std::hint::spin_loop();
            if done() {
                return true;
            }
        }
        if start.elapsed() >= limit {
            return false;
        }
    }
}

/// None of our locks guards data that a panic could leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds the calling thread, and those it starts from now on, to `cpus`; a refusal leaves the scheduler's choice.
fn bind_to(cpus: &[usize]) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below CPU_SETSIZE, so it lies in the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: 0 is the calling thread, and the set outlives the call. A container may refuse: then nothing is bound.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}
