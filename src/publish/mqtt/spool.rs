//! Events on disk, so that they outlive the process: a JSON object a line, appended as they come, emptied when the broker has
//! them all.
//!
//! It is written to the page cache and not forced to the medium: it is for a process that is killed, not for a power cut, and
//! flash wears out.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::MqttError;

/// A line.
#[derive(Serialize, Deserialize)]
struct Record {
    topic: String,
    payload: String,
}

impl Record {
    /// What the client or the broker would refuse must not be tried again and again.
    fn can_be_sent(&self, max_payload_bytes: usize) -> bool {
        let wrong = |c: char| matches!(c, '+' | '#') || c.is_control();
        !self.topic.is_empty()
            && self.topic.len() <= MOST_TOPIC_BYTES
            && !self.topic.contains(wrong)
            && self.payload.len() <= max_payload_bytes
    }
}

/// Longest topic, bytes.
const MOST_TOPIC_BYTES: usize = 1024;

/// The file.
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    /// Whether the last write failed: that is told once.
    failing: bool,
}

impl Spool {
    /// Opens the file, or makes it, and reads the events in it, oldest first.
    pub(super) fn open(
        path: &Path,
        max_bytes: u64,
        max_payload_bytes: usize,
    ) -> Result<(Spool, Vec<(String, String)>), MqttError> {
        let bad = |error: std::io::Error| MqttError::File {
            key: "spool_file",
            path: path.to_owned(),
            reason: error.to_string(),
        };
        // What was said and seen is for the daemon's user only.
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(bad)?;
        let bytes = file.metadata().map_err(bad)?.len();
        let (events, unreadable) =
            read(&mut file, bytes, max_bytes, max_payload_bytes).map_err(bad)?;
        if unreadable > 0 {
            log::warn!(target: "mqtt", "{}: {unreadable} lines are no events and are left out", path.display());
        }
        let mut spool = Spool {
            path: path.to_owned(),
            file,
            bytes,
            max_bytes,
            failing: false,
        };
        if unreadable > 0 || bytes > max_bytes {
            // A torn line has no end, and the next event would be written into it.
            let records = events
                .iter()
                .map(|(topic, payload)| (topic.as_str(), payload.as_bytes()));
            spool.rewrite(records).map_err(bad)?;
        }
        Ok((spool, events))
    }

    /// Adds events. False: the file is full, and has to be written anew.
    pub(super) fn append(&mut self, events: &[(String, Vec<u8>)]) -> bool {
        let lines: Vec<u8> = events
            .iter()
            .flat_map(|(topic, payload)| line(topic, payload))
            .collect();
        if self.bytes + lines.len() as u64 > self.max_bytes {
            return false;
        }
        self.bytes += lines.len() as u64;
        let result = self.file.write_all(&lines);
        self.told(result);
        true
    }

    /// Writes the file anew with the newest of these events, oldest first; half of it stays free for those to come.
    pub(super) fn replace(&mut self, events: &[(String, Vec<u8>)]) {
        let records = events
            .iter()
            .map(|(topic, payload)| (topic.as_str(), payload.as_slice()));
        let result = self.rewrite(records);
        self.told(result);
    }

    /// The broker has every event.
    pub(super) fn clear(&mut self) {
        if self.bytes > 0 {
            self.bytes = 0;
            let result = self.file.set_len(0);
            self.told(result);
        }
    }

    fn rewrite<'a>(
        &mut self,
        events: impl DoubleEndedIterator<Item = (&'a str, &'a [u8])>,
    ) -> std::io::Result<()> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        for (topic, payload) in events.rev() {
            let line = line(topic, payload);
            bytes += line.len() as u64;
            if bytes > self.max_bytes / 2 {
                break;
            }
            lines.push(line);
        }
        lines.reverse();
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        let text = lines.concat();
        file.write_all(&text)?;
        std::fs::rename(&beside, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = text.len() as u64;
        Ok(())
    }

    /// A full disk is no reason to stop: events still wait in memory.
    fn told(&mut self, result: std::io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                log::warn!(target: "mqtt", "cannot write {}: {error}; events wait in memory only", self.path.display());
            }
            Err(_) => {}
        }
    }
}

fn line(topic: &str, payload: &[u8]) -> Vec<u8> {
    let record = Record {
        topic: topic.to_owned(),
        payload: String::from_utf8_lossy(payload).into_owned(),
    };
    // Two strings are always JSON; an empty line would only be left out when read.
    let mut line = serde_json::to_vec(&record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The events, and how many lines are none. Of a file that is too long the end is read.
fn read(
    file: &mut File,
    bytes: u64,
    max_bytes: u64,
    max_payload_bytes: usize,
) -> std::io::Result<(Vec<(String, String)>, usize)> {
    let skipped = bytes.saturating_sub(max_bytes);
    file.seek(SeekFrom::Start(skipped))?;
    let mut reader = BufReader::new(std::io::Read::take(&mut *file, max_bytes));
    let mut events = Vec::new();
    let mut unreadable = 0;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if line.ends_with(b"\n") && record.can_be_sent(max_payload_bytes) => {
                events.push((record.topic, record.payload))
            }
            _ => unreadable += 1,
        }
        line.clear();
    }
    Ok((events, unreadable))
}
