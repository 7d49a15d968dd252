//! What the service manager is told. Without one, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::guard::harmless::line;

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// The line of `systemctl status`.
pub(super) fn status(text: &str) {
    notify(&[NotifyState::Status(&line(text))]);
}

/// Everything is open.
pub(super) fn ready(text: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// The configuration is read again; [`ready`] follows. Managers before 253 ignore it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("cannot read the monotonic clock: {error}"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Starting takes longer.
pub(super) fn extend_start(by: Duration) {
    let microseconds = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// The daemon is alive and its worker gets on.
pub(super) fn feed_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be fed; `None` where it is off.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
