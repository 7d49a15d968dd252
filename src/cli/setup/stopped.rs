//! The service, which has microphones, cameras and memory for itself while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::service::systemctl;

/// It was stopped and is to run again if nothing comes of the setup.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Stops the service, where it is one and this user may; whether it is stopped now.
pub(super) fn stop() -> bool {
    let stopped = systemctl("is-active") && systemctl("stop");
    STOPPED.store(stopped, Ordering::SeqCst);
    stopped
}

/// Starts it again, if it was stopped here.
pub(super) fn start_again() {
    if STOPPED.swap(false, Ordering::SeqCst) {
        systemctl("start");
    }
}

/// It is to be started by whoever was told so.
pub(super) fn leave_stopped() {
    STOPPED.store(false, Ordering::SeqCst);
}
