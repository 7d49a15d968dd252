//! How fast the flash is that the model lies on: in one go, as weights are loaded, and here and there, as rows of the
//! per-layer-embedding table are read.
//!
//! Read past the page cache (`O_DIRECT`), so that what was read before does not flatter it. Where the file system cannot do that, the
//! pages are dropped first, and it is said.

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::model::Model;
use super::{Finding, mib};

/// Past the page cache, offsets, lengths and addresses are multiples of this on every disk that is sold.
const ALIGNMENT: usize = 4096;
/// Read together in one go.
const PIECE_BYTES: usize = 1 << 20;
/// Enough to know: bytes, rows, and time for each.
const MOST_BYTES: u64 = 256 << 20;
const MOST_ROWS: u32 = 512;
const MOST_TIME: Duration = Duration::from_secs(3);
/// A load of the text model that takes longer is worth a word.
const SLOW_LOAD_S: f64 = 60.0;
/// A row that takes longer makes a prompt of some hundred tokens wait for a second.
const SLOW_ROW_MS: f64 = 2.0;

/// What was measured.
struct Speed {
    /// Megabytes (10^6) per second in one go.
    megabytes_s: f64,
    /// Mean time of a row, milliseconds.
    row_ms: f64,
    /// Whether the page cache was passed by.
    direct: bool,
}

/// The file that the model's rows are read from.
pub(super) fn model(model: &Model) -> Finding {
    measured("flash", &model.ple_file, model)
}

/// `[ple] cache_dir`: room for a copy, and its speed where there is one.
pub(super) fn cache(directory: &Path, model: Option<&Model>) -> Finding {
    let shown = directory.display();
    let advice = "make it a directory of the daemon's user on the fastest local flash, or leave ple.cache_dir out";
    if let Err(error) = tempfile::tempfile_in(directory) {
        return Finding::failing(
            "ple cache",
            format!("{shown} takes no files: {error}"),
            advice,
        );
    }
    let Some(model) = model else {
        return Finding::ok("ple cache", format!("{shown} takes files"));
    };
    if let Some(copy) = copy_in(directory, model.ple_bytes) {
        return measured("ple cache", &copy, model);
    }
    let free = rustix::fs::statvfs(directory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    let found = format!(
        "{shown} has no copy of the table yet ({} of {} are free)",
        mib(model.ple_bytes),
        mib(free)
    );
    match free >= model.ple_bytes {
        true => Finding::ok("ple cache", format!("{found}; gemmad run makes it")),
        false => Finding::warning(
            "ple cache",
            found,
            "make room: the table is read where the model lies until then",
        ),
    }
}

/// A finished copy that is as large as the table at least; of which model it is shows only when the daemon opens it.
fn copy_in(directory: &Path, ple_bytes: u64) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(directory).ok()?.flatten();
    let large = |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() >= ple_bytes;
    let copy = entries.find(|entry| {
        entry.path().extension().is_some_and(|is| is == "copy") && entry.metadata().is_ok_and(large)
    })?;
    Some(copy.path())
}

fn measured(check: &'static str, path: &Path, model: &Model) -> Finding {
    let shown = path.display();
    let speed = match measure(path, model.ple_row_bytes) {
        Ok(speed) => speed,
        Err(error) => {
            let advice = "the daemon's user has to be able to read the model's files, and the flash to give them";
            return Finding::failing(check, format!("{shown}: {error}"), advice);
        }
    };
    let load_s = model.text_bytes as f64 / 1e6 / speed.megabytes_s;
    let how = match speed.direct {
        true => "past the page cache",
        false => {
            "through the page cache, which this file system does not let be passed by: the real figures may be lower"
        }
    };
    let found = format!(
        "{shown}: {:.0} MB/s in one go (the text model's {} in {load_s:.1} s), {:.2} ms for a row of {} bytes, {how}",
        speed.megabytes_s,
        mib(model.text_bytes),
        speed.row_ms,
        model.ple_row_bytes,
    );
    if speed.row_ms > SLOW_ROW_MS {
        let advice = "prompts wait for rows: put the model, or a copy of its table ([ple] cache_dir), on faster flash (NVMe, a card of class A2)";
        return Finding::warning(check, found, advice);
    }
    if load_s > SLOW_LOAD_S {
        let advice = "the first answer after a start waits for that: put the model on faster flash";
        return Finding::warning(check, found, advice);
    }
    Finding::ok(check, found)
}

fn measure(path: &Path, row_bytes: usize) -> io::Result<Speed> {
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

/// Reads in one go, then here and there.
fn read(file: &File, row_bytes: usize) -> io::Result<Speed> {
    let length = file.metadata()?.len();
    let mut memory = vec![0; PIECE_BYTES.max(row_bytes + 2 * ALIGNMENT) + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut memory[start..];
    let begun = Instant::now();
    let mut at = 0;
    while at < length.min(MOST_BYTES) && begun.elapsed() < MOST_TIME {
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
    while rows < MOST_ROWS && begun.elapsed() < MOST_TIME {
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
