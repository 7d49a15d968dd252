//! Ctrl-C where more is to be said than that the process ends.

use tokio::signal::unix::{SignalKind, signal};

use super::broker::block_on;
use super::failure::exit;

/// On Ctrl-C: what is to be done then, and the end of the process. What is in the files is whole at any time.
pub(super) fn ends_with(last: impl FnOnce() + Send + 'static) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let wait = move || {
        let waited = block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            ready.send(()).ok();
            interrupt.recv().await;
            std::io::Result::Ok(())
        });
        if matches!(waited, Ok(Ok(()))) {
            last();
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    };
    // Without it the signal just ends the process.
    let thread = std::thread::Builder::new().name("interrupt".to_owned());
    if thread.spawn(wait).is_ok() {
        is_ready.recv().ok();
    }
}
