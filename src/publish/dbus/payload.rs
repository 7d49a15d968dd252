//! Bytes that come and go as file descriptors: sealed memory, plain files, pipes.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

use super::error::Error;
use crate::report::Attachment;

/// Without these the sender could change the bytes, or take them away, while they are read.
const NEEDED_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::WRITE);
const PIECE_BYTES: usize = 64 << 10;

/// Reads what callers hand over, within limits.
pub(super) struct Reader {
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
    /// Reads at a time: a file on a dead network disk holds its thread for as long as it likes.
    pub(super) reads: Arc<Semaphore>,
}

impl Reader {
    /// All bytes behind a descriptor: of files and memory from their start, of a pipe until its writers have closed it. `name` is the
    /// argument's.
    pub(super) async fn read(&self, name: &'static str, fd: OwnedFd) -> Result<Attachment, Error> {
        let slow = |_| {
            let ms = self.timeout.as_millis();
            Error::Timeout(format!(
                "`{name}`: its bytes did not come within {ms} ms (dbus.attachment_timeout_ms)"
            ))
        };
        let bytes = tokio::time::timeout(self.timeout, self.read_patiently(name, fd))
            .await
            .map_err(slow)??;
        if bytes.len() > self.max_bytes {
            return Err(self.too_large(name));
        }
        if bytes.is_empty() {
            return Err(Error::Invalid(format!("`{name}` is empty")));
        }
        Ok(Attachment(bytes.into()))
    }

    async fn read_patiently(&self, name: &'static str, fd: OwnedFd) -> Result<Vec<u8>, Error> {
        let failed =
            |error: std::io::Error| Error::Invalid(format!("`{name}` cannot be read: {error}"));
        let stat = fstat(&fd).map_err(|errno| failed(errno.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                // A file without a name is memory, unless it was deleted from a disk, which knows no seals.
                let seals = if stat.st_nlink == 0 {
                    fcntl_get_seals(&fd).ok()
                } else {
                    None
                };
                if seals.is_some_and(|seals| !seals.contains(NEEDED_SEALS)) {
                    return Err(Error::Invalid(format!(
                        "`{name}` is memory without the seals F_SEAL_SHRINK and F_SEAL_WRITE; add them (fcntl F_ADD_SEALS) before it is sent"
                    )));
                }
                if usize::try_from(stat.st_size).is_ok_and(|size| size > self.max_bytes) {
                    return Err(self.too_large(name));
                }
                let busy = |_| Error::Busy("the bus is stopping".to_owned());
                let permit = self.reads.clone().acquire_owned().await.map_err(busy)?;
                let limit = self.max_bytes + 1;
                let read = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    read_file(&File::from(fd), limit)
                });
                let read = read
                    .await
                    .map_err(|error| Error::Failed(error.to_string()))?;
                read.map_err(failed)
            }
            FileType::Fifo => {
                let receiver = pipe::Receiver::from_owned_fd(fd).map_err(failed)?;
                let mut bytes = Vec::new();
                let limit = self.max_bytes as u64 + 1;
                receiver
                    .take(limit)
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(failed)?;
                Ok(bytes)
            }
            _ => Err(Error::Invalid(format!(
                "`{name}` must be a sealed memfd, a plain file or a pipe"
            ))),
        }
    }

    fn too_large(&self, name: &str) -> Error {
        Error::TooLarge(format!(
            "`{name}` has more than {} bytes (dbus.max_attachment_bytes)",
            self.max_bytes
        ))
    }
}

fn read_file(file: &File, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    while bytes.len() < limit {
        let wanted = piece.len().min(limit - bytes.len());
        let count = file.read_at(&mut piece[..wanted], bytes.len() as u64)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..count]);
    }
    Ok(bytes)
}

/// Bytes as memory that nobody can change any more, to be read from its start.
pub(super) fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = memfd_create("gemmad", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl_add_seals(&file, NEEDED_SEALS | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}
