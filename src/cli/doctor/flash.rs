//! Whether the flash is fast enough that the model lies on, in one go and in rows of the per-layer-embedding table.

use std::path::{Path, PathBuf};

use super::model::Model;
use super::{Finding, mib};
use crate::cli::flash::measure;

/// A load of the text model that takes longer is worth a word.
const SLOW_LOAD_S: f64 = 60.0;
/// A row that takes longer makes a prompt of some hundred tokens wait for a second.
const SLOW_ROW_MS: f64 = 2.0;

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
