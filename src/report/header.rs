//! Whose a request is.

use std::time::Duration;

/// Who asks, by which door, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The job's id, a ULID made by whoever received the request; updates of the job carry it.
    pub id: String,
    /// Who asks, and so who may cancel.
    pub origin: Origin,
    /// The asker's own name for it, given back with every answer.
    pub transaction: Option<String>,
    /// Names the response topic, and the kind of job on the bus: `ask`, `describe`, `transcribe`, `seen`, `dictate`, `recognize`, `chat`, `cancel`,
    /// `reload`, `stats`, `forget`, `listen`, `names`, `reply`, `say`, `silence` or `set`.
    pub kind: &'static str,
    /// After this time the job is given up, where the asker sets one; the configured limit holds as well.
    pub timeout: Option<Duration>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The broker.
    Mqtt,
    /// A peer on the bus.
    Bus {
        /// Its user.
        uid: u32,
        /// Its unique name.
        sender: String,
    },
    /// A client of the Wyoming server.
    Wyoming,
    /// A client of the HTTP server.
    Http,
    /// Another board of the fleet.
    Fleet {
        /// It is a picture that nobody asked for.
        unasked: bool,
    },
    /// A camera that Frigate watches.
    Frigate,
}

impl Origin {
    /// Whether whoever asks reads thoughts apart from the text, while they come.
    pub fn reads_thoughts(&self) -> bool {
        matches!(self, Origin::Http | Origin::Fleet { .. })
    }
}
