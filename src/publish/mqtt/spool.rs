//! Events on disk, so that they outlive the process: a JSON object a line, appended as they come. A line whose event the broker has
//! is struck out at once, by its first byte, which needs no room on a full disk; when the broker has them all, the file is emptied.
//!
//! All of it goes to the page cache and is not forced to the medium. It is for a process that is killed: then every event is there
//! that was heard, and comes again only if the broker's word for it had not been read. After a power cut the last seconds may be
//! missing. Forcing each event would wear out flash and hold up the loop; forcing each stroke would save nothing but an event that
//! comes twice with one id, which whoever acts on events has to be ready for in MQTT anyhow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::MqttError;
use super::outbox::Lasting;
use crate::guard::lock::{self, Lock};
use crate::guard::private;

/// A line.
#[derive(Serialize, Deserialize)]
struct Record {
    topic: String,
    payload: String,
}

/// How every line begins. Within a line it cannot stand: quotes of a payload are escaped.
const BEGIN: &[u8] = b"{\"topic\":\"";
/// What the first byte of a line becomes when the broker has its event.
const STRUCK: u8 = b'-';

impl Record {
    /// What the client or the broker would refuse must not be tried again and again.
    fn can_be_sent(&self, max_payload_bytes: usize) -> bool {
        let wrong = |c: char| matches!(c, '+' | '#') || c.is_control();
        !self.topic.is_empty()
            && self.topic.len() <= MAX_TOPIC_BYTES
            && !self.topic.contains(wrong)
            && self.payload.len() <= max_payload_bytes
    }
}

/// Longest topic, bytes.
const MAX_TOPIC_BYTES: usize = 1024;

/// An event of an earlier life.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restored {
    /// Where its line begins.
    pub(super) offset: u64,
    pub(super) topic: String,
    pub(super) payload: String,
}

/// The file.
pub(super) struct Spool {
    /// No other process writes to it.
    _lock: Option<Lock>,
    path: PathBuf,
    file: File,
    /// Where the next line goes. What a failed write left behind it is written over.
    bytes: u64,
    max_bytes: u64,
    /// Where the lines of events begin that the broker does not have, by token.
    lines: BTreeMap<u64, u64>,
    /// The token of the last event that was written.
    newest: u64,
    /// Whether the last write failed: that is told once.
    failing: bool,
    /// How often the whole file is not tried to be written, after that failed.
    rest: u32,
}

/// So many times.
const REST: u32 = 32;

impl Spool {
    /// Opens the file, or makes it, and reads the events in it, oldest first; [`Spool::has`] is to be told of their tokens. A file
    /// that is damaged or too long is used as far as it goes.
    pub(super) fn open(
        path: &Path,
        max_bytes: u64,
        max_payload_bytes: usize,
    ) -> Result<(Spool, Vec<Restored>), MqttError> {
        let bad = |error: Error| MqttError::File {
            key: "spool_file",
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let lock = lock(path)?;
        // What was said and seen is for the daemon's user only.
        let mut file = private::open(path, OFlags::empty()).map_err(bad)?;
        let bytes = file.metadata().map_err(bad)?.len();
        let found = read(&mut file, bytes, max_bytes, max_payload_bytes).map_err(bad)?;
        if found.unreadable > 0 {
            log::warn!(
                target: "mqtt",
                "{}: {} lines are torn or no events; what can be read is kept", path.display(), found.unreadable
            );
        }
        if found.end < bytes {
            // The end is torn; where it cannot be cut off, it is written over.
            file.set_len(found.end).ok();
        }
        let spool = Spool {
            _lock: lock,
            path: path.to_owned(),
            file,
            bytes: found.end,
            max_bytes,
            lines: BTreeMap::new(),
            newest: 0,
            failing: false,
            rest: 0,
        };
        Ok((spool, found.events))
    }

    /// The event with this token stands in the file.
    pub(super) fn has(&mut self, token: u64, offset: u64) {
        self.lines.insert(token, offset);
        self.newest = self.newest.max(token);
    }

    /// The token of the last event that stands in the file; those above are to be written.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Adds events. They are written, or tried again the next time, when there may be room.
    pub(super) fn append(&mut self, events: &[Lasting]) -> Appended {
        for event in events {
            let line = line(event);
            let end = self.bytes + line.len() as u64;
            if end > self.max_bytes {
                return Appended::Full;
            }
            let result = self.file.write_all_at(&line, self.bytes);
            let written = result.is_ok();
            self.told(result);
            if !written {
                // Half a line is no use; where it cannot be cut off, it is written over.
                self.file.set_len(self.bytes).ok();
                return Appended::Failed;
            }
            self.has(event.token, self.bytes);
            self.bytes = end;
        }
        Appended::All
    }

    /// The broker has the event with this token.
    pub(super) fn strike(&mut self, token: u64) {
        if let Some(offset) = self.lines.remove(&token) {
            let result = self.file.write_all_at(&[STRUCK], offset);
            self.told(result);
        }
    }

    /// Writes the file anew with the newest of these events, oldest first; half of it stays free for those to come. False: it cannot
    /// be written, and stays as it is.
    pub(super) fn replace(&mut self, events: &[Lasting]) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        let result = self.rewrite(events);
        let written = result.is_ok();
        if !written {
            self.rest = REST;
        }
        self.told(result);
        written
    }

