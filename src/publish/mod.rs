//! The doors: reports go out, requests come in, and each request has its own way back ([`crate::report::ReplyTo`]).
//!
//! A door is a folder here and a line in the list of `daemon::doors`.

pub mod dbus;
pub mod frigate;
pub mod http;
pub mod mqtt;
mod replies;
pub mod wyoming;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::report::{Info, ModelCard, MqttHealth, Report, Request};

/// What a door is opened with.
#[derive(Clone, Debug)]
pub struct Inside {
    /// What runs.
    pub info: Info,
    /// What the model is.
    pub card: Arc<ModelCard>,
    /// Where requests go; what finds no room is refused.
    pub requests: mpsc::Sender<Request>,
}

/// A door that is being opened, or in words why it cannot be.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Door>, String>>>>;

/// A door that closes.
pub type Stopped = Pin<Box<dyn Future<Output = ()>>>;

/// A way in and out that is open.
pub trait Door {
    /// Takes in what happened. Never waits.
    fn publish(&self, report: &Report);

    /// Whether it still stands. One that does not is opened anew.
    fn is_open(&self) -> bool {
        true
    }

    /// How it is, in words for the status line, where that changes.
    fn status(&self) -> Option<&'static str> {
        None
    }

    /// How the connection to the broker is, of the door that has one.
    fn mqtt_health(&self) -> Option<MqttHealth> {
        None
    }

    /// Sends what waits, within the limit, and closes.
    fn stop(self: Box<Self>, limit: Duration) -> Stopped;
}
