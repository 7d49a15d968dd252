//! `org.gemmad1.Job`: one request, from its place in the queue to its result.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use ulid::Ulid;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use super::caller::{sender, uid};
use super::error::Error;
use super::jobs::{Job, no_job, state_name};
use super::state::Shared;
use super::values::{Dict, dict};
use crate::report::{Cancel, Name, Origin, Payload, ReplyTo, Request};

/// How long a cancel waits for a place in the daemon's queue.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// A job's object.
pub(super) struct JobObject {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
}

impl JobObject {
    fn read<T>(&self, read: impl Fn(&Job) -> T) -> fdo::Result<T> {
        let state = self.shared.state();
        let job = state.jobs.get(&self.id).map(read);
        job.ok_or_else(|| no_job(&self.id).into())
    }

    /// Lets the owner's user and root pass.
    async fn permit(&self, connection: &Connection, header: &Header<'_>) -> Result<Origin, Error> {
        let sender = sender(header)?;
        let uid = uid(connection, &sender).await?;
        let owner = self.shared.state().jobs.get(&self.id).map(|job| job.owner);
        let owner = owner.ok_or_else(|| no_job(&self.id))?;
        if uid != 0 && uid != owner {
            return Err(Error::NotPermitted(format!(
                "the job belongs to user {owner}; only that user and root may do this"
            )));
        }
        Ok(Origin::Bus { uid, sender })
    }
}

#[interface(name = "org.gemmad1.Job")]
impl JobObject {
    /// What was asked: ask, transcribe, describe, listen, reload, forget or set.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> fdo::Result<String> {
        self.read(|job| job.kind.to_owned())
    }

    /// queued, running, done, failed or cancelled.
    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        self.read(|job| state_name(*job.state.borrow()).to_owned())
    }

    /// Share of the work that is done, 0 to 1, where it is known.
    #[zbus(property)]
    fn progress(&self) -> fdo::Result<f64> {
        self.read(|job| job.progress)
    }

    /// When it was asked for, microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> fdo::Result<u64> {
        self.read(|job| job.created_us)
    }

    /// The user who asked.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> fdo::Result<u32> {
        self.read(|job| job.owner)
    }

    /// Ends the job, for its owner and root. State tells when it has ended.
    async fn cancel(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let origin = self.permit(connection, &header).await?;
        cancel(&self.shared, origin, self.id.clone()).await
    }

    /// What was answered (text, thoughts, finish, conversation, matformer, timing, details), for the job's owner and root; an error if the
    /// job failed, was cancelled or is not done.
    #[zbus(out_args("result"))]
    async fn result(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Dict, Error> {
        self.permit(connection, &header).await?;
        let state = self.shared.state();
        state.jobs.result(&self.id).map(dict)
    }

    /// The next piece of the answer, to the caller alone and only with the option stream.
    #[zbus(signal)]
    pub(super) async fn partial(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;

    /// The job ended as done, failed or cancelled; to the caller alone.
    #[zbus(signal)]
    pub(super) async fn finished(emitter: &SignalEmitter<'_>, state: &str) -> zbus::Result<()>;
}

/// Tells the daemon to end a job.
pub(super) async fn cancel(shared: &Shared, origin: Origin, job: String) -> Result<(), Error> {
    let cancel = Payload::Cancel(Cancel::Job(Name::new("job", job)?));
    let id = Ulid::generate().to_string();
    let request = Request::new(id, origin, None, cancel, ReplyTo::nobody());
    let sent = shared.requests.send_timeout(request, CANCEL_WAIT).await;
    sent.map_err(|error| match error {
        SendTimeoutError::Timeout(_) => Error::queue_full(),
        SendTimeoutError::Closed(_) => Error::stopping(),
    })
}
