//! The door's own tasks: one tells the bus what changed, one notices callers that leave.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use zbus::fdo::{NameOwnerChangedStream, Properties as FdoProperties};
use zbus::names::{BusName, InterfaceName};
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, Result};

use super::events::Events;
use super::job::{JobObject, cancel};
use super::jobs::{JobNews, state_name};
use super::manager::Manager;
use super::sources::{Camera, Microphone};
use super::state::{Properties, Shared, Shown, Signal};
use super::values::{Dict, dict};
use super::{ROOT, job_path, source_path};
use crate::report::{EventType, Origin};

/// Without a job that waits to be forgotten.
const LONG: Duration = Duration::from_secs(3600);

/// Tells the bus what changed, until the connection is lost.
pub(super) async fn tell(connection: Connection, shared: Arc<Shared>, mut told: Shown) {
    let keep = Duration::from_secs(shared.config.keep_finished_s.into());
    let mut dropped = 0;
    loop {
        let expiry = shared.state().jobs.next_expiry(keep);
        let expiry = expiry.unwrap_or_else(|| Instant::now() + LONG);
        tokio::select! {
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(expiry.into()) => {}
            () = connection.closed() => return,
        }
        if let Err(error) = tell_once(&connection, &shared, &mut told, keep).await {
            // A signal that cannot be written is lost; whether the connection is, `Bus::alive` tells.
            log::debug!(target: "dbus", "cannot tell the bus: {error}");
        }
        let now = shared.state().dropped;
        if now != dropped {
            log::warn!(target: "dbus", "the bus is slow: {} signals were dropped", now - dropped);
            dropped = now;
        }
    }
}

async fn tell_once(
    connection: &Connection,
    shared: &Arc<Shared>,
    told: &mut Shown,
    keep: Duration,
) -> Result<()> {
    let (signals, shown, news, forgotten) = {
        let mut state = shared.state();
        let signals = std::mem::take(&mut state.signals);
        let news = state.jobs.news();
        (signals, state.shown.clone(), news, state.jobs.expire(keep))
    };
    for signal in signals {
        tell_signal(connection, shared, signal).await?;
    }
    let before = std::mem::replace(told, shown);
    tell_properties(
        connection,
        ROOT,
        Manager::name(),
        told.manager.changed(&before.manager),
    )
    .await?;
    tell_sources(connection, shared, &before, told).await?;
    for JobNews {
        id,
        sender,
        changed,
        finished,
    } in news
    {
        let path = job_path(&id);
        tell_properties(connection, &path, JobObject::name(), changed).await?;
        if let Some(state) = finished {
            let emitter = to_caller(connection, &path, sender)?;
            JobObject::finished(&emitter, state_name(state)).await?;
        }
    }
    for (id, state) in forgotten {
        let path = job_path(&id);
        connection
            .object_server()
            .remove::<JobObject, _>(path.as_str())
            .await?;
        let emitter = SignalEmitter::new(connection, ROOT)?;
        Manager::job_removed(&emitter, ObjectPath::try_from(path)?, state_name(state)).await?;
    }
    Ok(())
}

async fn tell_signal(connection: &Connection, shared: &Shared, signal: Signal) -> Result<()> {
    let emitter = SignalEmitter::new(connection, ROOT)?;
    match signal {
        Signal::Voice(event) => {
            let (source, body) = (&event.source, dict(&event));
            match event.event_type {
                EventType::Transcript => Events::transcript(&emitter, source, body).await,
                EventType::Command => Events::command(&emitter, source, body).await,
                _ => Events::rejected(&emitter, source, body).await,
            }
        }
        Signal::Caption(event) => {
            let (source, body) = (&event.source, dict(&event));
            match event.event_type {
                EventType::Caption => Events::caption(&emitter, source, body).await,
                _ => Events::rejected(&emitter, source, body).await,
            }
        }
        Signal::Partial { job, text } => {
            let sender = shared.state().jobs.get(&job).map(|job| job.sender.clone());
            let Some(sender) = sender else { return Ok(()) };
            let path = job_path(&job);
            JobObject::partial(&to_caller(connection, &path, sender)?, &text).await
        }
    }
}

/// Objects come and go with the configuration; those that stay tell what changed.
async fn tell_sources(
    connection: &Connection,
    shared: &Arc<Shared>,
    before: &Shown,
    now: &Shown,
) -> Result<()> {
    let server = connection.object_server();
    for id in before
        .microphones
        .keys()
        .filter(|id| !now.microphones.contains_key(*id))
    {
        server
            .remove::<Microphone, _>(source_path("mic", id))
            .await?;
    }
    for id in before
        .cameras
        .keys()
        .filter(|id| !now.cameras.contains_key(*id))
    {
        server
            .remove::<Camera, _>(source_path("camera", id))
            .await?;
    }
    for (id, microphone) in &now.microphones {
        let path = source_path("mic", id);
        match before.microphones.get(id) {
            Some(before) => {
                tell_properties(
                    connection,
                    &path,
                    Microphone::name(),
                    microphone.changed(before),
                )
                .await?
            }
            None => {
                let object = Microphone {
                    shared: shared.clone(),
                    id: id.clone(),
                };
                server.at(path, object).await?;
            }
        }
    }
    for (id, camera) in &now.cameras {
        let path = source_path("camera", id);
        match before.cameras.get(id) {
            Some(before) => {
                tell_properties(connection, &path, Camera::name(), camera.changed(before)).await?
            }
            None => {
                let object = Camera {
                    shared: shared.clone(),
                    id: id.clone(),
                };
                server.at(path, object).await?;
            }
        }
    }
    Ok(())
}

async fn tell_properties(
    connection: &Connection,
    path: &str,
    interface: InterfaceName<'static>,
    changed: Dict,
) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let emitter = SignalEmitter::new(connection, path)?;
    let changed = changed
        .iter()
        .map(|(name, value)| Ok((name.as_str(), value.try_clone()?)));
    let changed = changed.collect::<Result<_>>()?;
    FdoProperties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await
}

/// Signals that only the one who asked receives.
fn to_caller<'a>(
    connection: &Connection,
    path: &'a str,
    sender: String,
) -> Result<SignalEmitter<'a>> {
    let sender = BusName::try_from(sender)?;
    Ok(SignalEmitter::new(connection, path)?.set_destination(sender))
}

/// Ends the jobs of callers that leave the bus, and all of them when the bus is lost.
pub(super) async fn watch_callers(shared: Arc<Shared>, mut changes: NameOwnerChangedStream) {
    while let Some(change) = changes.next().await {
        let Ok(change) = change.args() else { continue };
        if change.new_owner().is_none() {
            let sender = change.name().as_str();
            let jobs = shared
                .state()
                .jobs
                .forget_callers(|caller| caller == sender);
            cancel_all(&shared, jobs);
        }
    }
    let jobs = shared.state().jobs.forget_callers(|_| true);
    cancel_all(&shared, jobs);
}

fn cancel_all(shared: &Arc<Shared>, jobs: Vec<(String, Origin)>) {
    for (job, origin) in jobs {
        let shared = shared.clone();
        // Its own task: the daemon's queue may be full for a while. There are no more of them than jobs.
        tokio::spawn(async move {
            if let Err(error) = cancel(&shared, origin, job).await {
                log::debug!(target: "dbus", "a job goes on without its caller: {error}");
            }
        });
    }
}
