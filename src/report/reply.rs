//! The way back from the daemon to whoever asked.

use std::fmt;
use std::sync::Arc;

use super::result::JobUpdate;

/// Where the answers to one request go. The door that the request came by makes it, the daemon keeps it while the job is open.
///
/// Answers come in order, on the daemon's loop: whoever takes them puts them where they wait, within a bound, and never waits itself.
#[derive(Clone)]
pub struct ReplyTo(Arc<dyn Fn(&JobUpdate) + Send + Sync>);

impl ReplyTo {
    /// To whatever `take` does with them.
    pub fn new(take: impl Fn(&JobUpdate) + Send + Sync + 'static) -> ReplyTo {
        ReplyTo(Arc::new(take))
    }

    /// Nobody waits for them.
    pub fn nobody() -> ReplyTo {
        ReplyTo::new(|_| ())
    }

    /// Tells how far the job is.
    pub fn tell(&self, update: &JobUpdate) {
        (self.0)(update);
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}
