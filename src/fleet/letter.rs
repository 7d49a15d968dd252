//! What stands on a job's message, and what workers tell a source.

use std::time::Duration;

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names::PROTOCOL;
use crate::report::{ErrorBody, Reply};

const ID: &str = "Gemmad-Id";
const NODE: &str = "Gemmad-Node";
const SESSION: &str = "Gemmad-Session";
const VERSION: &str = "Gemmad-Protocol";
const PATIENCE: &str = "Gemmad-Patience-Ms";
const DIGEST: &str = "Gemmad-Sha256";
const STORED: &str = "Gemmad-Stored";
const SENDING: &str = "Gemmad-Sending";
const LIVE: &str = "Gemmad-Live";

/// Longest name that a header may have, bytes.
const MAX_NAME: usize = 128;

/// The headers of a job's message. Clocks may be hours apart, so that a job's time is told as a span: it begins anew with whoever
/// takes it, and ends at the latest where its source, who knows when it began, does not want it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) id: String,
    /// The source's name.
    pub(super) node: String,
    /// Of the source's process.
    pub(super) session: String,
    pub(super) protocol: u32,
    pub(super) patience: Duration,
    /// SHA-256 of the payload, hexadecimal.
    pub(super) digest: String,
    /// The payload is in the store, under the job's id.
    pub(super) stored: bool,
    /// How often it was sent before: again, where the server lost it.
    pub(super) sending: u32,
    /// It is speech whose sound comes while it is spoken.
    pub(super) live: bool,
}

pub(super) fn digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Whether a text may be what a board, a process or a job is called.
pub(super) fn is_name(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(part)
}

impl Letter {
    /// As headers.
    pub(super) fn write(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            async_nats::header::NATS_MESSAGE_ID,
            format!("{}.{}", self.id, self.sending),
        );
        headers.insert(SENDING, self.sending.to_string());
        headers.insert(ID, self.id.as_str());
        headers.insert(NODE, self.node.as_str());
        headers.insert(SESSION, self.session.as_str());
        headers.insert(VERSION, PROTOCOL.to_string());
        headers.insert(PATIENCE, self.patience.as_millis().to_string());
        headers.insert(DIGEST, self.digest.as_str());
        for (name, holds) in [(STORED, self.stored), (LIVE, self.live)] {
            if holds {
                headers.insert(name, "1");
            }
        }
        headers
    }

    /// What stands on a message; nothing, where it is no job.
    pub(super) fn read(headers: &HeaderMap) -> Option<Letter> {
        let text = |name: &str| {
            let text = headers.get(name)?.as_str();
            is_name(text).then(|| text.to_owned())
        };
        Some(Letter {
            id: text(ID)?,
            node: text(NODE)?,
            session: text(SESSION)?,
            protocol: text(VERSION)?.parse().ok()?,
            patience: Duration::from_millis(text(PATIENCE)?.parse().ok()?),
            digest: text(DIGEST)?,
            stored: headers.get(STORED).is_some(),
            sending: text(SENDING)?.parse().ok()?,
            live: headers.get(LIVE).is_some(),
        })
    }
}

/// What a worker tells the source of a job; it is answered with [`YES`] or [`NO`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToSource {
    /// It has the job: is it still wanted?
    Has {
        id: String,
        worker: String,
        /// Of the worker's process.
        session: String,
        /// Which sending of it.
        sending: u32,
        /// How often the server has given that away.
        delivery: i64,
    },
    /// It does not do the job after all, and has not died of it.
    Leaves { id: String, session: String },
    /// It works on it. It is told and not asked, every second.
    Works { id: String, session: String },
    /// It misses what is said from that sample on. It is told and not asked, until that comes.
    Misses {
        id: String,
        session: String,
        at: usize,
    },
    /// A piece of the answer, which begins at that byte of it. It is told and not asked; what is lost comes with the whole answer.
    Piece {
        id: String,
        session: String,
        of: Part,
        at: usize,
        text: String,
    },
    /// It is done with the job.
    Done {
        id: String,
        session: String,
        model: String,
        reply: Option<Box<Reply>>,
        error: Option<ErrorBody>,
    },
}

/// What a piece is of.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// The answer's text.
    Text,
    /// What the model thinks before it.
    Thoughts,
}

pub(super) const YES: &[u8] = b"yes";
pub(super) const NO: &[u8] = b"no";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_a_job_is_read_and_nothing_else_is_taken_for_one() {
        let letter = Letter {
            id: "01JDXAMPLE".to_owned(),
            node: "shop".to_owned(),
            session: "01JDSESSION".to_owned(),
            protocol: PROTOCOL,
            patience: Duration::from_millis(1500),
            digest: digest(b"abc"),
            stored: true,
            sending: 2,
            live: true,
        };
        // FIPS 180-2, appendix B.1.
        assert!(letter.digest.starts_with("ba7816bf8f01cfea"));
        assert_eq!(Letter::read(&letter.write()), Some(letter.clone()));
        assert_eq!(Letter::read(&HeaderMap::new()), None);
        for (name, value) in [
            (NODE, "a.b.>"),
            (ID, ""),
            (PATIENCE, "soon"),
            (SESSION, "*"),
            (SENDING, "-1"),
        ] {
            let mut headers = letter.write();
            headers.insert(name, value);
            assert_eq!(Letter::read(&headers), None, "{name}: {value}");
        }
    }
}
