//! `org.gemmad1.Events`: what was heard and seen. The bus's policy shows it to the group `gemmad` only.

use zbus::interface;
use zbus::object_server::SignalEmitter;

use super::values::Dict;

/// The signals at the root.
pub(super) struct Events;

#[interface(name = "org.gemmad1.Events")]
impl Events {
    /// Speech as text. source is the microphone's id; the event has the keys of the MQTT payload.
    #[zbus(signal)]
    pub(super) async fn transcript(
        emitter: &SignalEmitter<'_>,
        source: &str,
        event: Dict,
    ) -> zbus::Result<()>;

    /// Speech as one of the configured commands: its name and slots are under command.
    #[zbus(signal)]
    pub(super) async fn command(
        emitter: &SignalEmitter<'_>,
        source: &str,
        event: Dict,
    ) -> zbus::Result<()>;

    /// A picture as a sentence. source is the camera's id.
    #[zbus(signal)]
    pub(super) async fn caption(
        emitter: &SignalEmitter<'_>,
        source: &str,
        event: Dict,
    ) -> zbus::Result<()>;

    /// What came to nothing: event_type is not_understood, rejected or failed, and reason says why.
    #[zbus(signal)]
    pub(super) async fn rejected(
        emitter: &SignalEmitter<'_>,
        source: &str,
        event: Dict,
    ) -> zbus::Result<()>;
}
