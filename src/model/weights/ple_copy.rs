//! A copy of the PLE table on faster flash (`[ple] cache_dir`): made once, checked, then used by every start.
//!
//! `gemmad-ple-KEY.copy` appears by a rename when all of it is on the disk and was read back; KEY is the hash of what was
//! copied. It bears the modification time of its source: where that and the size still fit, the copy is used unread, else it
//! is hashed again. While it is written it is called `.partial` and locked; what a killed process left is not locked and goes.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::mapping::StoredRows;
use super::{Checkpoint, pages};

const PREFIX: &str = "gemmad-ple-";
/// Weights are no secret, but a copy is used unread: nobody else may write it, whatever the umask is.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const BUFFER_BYTES: usize = 1 << 20;
/// Dirty pages that are let pile up.
const SYNC_BYTES: u64 = 64 << 20;
/// Left free besides the copy, for what else lies on that disk.
const SPARE_BYTES: u64 = 16 << 20;

/// Why there is no copy; every message names the file or directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{dir} has {free_bytes} bytes free, but the copy needs {needed_bytes}: free some, or give [ple] another cache_dir"
    )]
    Space {
        dir: PathBuf,
        free_bytes: u64,
        needed_bytes: u64,
    },
    #[error("another gemmad writes {path} at this moment")]
    Busy { path: PathBuf },
    #[error("{path} is not what pack.json says: see `gemmad inspect --verify`")]
    SourceDamaged { path: PathBuf },
    #[error("{path} was not read back as it was written: the disk may be failing")]
    CopyDamaged { path: PathBuf },
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> CopyError + 'a {
    move |source| CopyError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// What is copied: a range of the source, and what it must hash to where that is known.
struct Original<'a> {
    file: &'a File,
    path: &'a Path,
    start: u64,
    bytes: u64,
    sha256: Option<String>,
    key: String,
}

/// Opens the copy in `dir` of the table that `stored` describes, making it first where there is none.
pub(super) fn open(
    checkpoint: &Checkpoint,
    stored: &StoredRows,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<StoredRows, CopyError> {
    let original = original(checkpoint, stored)?;
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(dir)
        .map_err(io("create", dir))?;
    let path = dir.join(format!("{PREFIX}{}.copy", original.key));
    let file = match reuse(&original, &path)? {
        Some(file) => file,
        None => make(&original, dir, &path, progress)?,
    };
    Ok(StoredRows {
        file,
        path,
        start: stored.start - original.start,
        ..*stored
    })
}

/// Of a pack its whole file, which has a hash; of another checkpoint the table, known by its place, the age of its file, and
/// its first and last row.
fn original<'a>(
    checkpoint: &Checkpoint,
    stored: &'a StoredRows,
) -> Result<Original<'a>, CopyError> {
    let (file, path) = (&stored.file, stored.path.as_path());
    let metadata = file.metadata().map_err(io("read", path))?;
    let packed = checkpoint.pack().and_then(|pack| {
        let name = path.file_name()?.to_str()?;
        pack.files.get(name)
    });
    if let Some(packed) = packed {
        return Ok(Original {
            file,
            path,
            start: 0,
            bytes: metadata.len(),
            key: packed
                .sha256
                .chars()
                .filter(char::is_ascii_hexdigit)
                .take(64)
                .collect(),
            sha256: Some(packed.sha256.clone()),
        });
    }
    let bytes = (stored.rows * stored.row_bytes) as u64;
    let mut hash = Sha256::new();
    for number in [stored.start, bytes, metadata.len(), metadata.ino()] {
        hash.update(number.to_le_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    let mut row = vec![0; stored.row_bytes];
    for index in [0, stored.rows.saturating_sub(1)] {
        let at = stored.start + (index * stored.row_bytes) as u64;
        file.read_exact_at(&mut row, at).map_err(io("read", path))?;
        hash.update(&row);
    }
    Ok(Original {
        file,
        path,
        start: stored.start,
        bytes,
        sha256: None,
        key: hex::encode(hash.finalize()),
    })
}

/// The copy that is there, if it is whole.
fn reuse(original: &Original<'_>, path: &Path) -> Result<Option<File>, CopyError> {
    let opened = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let (copy, source) = (
        file.metadata().map_err(io("read", path))?,
        original
            .file
            .metadata()
            .map_err(io("read", original.path))?,
    );
    if copy.len() == original.bytes {
        let exposed = copy.mode() & WRITABLE_BY_OTHERS != 0;
        if same_age(&copy, &source) && !exposed {
            return Ok(Some(file));
        }
        // The pack was copied or unpacked anew, or somebody wrote to the copy, or could have.
        if let Some(sha256) = &original.sha256 {
            let found = hash_of(&file, 0, original.bytes, &mut |_| {}).map_err(io("read", path))?;
            if found == *sha256 {
                if exposed {
                    log::warn!(
                        "{} could be written by other users (mode {:04o}): it is {FILE_MODE:04o} now",
                        path.display(),
                        copy.mode() & 0o7777
                    );
                    file.set_permissions(Permissions::from_mode(FILE_MODE)).ok();
                }
                // The next start does not read it again; where that is not allowed it does.
                source
                    .modified()
                    .and_then(|time| File::options().write(true).open(path)?.set_modified(time))
                    .ok();
                return Ok(Some(file));
            }
        }
    }
    log::warn!("{} is damaged: it is made again", path.display());
    std::fs::remove_file(path).map_err(io("remove the damaged", path))?;
    Ok(None)
}

fn same_age(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    (a.mtime(), a.mtime_nsec()) == (b.mtime(), b.mtime_nsec())
}

fn make(
    original: &Original<'_>,
    dir: &Path,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<File, CopyError> {
    let partial = path.with_extension("partial");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&partial)
        .map_err(io("create", &partial))?;
    let ours = |file: &File| {
        let (here, there) = (file.metadata().ok(), std::fs::metadata(&partial).ok());
        here.is_some_and(|here| there.is_some_and(|there| here.ino() == there.ino()))
    };
    // Whoever had the lock may have renamed the file before he let it go: then it is his copy, which must not be emptied.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !ours(&file) {
        return Err(CopyError::Busy { path: partial });
    }
    let made = make_room(original.bytes, dir, path)
        .and_then(|()| copy(original, &mut file, &partial, progress))
        .and_then(|()| {
            std::fs::rename(&partial, path).map_err(io("create", path))?;
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(io("synchronise", dir))
        });
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            // It is of no use, and the disk may be full. The error that is told is the one that came first.
            std::fs::remove_file(&partial).ok();
            Err(error)
        }
    }
}