    /// The broker has every event.
    pub(super) fn clear(&mut self) {
        if self.bytes > 0 {
            let result = self.file.set_len(0);
            if result.is_ok() {
                self.bytes = 0;
                self.lines.clear();
            }
            self.told(result);
        }
    }

    fn rewrite(&mut self, events: &[Lasting]) -> std::io::Result<()> {
        let mut room = self.max_bytes / 2;
        let mut lines = Vec::new();
        for event in events.iter().rev() {
            let line = line(event);
            let Some(left) = room.checked_sub(line.len() as u64) else {
                break;
            };
            room = left;
            lines.push((event.token, line));
        }
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let written = write_beside(beside.as_ref(), &lines)
            .and_then(|file| std::fs::rename(&beside, &self.path).map(|()| file));
        match written {
            Ok(file) => self.file = file,
            Err(error) => {
                // It takes room that the disk does not have.
                std::fs::remove_file(&beside).ok();
                return Err(error);
            }
        }
        self.bytes = 0;
        self.lines.clear();
        for (token, line) in lines.iter().rev() {
            self.has(*token, self.bytes);
            self.bytes += line.len() as u64;
        }
        self.newest = events.last().map_or(self.newest, |last| last.token);
        Ok(())
    }

    /// A full disk is no reason to stop: events still wait in memory.
    fn told(&mut self, result: std::io::Result<()>) {
        let path = self.path.display();
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                log::info!(target: "mqtt", "{path} can be written again");
            }
            Ok(()) => {}
            Err(error) if !self.failing => {
                self.failing = true;
                log::warn!(target: "mqtt", "cannot write {path}: {error}; events wait in memory until it can be written");
            }
            Err(_) => {}
        }
    }
}

/// What became of events that were to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// They stand in the file.
    All,
    /// The file would be too long, and has to be written anew.
    Full,
    /// The disk does not take them now.
    Failed,
}

/// Writes lines, which come last first, to a file that is made.
fn write_beside(path: &Path, lines: &[(u64, Vec<u8>)]) -> std::io::Result<File> {
    let file = private::create_anew(path)?;
    let text: Vec<u8> = lines
        .iter()
        .rev()
        .flat_map(|(_, line)| line.clone())
        .collect();
    file.write_all_at(&text, 0)?;
    Ok(file)
}

/// Takes the file for this process; its directory is made if it is missing.
fn lock(path: &Path) -> Result<Option<Lock>, MqttError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut beside = path.to_owned().into_os_string();
    beside.push(".lock");
    let ours = |found: &str| found.starts_with(&*name);
    lock::claim(path, Path::new(&beside), ours).map_err(|held| MqttError::File {
        key: "spool_file",
        path: path.to_owned(),
        reason: format!("{held}; stop that one, or name a file of its own for each"),
    })
}

fn line(event: &Lasting) -> Vec<u8> {
    let record = Record {
        topic: event.topic.clone(),
        payload: String::from_utf8_lossy(&event.payload).into_owned(),
    };
    // Two strings are always JSON; an empty line would only be left out when read.
    let mut line = serde_json::to_vec(&record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// What stands in a file.
struct Found {
    events: Vec<Restored>,
    /// Lines, and pieces of lines, that are no events.
    unreadable: usize,
    /// Behind the last event or line that is whole: there the next one goes.
    end: u64,
}

/// Of a file that is too long the end is read.
fn read(
    file: &mut File,
    bytes: u64,
    max_bytes: u64,
    max_payload_bytes: usize,
) -> std::io::Result<Found> {
    let mut offset = bytes.saturating_sub(max_bytes);
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::new(std::io::Read::take(&mut *file, max_bytes));
    let mut found = Found {
        events: Vec::new(),
        unreadable: 0,
        end: offset,
    };
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        for (at, piece) in pieces(&line) {
            let at = offset + at as u64;
            match serde_json::from_slice::<Record>(piece) {
                Ok(record) if record.can_be_sent(max_payload_bytes) => {
                    found.events.push(Restored {
                        offset: at,
                        topic: record.topic,
                        payload: record.payload,
                    })
                }
                _ if piece.first() == Some(&STRUCK) => {}
                _ => {
                    found.unreadable += 1;
                    continue;
                }
            }
            found.end = at + piece.len() as u64;
        }
        offset += line.len() as u64;
        if line.ends_with(b"\n") {
            found.end = offset;
        }
        line.clear();
    }
    Ok(found)
}

/// The pieces of a line with where they begin: more than one where a line was torn and the next was written behind it.
fn pieces(line: &[u8]) -> Vec<(usize, &[u8])> {
    let begins = |at: &usize| line[*at..].starts_with(BEGIN);
    let mut starts: Vec<usize> = (1..line.len()).filter(begins).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    let pieces = starts.iter().copied().zip(ends);
    pieces.map(|(from, to)| (from, &line[from..to])).collect()
}
