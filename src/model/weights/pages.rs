//! Which pages of mapped weights are in memory: brought in, locked, counted, given back.
#![allow(
    unsafe_code,
    reason = "advice about memory maps, and counting their pages"
)]

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use memmap2::{Advice, Mmap, UncheckedAdvice};
use rustix::fs::{Access, Advice as FileAdvice, access, fadvise};

use super::{Mapped, Stretch, WeightsError};

/// Pages that are brought in between two looks at whether they are still wanted.
const POPULATE_BYTES: usize = 4 << 20;
/// Read ahead by one advice: of more, the kernel follows no more than its readahead window, 128 KiB by default.
const ADVISED_BYTES: usize = 128 << 10;

/// Bytes that the kernel's /proc/PID/pagemap has for each page.
const PAGEMAP_ENTRY: usize = 8;

impl Mapped {
    /// Whether every file is still as long as it was when it was mapped: reading behind the end of a file that was cut off
    /// kills the process (SIGBUS).
    ///
    /// # Errors
    /// A file was truncated in place.
    pub fn check_length(&self) -> Result<(), WeightsError> {
        for run in &self.runs {
            let needed_bytes = run.start + run.map.len() as u64;
            let metadata = run.file.metadata().map_err(|source| WeightsError::Io {
                action: "read",
                path: run.path.clone(),
                source,
            })?;
            if metadata.len() < needed_bytes {
                return Err(WeightsError::Truncated {
                    path: run.path.clone(),
                    bytes: metadata.len(),
                    needed_bytes,
                });
            }
        }
        Ok(())
    }

    /// Reads the pages of everything that is mapped but `without`, until `cancelled` says so; whether it came to the end.
    pub(super) fn populate(&self, without: &[Stretch], cancelled: &dyn Fn() -> bool) -> bool {
        for (index, run) in self.runs.iter().enumerate() {
            let unwanted = || without.iter().filter(|unwanted| unwanted.run == index);
            let mut at = 0;
            while at < run.map.len() {
                if cancelled() {
                    return false;
                }
                if let Some(inside) = unwanted().find(|unwanted| unwanted.range.contains(&at)) {
                    at = inside.range.end;
                    continue;
                }
                let starts = unwanted().map(|unwanted| unwanted.range.start);
                let next = starts.filter(|&start| start > at).min();
                let end = run.map.len().min(at + POPULATE_BYTES);
                let end = next.map_or(end, |next| next.min(end));
                populate(&run.map, at..end);
                at = end;
            }
        }
        true
    }

    /// Keeps every page that is read from now on in memory, until [`Mapped::evict`].
    ///
    /// # Errors
    /// The limit on locked memory is too low.
    pub fn lock(&self) -> Result<(), WeightsError> {
        for run in &self.runs {
            // SAFETY: the range is that of a live mapping; locking changes no byte. On fault: locking all of it now would
            // read all of it now.
            let result = unsafe {
                libc::mlock2(
                    run.map.as_ptr().cast(),
                    run.map.len(),
                    libc::MLOCK_ONFAULT as _,
                )
            };
            if result != 0 {
                return Err(WeightsError::Lock {
                    path: run.path.clone(),
                    bytes: self.mapped_bytes(),
                    source: std::io::Error::last_os_error(),
                });
            }
        }
        Ok(())
    }

    /// Gives the pages back, out of this process and out of the page cache. The mapping stays: what is read again comes
    /// from the file again.
    pub fn evict(&self) {
        for run in &self.runs {
            // Locked pages would stay. Nothing can be done where it fails, nor is anything wrong then.
            run.map.unlock().ok();
            // SAFETY: the mapping is read-only and of a file, so that pages dropped are read again with the same bytes.
            unsafe { run.map.unchecked_advise(UncheckedAdvice::DontNeed) }.ok();
            forget_all(&run.file, run.start, run.map.len() as u64);
        }
    }

    /// Leaves the pages in the page cache when this is dropped.
    pub fn keep_cached(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Mapped bytes.
    pub fn mapped_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.map.len() as u64).sum()
    }

    /// Bytes of the mapping that this process has in memory now.
    pub fn resident_bytes(&self) -> u64 {
        self.runs.iter().map(|run| resident(&run.map)).sum()
    }
}

impl Mapped {
    /// Bytes that the page cache has now, whoever read them. `None` where the kernel does not tell this user: it tells the owner of a
    /// file and who may write to it (mincore(2)).
    pub fn cached_bytes(&self) -> Option<u64> {
        self.runs
            .iter()
            .map(|run| is_told_of(&run.file, &run.path).then(|| cached(&run.map)))
            .sum()
    }
}

