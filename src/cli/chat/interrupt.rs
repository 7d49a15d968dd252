//! Ctrl-C: while something is answered it ends the answer, and not the conversation.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::broker::block_on;

/// Whether Ctrl-C was pressed since the last [`Interrupt::begin`].
#[derive(Clone)]
pub(super) struct Interrupt(watch::Receiver<()>);

impl Interrupt {
    /// Where somebody looks, Ctrl-C is taken over for the rest of the process; in a pipe it ends the process, as that of any command.
    pub(super) fn new(on_terminal: bool) -> Interrupt {
        match on_terminal {
            true => Interrupt::taken_over(),
            false => Interrupt(watch::channel(()).1),
        }
    }

    fn taken_over() -> Interrupt {
        let (press, pressed) = watch::channel(());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let wait = move || {
            let waited = block_on(async {
                let mut interrupt = signal(SignalKind::interrupt())?;
                ready.send(()).ok();
                while interrupt.recv().await.is_some() {
                    press.send_replace(());
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
        Interrupt(pressed)
    }

    /// What was pressed before is forgotten.
    pub(super) fn begin(&mut self) {
        self.0.mark_unchanged();
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// Waits until it is pressed.
    pub(super) async fn pressed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
