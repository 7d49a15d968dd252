//! `org.gemmad1.Microphone` and `org.gemmad1.Camera`: what is listened to and watched.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::Header;
use zbus::{Connection, OwnedFd, OwnedObjectPath, OwnedVariant, fdo, interface};

use super::call_options::{Options, limited};
use super::calls::{Call, set};
use super::error::Error;
use super::manager::describe_options;
use super::payload::sealed;
use super::state::{CameraShown, MicrophoneShown, Shared, Shown};
use crate::media::DeviceState;
use crate::report::{DescribeFields, ErrorBody, Name, Payload, SayFields, Switch};

/// A microphone's object.
pub(super) struct Microphone {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
}

impl Microphone {
    fn read<T>(&self, read: impl Fn(&MicrophoneShown) -> T) -> fdo::Result<T> {
        let state = self.shared.state();
        let microphone = state.shown.microphones.get(&self.id).map(read);
        microphone.ok_or_else(|| gone("microphone", &self.id))
    }

    fn name_in_requests(&self) -> Result<Name, ErrorBody> {
        Name::new("microphone", self.id.clone())
    }
}

#[interface(name = "org.gemmad1.Microphone")]
impl Microphone {
    /// Listens once: what is said next counts (push-to-talk); the signal Rejected tells where nothing is. There are no options yet.
    #[zbus(out_args("job"))]
    async fn listen(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        Options::new(options, &[], self.shared.config.max_text_bytes)?;
        let id = self.name_in_requests()?;
        call.submit(connection, Payload::Listen { id }).await
    }

    /// Says something by the board's speaker; the job is done once it has been heard. Options: audio (h, WAV, FLAC, OGG or MP3) in the
    /// place of the text, which is empty then; id (s), of the event to which it is the answer; urgent (b).
    #[zbus(out_args("job"))]
    async fn say(
        &self,
        text: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let max = self.shared.config.max_text_bytes;
        limited("text", &text, max)?;
        let mut options = Options::new(options, &["audio", "id", "urgent"], max)?;
        let mut say = SayFields {
            microphone: Some(self.id.clone()),
            text: (!text.is_empty()).then_some(text),
            id: options.text("id")?,
            urgent: options.flag("urgent")?.unwrap_or_default(),
            audio: None,
        };
        if let Some(fd) = options.fd("audio")? {
            say.audio = Some(call.reader().read("audio", fd).await?);
        }
        call.submit(connection, Payload::Say(say.try_into()?)).await
    }

    /// Name for people.
    #[zbus(property)]
    fn name(&self) -> fdo::Result<String> {
        self.read(|microphone| microphone.name.clone())
    }

    /// ALSA PCM.
    #[zbus(property)]
    fn device(&self) -> fdo::Result<String> {
        self.read(|microphone| microphone.device.clone())
    }

    /// online, offline or muted.
    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        self.read(|microphone| microphone.state_name().to_owned())
    }

    /// Whether somebody is speaking.
    #[zbus(property)]
    fn speaking(&self) -> fdo::Result<bool> {
        self.read(|microphone| microphone.speaking)
    }

    /// Whether the device is closed on purpose. A new value shows once the daemon has taken it.
    #[zbus(property)]
    fn muted(&self) -> fdo::Result<bool> {
        self.read(|microphone| microphone.state == DeviceState::Off)
    }

    #[zbus(property)]
    async fn set_muted(
        &self,
        muted: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> fdo::Result<()> {
        let id = self.name_in_requests().map_err(Error::from)?;
        let taken = |shown: &Shown| {
            let microphone = shown.microphones.get(&self.id);
            microphone.is_none_or(|microphone| (microphone.state == DeviceState::Off) == muted)
        };
        let switch = Switch::Mute { id, muted };
        Ok(set(&self.shared, connection, header, switch, taken).await?)
    }
}

/// A camera's object.
pub(super) struct Camera {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
}

impl Camera {
    fn read<T>(&self, read: impl Fn(&CameraShown) -> T) -> fdo::Result<T> {
        let state = self.shared.state();
        let camera = state.shown.cameras.get(&self.id).map(read);
        camera.ok_or_else(|| gone("camera", &self.id))
    }

    fn name_in_requests(&self) -> Result<Name, ErrorBody> {
        Name::new("camera", self.id.clone())
    }
}

#[interface(name = "org.gemmad1.Camera")]
impl Camera {
    /// Says what the camera sees now. Options: soft_tokens (u, with a Gemma 4), prompt (s), matformer (s), max_tokens (u),
    /// timeout_ms (u).
    #[zbus(out_args("job"))]
    async fn describe(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let options = describe_options(options, self.shared.config.max_text_bytes)?;
        let describe = DescribeFields {
            camera: Some(self.id.clone()),
            ..options
        };
        call.submit(connection, Payload::Describe(describe.try_into()?))
            .await
    }

    /// The picture that was described last, JPEG in sealed memory, where the camera's pictures are published.
    #[zbus(out_args("jpeg"))]
    fn snapshot(&self) -> Result<OwnedFd, Error> {
        let picture = self.shared.state().pictures.get(&self.id).cloned();
        let none = || {
            Error::NotFound(format!(
                "no picture of camera {} was described and published yet; call Describe first",
                self.id
            ))
        };
        let fd = sealed(&picture.ok_or_else(none)?);
        fd.map(OwnedFd::from)
            .map_err(|error| Error::Failed(format!("no memory for the picture: {error}")))
    }

    /// Name for people.
    #[zbus(property)]
    fn name(&self) -> fdo::Result<String> {
        self.read(|camera| camera.name.clone())
    }

    /// Device, address or directory.
    #[zbus(property)]
    fn device(&self) -> fdo::Result<String> {
        self.read(|camera| camera.device.clone())
    }

    /// online, offline or disabled.
    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        self.read(|camera| camera.state_name().to_owned())
    }

    /// Whether something moves.
    #[zbus(property)]
    fn motion(&self) -> fdo::Result<bool> {
        self.read(|camera| camera.motion)
    }

    /// Whether the device is not closed on purpose. A new value shows once the daemon has taken it.
    #[zbus(property)]
    fn enabled(&self) -> fdo::Result<bool> {
        self.read(|camera| camera.state != DeviceState::Off)
    }

    #[zbus(property)]
    async fn set_enabled(
        &self,
        enabled: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> fdo::Result<()> {
        let id = self.name_in_requests().map_err(Error::from)?;
        let taken = |shown: &Shown| {
            let camera = shown.cameras.get(&self.id);
            camera.is_none_or(|camera| (camera.state != DeviceState::Off) == enabled)
        };
        let switch = Switch::Enable { id, enabled };
        Ok(set(&self.shared, connection, header, switch, taken).await?)
    }

    /// Whether pictures are described without being asked for. A new value shows once the daemon has taken it.
    #[zbus(property)]
    fn captions_enabled(&self) -> fdo::Result<bool> {
        self.read(|camera| camera.captions)
    }

    #[zbus(property)]
    async fn set_captions_enabled(
        &self,
        enabled: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> fdo::Result<()> {
        let id = self.name_in_requests().map_err(Error::from)?;
        let taken = |shown: &Shown| {
            let camera = shown.cameras.get(&self.id);
            camera.is_none_or(|camera| camera.captions == enabled)
        };
        let switch = Switch::Captions { id, enabled };
        Ok(set(&self.shared, connection, header, switch, taken).await?)
    }
}

fn gone(what: &str, id: &str) -> fdo::Error {
    fdo::Error::UnknownObject(format!("there is no {what} {id} any more"))
}
