//! Ctrl-C: while something is answered it ends the answer, and not the conversation.

use tokio::sync::watch;

use crate::cli::interrupt;

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
        interrupt::each(move || {
            press.send_replace(());
        });
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
