//! Whether a pack's files are still those that were written.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::error::PackError;
use super::writer::Progress;
use crate::model::weights::{PACK_JSON, PackManifest};

const BUFFER_BYTES: usize = 1 << 20;

/// What tells in a pack when it was verified.
const STAMP: &str = "verified.json";

/// A verification that found nothing wrong.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stamp {
    /// Seconds since 1970.
    at: u64,
    /// The file that says what is in the pack: of a copy it is another.
    inode: u64,
}

/// When the pack in `dir` was last found whole, seconds since 1970; `None` where nobody looked since it came there.
pub fn verified_at(dir: &Path) -> Option<u64> {
    const MOST_BYTES: u64 = 1 << 10;
    let mut json = String::new();
    let stamp = File::open(dir.join(STAMP)).ok()?;
    stamp.take(MOST_BYTES).read_to_string(&mut json).ok()?;
    let stamp: Stamp = serde_json::from_str(&json).ok()?;
    (stamp.inode == inode(dir)?).then_some(stamp.at)
}

fn inode(dir: &Path) -> Option<u64> {
    dir.join(PACK_JSON).metadata().ok().map(|found| found.ino())
}

/// Keeps the time of a verification, where that can be written: a pack on a read-only disk is none the worse.
fn keep(dir: &Path) -> Option<()> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let (at, inode) = (since.as_secs(), inode(dir)?);
    let json = serde_json::to_vec(&Stamp { at, inode }).ok()?;
    std::fs::write(dir.join(STAMP), json).ok()
}

/// Reads every file of the pack in `dir` and compares its size and SHA-256 with pack.json's; keeps when it did so ([`verified_at`]).
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
        keep(dir);
        return Ok(manifest);
    }
    std::fs::remove_file(dir.join(STAMP)).ok();
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
