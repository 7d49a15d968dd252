//! Small files, whole and hashed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

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
}

fn hashed(bytes: &[u8], file: &RemoteFile) -> Result<(), HubError> {
    let Some(etag) = &file.etag else {
        return Ok(());
    };
    let mut check = Check::new(etag, file.size);
    check.update(bytes);
    check.finish(etag, &file.name)
}
