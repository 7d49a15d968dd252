//! What callers on the bus are told, and why there may be no bus.

use tokio::sync::mpsc::error::TrySendError;
use zbus::{DBusError, fdo};

use crate::report::{ErrorBody, ErrorCode};

/// The daemon is not on the bus.
#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    /// No connection.
    #[error(
        "dbus.bus: cannot connect to \"{bus}\": {reason}; is dbus-daemon running, and is this the address of its socket?"
    )]
    Connect {
        /// As configured.
        bus: String,
        /// What the bus or the system answered.
        reason: String,
    },
    /// Another process has the name.
    #[error("another process owns {name} on the bus \"{bus}\"; `busctl status {name}` tells which")]
    NameTaken {
        /// As configured.
        bus: String,
        /// The name.
        name: &'static str,
    },
    /// The bus's policy does not let this user own the name.
    #[error(
        "the bus \"{bus}\" does not let this user own {name}: {reason}; install packaging/dbus/gemmad.conf in /usr/share/dbus-1/system.d and run as the user that it names"
    )]
    NameRefused {
        /// As configured.
        bus: String,
        /// The name.
        name: &'static str,
        /// What the bus answered.
        reason: String,
    },
    /// The connection broke while the objects were put on it.
    #[error("the bus \"{bus}\" went away: {reason}")]
    Lost {
        /// As configured.
        bus: String,
        /// What the bus or the system answered.
        reason: String,
    },
}

/// Errors of methods: `org.gemmad1.Error.…`.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.gemmad1.Error")]
pub(super) enum Error {
    /// The bus itself failed.
    #[zbus(error)]
    Bus(zbus::Error),
    /// Not the values that were expected.
    Invalid(String),
    /// No such camera, job or picture.
    NotFound(String),
    /// Too much is waiting.
    QueueFull(String),
    /// This user has as many jobs as one user may have.
    QuotaExceeded(String),
    /// Cannot be done now.
    Busy(String),
    /// Larger than the limits allow.
    TooLarge(String),
    /// Not a sound that can be read.
    InvalidAudio(String),
    /// Not a picture that can be read.
    InvalidImage(String),
    /// Ended on request.
    Cancelled(String),
    /// Not done in time.
    Timeout(String),
    /// Not allowed for this caller.
    NotPermitted(String),
    /// The model could not answer.
    Failed(String),
}

impl From<ErrorBody> for Error {
    fn from(ErrorBody { code, message }: ErrorBody) -> Error {
        match code {
            ErrorCode::Invalid => Error::Invalid(message),
            ErrorCode::NotFound => Error::NotFound(message),
            ErrorCode::QueueFull => Error::QueueFull(message),
            ErrorCode::Busy => Error::Busy(message),
            ErrorCode::TooLarge => Error::TooLarge(message),
            ErrorCode::InvalidAudio => Error::InvalidAudio(message),
            ErrorCode::InvalidImage => Error::InvalidImage(message),
            ErrorCode::Cancelled => Error::Cancelled(message),
            ErrorCode::Timeout => Error::Timeout(message),
            ErrorCode::NotPermitted => Error::NotPermitted(message),
            ErrorCode::Failed | ErrorCode::Poison => Error::Failed(message),
        }
    }
}

/// Properties can only fail with the errors that every service has.
impl From<Error> for fdo::Error {
    fn from(error: Error) -> fdo::Error {
        match error {
            Error::Bus(error) => fdo::Error::ZBus(error),
            Error::Invalid(m)
            | Error::InvalidAudio(m)
            | Error::InvalidImage(m)
            | Error::TooLarge(m) => fdo::Error::InvalidArgs(m),
            Error::NotFound(m) => fdo::Error::UnknownObject(m),
            Error::QueueFull(m) | Error::QuotaExceeded(m) => fdo::Error::LimitsExceeded(m),
            Error::Timeout(m) => fdo::Error::Timeout(m),
            Error::NotPermitted(m) => fdo::Error::AccessDenied(m),
            Error::Busy(m) | Error::Cancelled(m) | Error::Failed(m) => fdo::Error::Failed(m),
        }
    }
}

impl Error {
    /// A request that the daemon's queue did not take.
    pub(super) fn not_taken<T>(error: &TrySendError<T>) -> Error {
        match error {
            TrySendError::Full(_) => Error::queue_full(),
            TrySendError::Closed(_) => Error::stopping(),
        }
    }

    pub(super) fn queue_full() -> Error {
        Error::QueueFull("too many requests wait; try again later".to_owned())
    }

    pub(super) fn stopping() -> Error {
        Error::Busy("the daemon is stopping".to_owned())
    }
}