/// Removes what killed processes left and, where the disk has too little room, copies of other tables; a process that uses
/// such a copy keeps it until it ends.
fn make_room(needed: u64, dir: &Path, path: &Path) -> Result<(), CopyError> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("read", dir))? {
        let entry = entry.map_err(io("read", dir))?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) || entry.file_stem() == path.file_stem() {
            continue;
        }
        if name.ends_with(".partial") {
            let abandoned = File::open(&entry).is_ok_and(|file| file.try_lock().is_ok());
            if abandoned {
                std::fs::remove_file(&entry).map_err(io("remove", &entry))?;
            }
        } else if name.ends_with(".copy") {
            others.push(entry);
        }
    }
    let needed_bytes = needed.saturating_add(SPARE_BYTES);
    loop {
        let disk = rustix::fs::statvfs(dir)
            .map_err(std::io::Error::from)
            .map_err(io("read", dir))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free_bytes >= needed_bytes {
            return Ok(());
        }
        let Some(other) = others.pop() else {
            return Err(CopyError::Space {
                dir: dir.to_owned(),
                free_bytes,
                needed_bytes,
            });
        };
        log::info!("{} is removed to make room", other.display());
        std::fs::remove_file(&other).map_err(io("remove", &other))?;
    }
}

/// Writes the copy, reads it back from the disk, and gives it the age of its source.
fn copy(
    original: &Original<'_>,
    file: &mut File,
    partial: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), CopyError> {
    let total = 2 * original.bytes;
    file.set_len(0).map_err(io("write", partial))?;
    let mut written = 0;
    let mut synced = 0;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    while written < original.bytes {
        let piece = buffer.len().min((original.bytes - written) as usize);
        let at = original.start + written;
        original
            .file
            .read_exact_at(&mut buffer[..piece], at)
            .map_err(io("read", original.path))?;
        file.write_all(&buffer[..piece])
            .map_err(io("write", partial))?;
        hash.update(&buffer[..piece]);
        written += piece as u64;
        if written - synced >= SYNC_BYTES || written == original.bytes {
            file.sync_data().map_err(io("write", partial))?;
            pages::forget_all(original.file, original.start + synced, written - synced);
            pages::forget_all(file, synced, written - synced);
            synced = written;
        }
        progress(written, total);
    }
    let read = hex::encode(hash.finalize());
    if original.sha256.as_ref().is_some_and(|want| *want != read) {
        return Err(CopyError::SourceDamaged {
            path: original.path.to_owned(),
        });
    }
    let back = hash_of(file, 0, original.bytes, &mut |done| {
        progress(original.bytes + done, total);
    });
    if back.map_err(io("read", partial))? != read {
        return Err(CopyError::CopyDamaged {
            path: partial.to_owned(),
        });
    }
    let age = original.file.metadata().and_then(|of| of.modified());
    age.and_then(|time| file.set_modified(time))
        .and_then(|()| file.sync_all())
        .map_err(io("write", partial))
}

/// SHA-256 of a range, in hexadecimal; what is read leaves the page cache again.
fn hash_of(
    file: &File,
    start: u64,
    bytes: u64,
    advance: &mut dyn FnMut(u64),
) -> std::io::Result<String> {
    let mut reader = file;
    reader.seek(std::io::SeekFrom::Start(start))?;
    let mut reader = reader.take(bytes);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0;
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..n]);
        pages::forget_all(file, start + done, n as u64);
        done += n as u64;
        advance(done);
    }
}
