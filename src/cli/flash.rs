//! How fast a file is read from flash: in one go, as weights are loaded, and here and there, as rows of the per-layer-embedding
//! table are read.
//!
//! Read past the page cache (`O_DIRECT`), so that what was read before does not flatter it. Where the file system cannot do that, the
//! pages are dropped first, and it is told.

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::failure::{Failure, exit};
use crate::model::weights::{Checkpoint, Group};

/// Past the page cache, offsets, lengths and addresses are multiples of this on every disk that is sold.
const ALIGNMENT: usize = 4096;
/// Read together in one go.
const PIECE_BYTES: usize = 1 << 20;
/// Enough to know: bytes, rows, and time for each.
const MAX_BYTES: u64 = 256 << 20;
const MAX_ROWS: u32 = 512;
const MAX_TIME: Duration = Duration::from_secs(3);

/// What was measured.
pub(super) struct Speed {
    /// Megabytes (10^6) per second in one go.
    pub(super) megabytes_s: f64,
    /// Mean time of a row, milliseconds.
    pub(super) row_ms: f64,
    /// Whether the page cache was passed by.
    pub(super) direct: bool,
}

/// Measures how fast a file is read, in one go and in rows of so many bytes; it takes six seconds at most.
///
/// # Errors
/// It cannot be read, or is empty.
pub(super) fn measure(path: &Path, row_bytes: usize) -> io::Result<Speed> {
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    if let Ok(file) = direct
        && let Ok(speed) = read(&file, row_bytes)
    {
        return Ok(Speed {
            direct: true,
            ..speed
        });
    }
    let file = File::open(path)?;
    // Advice only: pages that another process has mapped stay.
    fadvise(&file, 0, None, Advice::DontNeed).ok();
    fadvise(&file, 0, None, Advice::Random).ok();
    read(&file, row_bytes)
}

/// Measures it where the per-layer-embedding table of a checkpoint lies, its largest tensor; `mend` says what to do where that cannot be
/// read.
///
/// # Errors
/// There is no such table, or it cannot be read.
pub(super) fn of_checkpoint(checkpoint: &Checkpoint, mend: &str) -> Result<Speed, Failure> {
    let tensors = checkpoint.tensors();
    let tables = tensors.filter(|info| info.group == Some(Group::Ple));
    let largest = tables.max_by_key(|info| info.bytes).ok_or_else(|| {
        let dir = checkpoint.dir().display();
        let what = "has no per-layer-embedding table: it is no Gemma that this program runs";
        Failure::new(exit::DATA, format_args!("{dir} {what}"))
    })?;
    let path = checkpoint.path(largest);
    let rows = largest.shape.first().copied().unwrap_or(1).max(1);
    measure(path, largest.bytes as usize / rows).map_err(|error| {
        let path = path.display();
        Failure::new(exit::NO_INPUT, format_args!("{path}: {error}; {mend}"))
    })
}

/// Reads in one go, then here and there.
fn read(file: &File, row_bytes: usize) -> io::Result<Speed> {
    let length = file.metadata()?.len();
    let mut memory = vec![0; PIECE_BYTES.max(row_bytes + 2 * ALIGNMENT) + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut memory[start..];
    let begun = Instant::now();
    let mut at = 0;
    while at < length.min(MAX_BYTES) && begun.elapsed() < MAX_TIME {
        // The last piece of a file may be shorter.
        match file.read_at(&mut buffer[..PIECE_BYTES], at)? {
            0 => break,
            bytes => at += bytes as u64,
        }
    }
    if at == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file is empty",
        ));
    }
    let megabytes_s = at as f64 / 1e6 / begun.elapsed().as_secs_f64().max(1e-9);
    // A row lies anywhere in its first page.
    let span = (row_bytes + ALIGNMENT - 1).next_multiple_of(ALIGNMENT);
    let places = (length.saturating_sub(span as u64) / ALIGNMENT as u64).max(1);
    let begun = Instant::now();
    let mut rows = 0;
    while rows < MAX_ROWS && begun.elapsed() < MAX_TIME {
        // The standard library seeds its hashers at random.
        let random = std::hash::RandomState::new().build_hasher().finish();
        file.read_at(&mut buffer[..span], random % places * ALIGNMENT as u64)?;
        rows += 1;
    }
    Ok(Speed {
        megabytes_s,
        row_ms: begun.elapsed().as_secs_f64() * 1e3 / f64::from(rows),
        direct: false,
    })
}
