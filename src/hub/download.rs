//! Whole files, to memory and to disk, hashed on the way.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::client::Client;
use super::error::HubError;
use super::listing::{Check, RemoteFile, Repository};
use super::stream::Stream;

const BUFFER_BYTES: usize = 1 << 18;

impl Client {
    /// The contents of a small file, of up to `limit_bytes`: from the cache where it is there, else from the hub.
    ///
    /// # Errors
    /// It is larger, cannot be had, or has another hash than the hub names.
    pub fn small_file(
        &self,
        repository: &Repository,
        file: &RemoteFile,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, HubError> {
        if file.size > limit_bytes {
            return Err(HubError::TooLarge {
                what: file.name.clone(),
                limit_bytes,
            });
        }
        if let Some(path) = self.settings().cache.file(repository, file) {
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|found| found.take(limit_bytes).read_to_end(&mut bytes))
                .map_err(HubError::io("read", path))?;
            if hashed(&bytes, file).is_ok() {
                return Ok(bytes);
            }
        }
        let mut bytes = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut stream = Stream::new(self, repository, file, 0..file.size);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        hashed(&bytes, file)?;
        Ok(bytes)
    }

    /// The same, written to `path`, unless it is there already.
    ///
    /// # Errors
    /// As there; or it cannot be written.
    pub fn small_file_to(
        &self,
        repository: &Repository,
        file: &RemoteFile,
        limit_bytes: u64,
        path: &Path,
    ) -> Result<u64, HubError> {
        let there = File::open(path).ok().and_then(|found| {
            let mut bytes = Vec::new();
            found.take(limit_bytes).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        });
        if file.etag.is_some() && there.is_some_and(|bytes| hashed(&bytes, file).is_ok()) {
            return Ok(0);
        }
        let bytes = self.small_file(repository, file, limit_bytes)?;
        std::fs::write(path, &bytes).map_err(HubError::io("write", path))?;
        Ok(bytes.len() as u64)
    }

    /// Downloads a file to `path`, going on with what an earlier run left beside it; `progress` is told how many bytes are there.
    ///
    /// # Errors
    /// It cannot be had or written, or has another hash than the hub names: then nothing of it stays.
    pub fn download(
        &self,
        repository: &Repository,
        file: &RemoteFile,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let etag = file.etag.as_ref().map_or("unnamed", |etag| etag.hex());
        let mut part = path.as_os_str().to_owned();
        // What was begun of another version is not gone on with.
        part.push(format!(".{etag}.part"));
        let part = PathBuf::from(part);
        let mut out = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(HubError::io("create", &part))?;
        let mut check = file.etag.as_ref().map(|etag| Check::new(etag, file.size));
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut there = 0;
        loop {
            let n = out.read(&mut buffer).map_err(HubError::io("read", &part))?;
            if n == 0 {
                break;
            }
            there += n as u64;
            check
                .iter_mut()
                .for_each(|check| check.update(&buffer[..n]));
        }
        if there > file.size {
            return Err(remove(&part, file));
        }
        progress(there);
        let mut stream = Stream::new(self, repository, file, there..file.size);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n])
                .map_err(HubError::io("write", &part))?;
            check
                .iter_mut()
                .for_each(|check| check.update(&buffer[..n]));
            there += n as u64;
            progress(there);
        }
        if let (Some(check), Some(etag)) = (check, &file.etag)
            && let Err(error) = check.finish(etag, &file.name)
        {
            std::fs::remove_file(&part).map_err(HubError::io("remove", &part))?;
            return Err(error);
        }
        out.sync_all().map_err(HubError::io("write", &part))?;
        std::fs::rename(&part, path).map_err(HubError::io("create", path))
    }
}

/// A part that is longer than the whole.
fn remove(part: &Path, file: &RemoteFile) -> HubError {
    match std::fs::remove_file(part) {
        Ok(()) => HubError::Changed {
            file: file.name.clone(),
            reason: "it is shorter than what was downloaded".to_owned(),
        },
        Err(error) => HubError::io("remove", part)(error),
    }
}

fn hashed(bytes: &[u8], file: &RemoteFile) -> Result<(), HubError> {
    let Some(etag) = &file.etag else {
        return Ok(());
    };
    let mut check = Check::new(etag, file.size);
    check.update(bytes);
    check.finish(etag, &file.name)
}
