//! Files of weights of which only the needed stretches are there: everywhere else they are holes, which take no room on the disk.
//!
//! So whatever reads a checkpoint reads these files as if they had been downloaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rangemap::RangeSet;
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest, Sha256};

use super::super::error::PackError;
use super::super::gguf::{Header, Wanted};
use super::super::journal::{Journal, Stretch};
use super::super::source::Location;
use super::HubSource;
use super::workplace::Workplace;
use crate::hub::{RemoteFile, Stream};

/// What is read from the hub at once, and the unit of the journal.
const CHUNK_BYTES: usize = 512 << 10;
/// Stretches that are so near to each other are fetched as one: a request costs more.
const GAP_BYTES: u64 = 4 << 10;
/// Headers of published files are below 1 MiB.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// What is fetched at once of one whose length nobody tells: some MB, most of it the tokens.
const LEAST_HEADER_BYTES: u64 = 64 << 10;
const MOST_HEADER_BYTES: u64 = 4 << 20;
/// A hole that takes so much is none.
const MAX_HOLE_BYTES: u64 = 1 << 20;

/// The files, and what is fetched of them.
pub(super) struct Staging<'a> {
    hub: &'a HubSource<'a>,
    place: &'a Workplace,
    files: Vec<Staged<'a>>,
    journal: Journal,
    stream: Option<(usize, Stream<'a>)>,
    buffer: Vec<u8>,
    fetched: &'a mut dyn FnMut(u64),
}

struct Staged<'a> {
    remote: &'a RemoteFile,
    path: PathBuf,
    file: File,
    /// What is there.
    present: RangeSet<u64>,
    /// What will be needed soon: it is fetched where it is on the way.
    expected: RangeSet<u64>,
    /// What an earlier run fetched, by its start; it is there if its hash is right.
    promised: BTreeMap<u64, Stretch>,
}

