//! Whether a pack's files are still those that were written.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::PackError;
use super::writer::Progress;
use crate::model::weights::PackManifest;

const BUFFER_BYTES: usize = 1 << 20;

/// Reads every file of the pack in `dir` and compares its size and SHA-256 with pack.json's.
///
/// # Errors
/// [`PackError::Damaged`] names every file that differs; the directory is no pack, or a file cannot be read.
pub fn verify(dir: &Path, progress: &mut Progress<'_>) -> Result<PackManifest, PackError> {
    let manifest = PackManifest::read(dir)?.ok_or_else(|| PackError::NotAPack {
        path: dir.to_owned(),
    })?;
    let total = manifest.files.values().map(|file| file.bytes).sum();
    let mut done = 0;
    let mut damaged = Vec::new();
    for (name, expected) in &manifest.files {
        let before = done;
        let path = dir.join(name);
        let size = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                damaged.push(format!("{name} is missing"));
                continue;
            }
            Err(error) => return Err(PackError::read(path)(error)),
        };
        if size != expected.bytes {
            damaged.push(format!(
                "{name} has {size} bytes instead of {}",
                expected.bytes
            ));
        } else {
            let hash = hash(&path, &mut |bytes| {
                done += bytes;
                progress(done, total);
            })?;
            if hash != expected.sha256 {
                damaged.push(format!("{name} has other contents (SHA-256 {hash})"));
            }
        }
        done = before + expected.bytes;
    }
    if damaged.is_empty() {
        return Ok(manifest);
    }
    Err(PackError::Damaged {
        path: dir.to_owned(),
        files: damaged.join(", "),
    })
}

fn hash(path: &Path, advance: &mut dyn FnMut(u64)) -> Result<String, PackError> {
    let mut file = File::open(path).map_err(PackError::read(path))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hash = Sha256::new();
    loop {
        let n = file.read(&mut buffer).map_err(PackError::read(path))?;
        if n == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..n]);
        advance(n as u64);
    }
}
