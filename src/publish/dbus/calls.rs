//! From a method call to a job: who calls, whether the user may have one more, and the daemon's queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use ulid::Ulid;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath};

use super::caller::{sender, uid};
use super::error::Error;
use super::job::JobObject;
use super::job_path;
use super::payload::Reader;
use super::state::{Shared, Shown};
use crate::report::{Origin, Payload, ReplyTo, Request, Switch};

/// How long the setting of a property waits until the daemon has done it, and how often it looks.
const SET_WAIT: Duration = Duration::from_secs(1);
const SET_LOOK: Duration = Duration::from_millis(10);

/// A call that is being read: whether its sender leaves is noticed.
struct Noted {
    shared: Arc<Shared>,
    id: String,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.shared.state().jobs.end(&self.id);
    }
}

/// A call whose caller is known and within the quota; it becomes a job or ends.
pub(super) struct Call {
    noted: Noted,
    origin: Origin,
    _permit: OwnedSemaphorePermit,
}

impl Call {
    /// # Errors
    /// Too many calls at once, too many jobs of this user, or a caller that has left.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        connection: &Connection,
        header: &Header<'_>,
    ) -> Result<Call, Error> {
        let too_many = |_| Error::QueueFull("too many calls at once; try again later".to_owned());
        let permit = shared.calls.clone().try_acquire_owned().map_err(too_many)?;
        let sender = sender(header)?;
        let id = Ulid::generate().to_string();
        // Noted first and asked second: whoever has left by the time of the answer has no user any more, and whoever leaves later is
        // found among the callers.
        shared.state().jobs.begin(&id, &sender);
        let shared = shared.clone();
        let noted = Noted { shared, id };
        let uid = uid(connection, &sender).await?;
        let most = noted.shared.config.jobs_per_user;
        noted.shared.state().jobs.count(&noted.id, uid, most)?;
        Ok(Call {
            noted,
            origin: Origin::Bus { uid, sender },
            _permit: permit,
        })
    }

    /// For the bytes that the caller hands over.
    pub(super) fn reader(&self) -> Reader {
        let shared = &self.noted.shared;
        let config = &shared.config;
        Reader {
            max_bytes: config.max_attachment_bytes,
            timeout: Duration::from_millis(config.attachment_timeout_ms.into()),
            reads: shared.reads.clone(),
        }
    }

    /// Puts the job on the bus and its request into the daemon's queue.
    pub(super) async fn begin_job(
        &self,
        connection: &Connection,
        payload: Payload,
    ) -> Result<OwnedObjectPath, Error> {
        let Noted { shared, id } = &self.noted;
        let slot = shared.requests.clone().try_reserve_owned();
        let slot = slot.map_err(|error| Error::not_taken(&error))?;
        let told = shared.clone();
        let reply = ReplyTo::new(move |update| told.update(update));
        let request = Request::new(id.clone(), self.origin.clone(), None, payload, reply);
        shared.state().jobs.create(id, request.header.kind)?;
        let path = job_path(id);
        let object = JobObject {
            shared: shared.clone(),
            id: id.clone(),
        };
        if let Err(error) = connection.object_server().at(path.as_str(), object).await {
            shared.state().jobs.drop(id);
            return Err(error.into());
        }
        let sent = {
            let mut state = shared.state();
            let sent = state.jobs.send(id);
            if sent {
                slot.send(request);
            } else {
                state.jobs.drop(id);
            }
            sent
        };
        if !sent {
            connection
                .object_server()
                .remove::<JobObject, _>(path.as_str())
                .await?;
            return Err(Error::Cancelled("the caller left the bus".to_owned()));
        }
        Ok(OwnedObjectPath::try_from(path)?)
    }
}

/// Asks for something that has no answer and no job: a property was set. Waits a little until `taken` says that the objects show
/// it: after a setter the library announces what they show then, which is not to be the old value.
pub(super) async fn set(
    shared: &Shared,
    connection: &Connection,
    header: Option<Header<'_>>,
    switch: Switch,
    taken: impl Fn(&Shown) -> bool,
) -> Result<(), Error> {
    let header = header.ok_or_else(|| Error::NotPermitted("the call has no sender".to_owned()))?;
    let sender = sender(&header)?;
    let uid = uid(connection, &sender).await?;
    let (id, origin) = (Ulid::generate().to_string(), Origin::Bus { uid, sender });
    let request = Request::new(id, origin, None, Payload::Set(switch), ReplyTo::nobody());
    shared
        .requests
        .try_send(request)
        .map_err(|error| Error::not_taken(&error))?;
    let deadline = Instant::now() + SET_WAIT;
    while Instant::now() < deadline && !taken(&shared.state().shown) {
        sleep(SET_LOOK).await;
    }
    Ok(())
}