impl<'a> Staging<'a> {
    pub(super) fn new(
        hub: &'a HubSource<'a>,
        place: &'a Workplace,
        files: &str,
        fetched: &'a mut dyn FnMut(u64),
    ) -> Result<Staging<'a>, PackError> {
        Ok(Staging {
            hub,
            place,
            files: Vec::new(),
            journal: place.journal("fetched", files)?,
            stream: None,
            buffer: vec![0; CHUNK_BYTES],
            fetched,
        })
    }

    /// Whether an earlier run has fetched something.
    pub(super) fn goes_on(&self) -> bool {
        self.journal.has_any()
    }

    /// The number of a file by its path.
    pub(super) fn position(&self, path: &std::path::Path) -> Option<usize> {
        self.files.iter().position(|file| file.path == path)
    }

    /// Makes a file of which nothing is there yet, or a link to the cache; tells whether it is the former.
    fn add(&mut self, remote: &'a RemoteFile) -> Result<Option<usize>, PackError> {
        let cache = &self.hub.client.settings().cache;
        if let Some(path) = cache.file(self.hub.repository, remote) {
            self.place.link(&path, remote)?;
            return Ok(None);
        }
        let path = self.place.path(remote);
        if path.is_symlink() {
            std::fs::remove_file(&path).map_err(PackError::write("remove", &path))?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!self.journal.has_any())
            .open(&path)
            .map_err(PackError::write("create", &path))?;
        // Where there are no holes, so long a file would be written to its end, or be too long.
        if !can_punch(&file) {
            return Err(PackError::NoHoles { path });
        }
        file.set_len(remote.size)
            .map_err(PackError::write("make room for", &path))?;
        if !self.journal.has_any() && !has_holes(&file) {
            return Err(PackError::NoHoles { path });
        }
        let of_file = self.journal.of(&remote.name);
        let promised = of_file.map(|stretch| (stretch.start, stretch.clone()));
        self.files.push(Staged {
            remote,
            path,
            file,
            present: RangeSet::new(),
            expected: RangeSet::new(),
            promised: promised.collect(),
        });
        Ok(Some(self.files.len() - 1))
    }

    /// Adds a file of safetensors, and fetches its header.
    pub(super) fn add_safetensors(&mut self, remote: &'a RemoteFile) -> Result<(), PackError> {
        let Some(at) = self.add(remote)? else {
            return Ok(());
        };
        let wrong = |reason: String| PackError::Repository {
            repository: self.hub.repository.id.clone(),
            reason: format!("has a {} {reason}", remote.name),
        };
        if remote.size < 8 {
            return Err(wrong("that is too short for weights".to_owned()));
        }
        let mut length = [0; 8];
        self.need(at, 0..8)?;
        self.files[at]
            .file
            .read_exact_at(&mut length, 0)
            .map_err(PackError::read(&self.files[at].path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(remote.size - 8) {
            return Err(PackError::Repository {
                repository: self.hub.repository.id.clone(),
                reason: format!(
                    "has a {} whose header claims {length} bytes, of which there may be {MAX_HEADER_BYTES}: those are no weights in safetensors",
                    remote.name
                ),
            });
        }
        self.need(at, 8..8 + length)
    }

    /// Adds a file of llama.cpp, and fetches its header.
    pub(super) fn add_gguf(
        &mut self,
        remote: &'a RemoteFile,
        wanted: Wanted,
    ) -> Result<(), PackError> {
        let Some(at) = self.add(remote)? else {
            return Ok(());
        };
        let path = self.files[at].path.clone();
        let mut failed = None;
        let header = Fetched {
            staging: self,
            at,
            position: 0,
            failed: &mut failed,
        };
        match Header::read(header, remote.size, &path, wanted) {
            Ok(_) => Ok(()),
            // What the hub says comes before what became of it.
            Err(error) => Err(failed.unwrap_or(error)),
        }
    }

    /// Sees to it that bytes of a file are there, if they come from the hub.
    pub(super) fn fetch(&mut self, location: &Location) -> Result<(), PackError> {
        match self.position(&location.path) {
            Some(at) => self.need(at, location.bytes.clone()),
            None => Ok(()),
        }
    }

    /// Says what will be needed soon, instead of what was said before.
    pub(super) fn announce(&mut self, stretches: impl Iterator<Item = (usize, Range<u64>)>) {
        self.files
            .iter_mut()
            .for_each(|file| file.expected = RangeSet::new());
        for (file, stretch) in stretches.filter(|(_, stretch)| !stretch.is_empty()) {
            let expected = &mut self.files[file].expected;
            // Near neighbours become one.
            let is_near = |near: &&Range<u64>| {
                near.end <= stretch.start && stretch.start - near.end <= GAP_BYTES
            };
            let start = expected.iter().rev().find(is_near).map(|near| near.start);
            expected.insert(start.unwrap_or(stretch.start)..stretch.end);
        }
    }

    /// Gives bytes back that are not needed any more.
    pub(super) fn release_all(&mut self, locations: &[Location]) -> Result<(), PackError> {
        for location in locations {
            if let Some(at) = self.position(&location.path) {
                self.release(at, location.bytes.clone())?;
            }
        }
        Ok(())
    }

    fn is_missing(&self, at: usize, stretch: Range<u64>) -> bool {
        self.files[at].present.gaps(&stretch).next().is_some()
    }

    /// Sees to it that a stretch of a file is there.
    pub(super) fn need(&mut self, at: usize, stretch: Range<u64>) -> Result<(), PackError> {
        if stretch.is_empty() {
            return Ok(());
        }
        self.files[at].recall(&stretch)?;
        while let Some(missing) = self.files[at].present.gaps(&stretch).next() {
            let on_the_way = |(file, stream): &(usize, Stream<'_>)| {
                *file == at && stream.left().contains(&missing.start)
            };
            if !self.stream.as_ref().is_some_and(on_the_way) {
                // The rest of it is needed soon; ended early, some of it would have come for nothing.
                while self.advance()? {}
                let run = self.files[at].run(missing)?;
                let hub = self.hub;
                let remote = self.files[at].remote;
                self.stream = Some((at, Stream::new(hub.client, hub.repository, remote, run)));
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Fetches the next chunk of what is on its way; false where nothing is.
    fn advance(&mut self) -> Result<bool, PackError> {
        let Some((at, stream)) = &mut self.stream else {
            return Ok(false);
        };
        let start = stream.left().start;
        let most = (stream.left().end - start).min(CHUNK_BYTES as u64) as usize;
        let (mut n, mut failed) = (0, None);
        while n < most && failed.is_none() {
            match stream.read(&mut self.buffer[n..most]) {
                Ok(more) => n += more,
                // What came before is kept.
                Err(error) => failed = Some(error),
            }
        }
        if n > 0 {
            let bytes = &self.buffer[..n];
            let file = &mut self.files[*at];
            file.file
                .write_all_at(bytes, start)
                .map_err(PackError::write("write", &file.path))?;
            let end = start + n as u64;
            file.present.insert(start..end);
            self.journal.add(&Stretch {
                file: file.remote.name.clone(),
                start,
                end,
                sha256: hex::encode(Sha256::digest(bytes)),
            })?;
        }
        (self.fetched)(n as u64);
        if stream.left().is_empty() {
            self.stream = None;
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(true),
        }
    }

    /// Gives a stretch back that is not needed any more.
    pub(super) fn release(&mut self, at: usize, stretch: Range<u64>) -> Result<(), PackError> {
        let file = &mut self.files[at];
        if stretch.is_empty() || !file.present.overlaps(&stretch) {
            return Ok(());
        }
        punch(&file.file, &stretch).map_err(PackError::write("shorten", &file.path))?;
        file.present.remove(stretch);
        Ok(())
    }
}

impl Staged<'_> {
    /// What is to be fetched from the first missing byte on: as far as what is expected goes without a hole.
    fn run(&mut self, missing: Range<u64>) -> Result<Range<u64>, PackError> {
        self.expected.insert(missing.clone());
        let end = self
            .expected
            .get(&missing.start)
            .map_or(missing.end, |expected| expected.end);
        let run = missing.start..end;
        self.recall(&run)?;
        let there = self
            .present
            .overlapping(&run)
            .next()
            .map(|there| there.start);
        Ok(run.start..there.unwrap_or(end))
    }

    /// Looks whether what an earlier run fetched of a stretch is still there.
    fn recall(&mut self, stretch: &Range<u64>) -> Result<(), PackError> {
        let near = self.promised.range(..stretch.end);
        let near = near.filter(|(_, promised)| promised.end > stretch.start);
        let starts: Vec<u64> = near.map(|(start, _)| *start).collect();
        for start in starts {
            let Some(promised) = self.promised.remove(&start) else {
                continue;
            };
            let length = promised.end.saturating_sub(start);
            if length > CHUNK_BYTES as u64 || promised.end > self.remote.size {
                continue;
            }
            let mut bytes = vec![0; length as usize];
            self.file
                .read_exact_at(&mut bytes, start)
                .map_err(PackError::read(&self.path))?;
            if hex::encode(Sha256::digest(&bytes)) == promised.sha256 {
                self.present.insert(start..promised.end);
            }
        }
        Ok(())
    }
}

/// A file that is read from its beginning without knowing how far: the further it was, the more is fetched at once.
struct Fetched<'s, 'a> {
    staging: &'s mut Staging<'a>,
    at: usize,
    position: u64,
    failed: &'s mut Option<PackError>,
}

impl Read for Fetched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (at, start) = (self.at, self.position);
        let left = self.staging.files[at].remote.size.saturating_sub(start);
        let n = left.min(buffer.len() as u64) as usize;
        let end = start + n as u64;
        if self.staging.is_missing(at, start..end) {
            let ahead = start.clamp(LEAST_HEADER_BYTES, MOST_HEADER_BYTES);
            let fetched = self
                .staging
                .need(at, start..start + left.min(ahead.max(n as u64)));
            if let Err(error) = fetched {
                *self.failed = Some(error);
                return Err(std::io::ErrorKind::Other.into());
            }
        }
        self.staging.files[at]
            .file
            .read_exact_at(&mut buffer[..n], start)?;
        self.position = end;
        Ok(n)
    }
}

impl Seek for Fetched<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => {
                let size = self.staging.files[self.at].remote.size;
                size.checked_add_signed(by)
            }
        };
        self.position = place.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Whether holes can be made; behind the end nothing is lost.
fn can_punch(file: &File) -> bool {
    let behind = file.metadata().map_or(0, |found| found.len());
    punch(file, &(behind..behind + GAP_BYTES)).is_ok()
}

/// Whether a file that nothing was written to takes no room.
fn has_holes(file: &File) -> bool {
    let found = file.metadata();
    found.is_ok_and(|found| found.blocks() * 512 <= MAX_HOLE_BYTES)
}

fn punch(file: &File, stretch: &Range<u64>) -> std::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let length = stretch.end - stretch.start;
    fallocate(file, flags, stretch.start, length).map_err(std::io::Error::from)
}