fn is_told_of(file: &File, path: &Path) -> bool {
    let user = std::fs::metadata("/proc/self").map(|process| process.uid());
    let owner = file.metadata().map(|file| file.uid());
    match (user, owner) {
        (Ok(user), Ok(owner)) if user == 0 || user == owner => true,
        _ => access(path, Access::WRITE_OK).is_ok(),
    }
}

/// Bytes of the mapping whose pages are in the page cache.
fn cached(map: &Mmap) -> u64 {
    let page = page_bytes();
    let skew = map.as_ptr() as usize % page;
    let length = map.len() + skew;
    let mut pages = vec![0u8; length.div_ceil(page)];
    // SAFETY: the address is rounded down to the page that the mapping starts in; the vector has one byte a page.
    let result = unsafe {
        libc::mincore(
            map.as_ptr().sub(skew).cast_mut().cast(),
            length,
            pages.as_mut_ptr(),
        )
    };
    if result != 0 {
        return 0;
    }
    pages.iter().filter(|&&page| page & 1 == 1).count() as u64 * page as u64
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let stays = *self.stays.get_mut();
        for run in self.runs.drain(..) {
            let length = run.map.len() as u64;
            // Pages that are mapped cannot leave the page cache.
            drop(run.map);
            if !stays {
                forget_all(&run.file, run.start, length);
            }
        }
    }
}

/// Reads a range ahead in large pieces, then maps its pages.
fn populate(map: &Mmap, range: Range<usize>) {
    for at in range.clone().step_by(ADVISED_BYTES) {
        // Advice only: what it does not bring in comes when it is read.
        map.advise_range(Advice::WillNeed, at, ADVISED_BYTES.min(range.end - at))
            .ok();
    }
    if map
        .advise_range(Advice::PopulateRead, range.start, range.len())
        .is_err()
    {
        // Before Linux 5.14.
        for at in range.step_by(page_bytes()) {
            std::hint::black_box(map[at]);
        }
    }
}

/// Tells the kernel that a range of a file will be read soon; it begins at once and does not wait.
pub(super) fn will_need(file: &File, start: u64, bytes: u64) {
    advise(file, start, bytes, FileAdvice::WillNeed);
}

/// Memory that the kernel would give to whoever asks, without swapping.
pub(super) fn available_bytes() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Tells the kernel that rows are read here and there, so that it does not read ahead.
pub(super) fn random(file: &File, start: u64, bytes: u64) {
    advise(file, start, bytes, FileAdvice::Random);
}

/// Drops the pages of a few rows from the page cache, those at the ends included.
pub(super) fn forget(file: &File, start: u64, bytes: u64) {
    forget_rounded(file, start, bytes, page_bytes() as u64);
}

/// Drops a long range from the page cache. The kernel keeps pages in folios of up to 2 MiB and a folio that the range covers in
/// part only; neighbours that are in use are mapped, so that they stay anyhow.
pub(super) fn forget_all(file: &File, start: u64, bytes: u64) {
    forget_rounded(file, start, bytes, 2 << 20);
}

fn forget_rounded(file: &File, start: u64, bytes: u64, unit: u64) {
    let first = start - start % unit;
    let end = start
        .saturating_add(bytes)
        .div_ceil(unit)
        .saturating_mul(unit);
    advise(file, first, end - first, FileAdvice::DontNeed);
}

fn advise(file: &File, start: u64, bytes: u64, advice: FileAdvice) {
    // A length of 0 would mean the rest of the file.
    if let Some(bytes) = NonZeroU64::new(bytes) {
        // Advice only: where the kernel refuses it, reading works as before.
        fadvise(file, start, Some(bytes), advice).ok();
    }
}

fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Bytes of the mapping whose pages this process has. Not `mincore`, which tells the service nothing: models are the administrator's.
fn resident(map: &Mmap) -> u64 {
    let page = page_bytes();
    let address = map.as_ptr() as usize;
    let mut entries = [0; 4096 * PAGEMAP_ENTRY];
    let mut at = address / page;
    let end = (address + map.len()).div_ceil(page);
    let mut pages = 0;
    let Ok(pagemap) = File::open("/proc/self/pagemap") else {
        return 0;
    };
    while at < end {
        let wanted = entries.len().min((end - at) * PAGEMAP_ENTRY);
        let offset = (at * PAGEMAP_ENTRY) as u64;
        if pagemap
            .read_exact_at(&mut entries[..wanted], offset)
            .is_err()
        {
            break;
        }
        let (read, _) = entries[..wanted].as_chunks::<PAGEMAP_ENTRY>();
        let present = |entry: &&[u8; PAGEMAP_ENTRY]| u64::from_ne_bytes(**entry) >> 63 == 1;
        pages += read.iter().filter(present).count() as u64;
        at += read.len();
    }
    pages * page as u64
}
