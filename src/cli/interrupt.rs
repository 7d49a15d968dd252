//! Ctrl-C where more is to be said than that the process ends.

use tokio::signal::unix::{SignalKind, signal};

use super::broker::block_on;
use super::failure::exit;

/// Takes Ctrl-C over for the rest of the process: `pressed` is called each time.
pub(super) fn each(mut pressed: impl FnMut() + Send + 'static) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let wait = move || {
        let waited = block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            ready.send(()).ok();
            while interrupt.recv().await.is_some() {
                pressed();
            }
            std::io::Result::Ok(())
        });
        // Without it the signal just ends the process.
        waited.and_then(|waited| waited).ok();
    };
    let thread = std::thread::Builder::new().name("interrupt".to_owned());
    if thread.spawn(wait).is_ok() {
        is_ready.recv().ok();
    }
}

/// On Ctrl-C: what is to be done then, and the end of the process. What is in the files is whole at any time.
pub(super) fn ends_with(last: impl FnOnce() + Send + 'static) {
    let mut last = Some(last);
    each(move || {
        if let Some(last) = last.take() {
            last();
        }
        std::process::exit(i32::from(exit::INTERRUPTED));
    });
}
