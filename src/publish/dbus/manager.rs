//! `org.gemmad1.Manager`: what runs, and requests that need no device.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd as FileFd;
use std::sync::Arc;
use std::time::Duration;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedFd, OwnedObjectPath, OwnedVariant, fdo, interface};

use super::call_options::{Options, limited};
use super::calls::{Call, set};
use super::error::Error;
use super::jobs::{no_job, state_name};
use super::state::{ManagerShown, Shared, Shown};
use super::{ROOT, job_path};
use crate::report::{AskFields, DescribeFields, Name, Payload, Switch, TranscribeFields};

/// How long a caller of Reload waits; clients give up after 25 s.
const RELOAD_WAIT: Duration = Duration::from_secs(20);

const ASK_OPTIONS: &[&str] = &[
    "system",
    "schema",
    "choices",
    "matformer",
    "max_tokens",
    "temperature",
    "seed",
    "thinking",
    "stream",
    "speak",
    "conversation",
    "timeout_ms",
    "image",
    "soft_tokens",
    "audio",
];
const TRANSCRIBE_OPTIONS: &[&str] = &["language", "matformer", "max_tokens", "timeout_ms"];
const DESCRIBE_OPTIONS: &[&str] = &[
    "soft_tokens",
    "prompt",
    "matformer",
    "max_tokens",
    "timeout_ms",
];

/// The object at the root.
pub(super) struct Manager {
    pub(super) shared: Arc<Shared>,
}

impl Manager {
    fn read<T>(&self, read: impl Fn(&ManagerShown) -> T) -> T {
        read(&self.shared.state().shown.manager)
    }
}

impl Call {
    /// Puts the job on the bus, its request into the daemon's queue, and tells everybody.
    pub(super) async fn submit(
        self,
        connection: &Connection,
        payload: Payload,
    ) -> Result<OwnedObjectPath, Error> {
        let path = self.begin_job(connection, payload).await?;
        let emitter = SignalEmitter::new(connection, ROOT)?;
        Manager::job_new(&emitter, path.as_ref()).await?;
        Ok(path)
    }
}

#[interface(name = "org.gemmad1.Manager")]
impl Manager {
    /// Asks the model. Options: system (s), schema (s, a JSON schema that the answer fits), choices (as), matformer (s), max_tokens (u),
    /// temperature (d), seed (t), thinking (b, with a Gemma 4), stream (b), conversation (s), timeout_ms (u), image (h, JPEG or PNG),
    /// soft_tokens (u, with a Gemma 4), audio (h, WAV, FLAC, OGG or MP3).
    #[zbus(out_args("job"))]
    async fn ask(
        &self,
        prompt: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let max = self.shared.config.max_text_bytes;
        let (mut ask, image, audio) = ask_options(prompt, options, max)?;
        if let Some(fd) = image {
            ask.image = Some(call.reader().read("image", fd).await?);
        }
        if let Some(fd) = audio {
            ask.audio = Some(call.reader().read("audio", fd).await?);
        }
        call.submit(connection, Payload::Ask(ask.try_into()?)).await
    }

    /// Writes down what is said in a WAV, FLAC, OGG or MP3: a sealed memfd, a file or a pipe. Options: language (s), matformer (s),
    /// max_tokens (u), timeout_ms (u).
    #[zbus(out_args("job"))]
    async fn transcribe(
        &self,
        audio: OwnedFd,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let mut transcribe = transcribe_options(options, self.shared.config.max_text_bytes)?;
        transcribe.audio = Some(call.reader().read("audio", audio.into()).await?);
        call.submit(connection, Payload::Transcribe(transcribe.try_into()?))
            .await
    }

    /// Says what a JPEG or PNG shows: a sealed memfd, a file or a pipe. Options: soft_tokens (u, with a Gemma 4),
    /// prompt (s), matformer (s), max_tokens (u), timeout_ms (u).
    #[zbus(out_args("job"))]
    async fn describe(
        &self,
        image: OwnedFd,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let mut describe = describe_options(options, self.shared.config.max_text_bytes)?;
        describe.image = Some(call.reader().read("image", image.into()).await?);
        call.submit(connection, Payload::Describe(describe.try_into()?))
            .await
    }

    /// The jobs of the bus: each one's object, kind, state and user.
    #[zbus(out_args("jobs"))]
    fn list_jobs(&self) -> Vec<(OwnedObjectPath, String, String, u32)> {
        let state = self.shared.state();
        let jobs = state.jobs.iter();
        let described = jobs.filter_map(|(id, job)| {
            let path = OwnedObjectPath::try_from(job_path(id)).ok()?;
            let state = state_name(*job.state.borrow());
            Some((path, job.kind.to_owned(), state.to_owned(), job.owner))
        });
        described.collect()
    }

    /// Reads the configuration again. An error says why the new one is not used; a part of it may need a restart, which the log tells.
    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        let path = call.submit(connection, Payload::Reload).await?;
        let id = path.rsplit('/').next().unwrap_or_default();
        let watched = self
            .shared
            .state()
            .jobs
            .get(id)
            .map(|job| job.state.subscribe());
        let mut watched = watched.ok_or_else(|| no_job(id))?;
        let ended = watched.wait_for(|state| state.has_ended());
        match tokio::time::timeout(RELOAD_WAIT, ended).await {
            Ok(_) => self.shared.state().jobs.result(id).map(drop),
            Err(_) => Err(Error::Timeout(format!(
                "not reloaded after {} s; {path} goes on",
                RELOAD_WAIT.as_secs()
            ))),
        }
    }

    /// Forgets what was answered before, which answers are guessed from.
    #[zbus(out_args("job"))]
    async fn forget(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        call.submit(connection, Payload::Forget).await
    }

    /// Chooses the slice that answers unless a request names one; the job tells whether the model has it.
    #[zbus(out_args("job"))]
    async fn set_mat_former(
        &self,
        slice: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        limited("slice", &slice, self.shared.config.max_text_bytes)?;
        let slice = Name::new("matformer", slice)?;
        call.submit(connection, Payload::Set(Switch::Matformer(slice)))
            .await
    }

    /// The speaker is to be silent: what is said ends, and what waits is forgotten.
    #[zbus(out_args("job"))]
    async fn silence(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let call = Call::begin(&self.shared, connection, &header).await?;
        call.submit(connection, Payload::Silence).await
    }

    /// gemmad's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        self.read(|shown| shown.version.clone())
    }

    /// The model's name.
    #[zbus(property)]
    fn model(&self) -> String {
        self.read(|shown| shown.model.clone())
    }

    /// The slice that answers unless a request names one. A new value shows once the daemon has taken it.
    #[zbus(property)]
    fn mat_former(&self) -> String {
        self.read(|shown| shown.matformer.clone())
    }

    #[zbus(property, name = "MatFormer")]
    async fn set_mat_former_property(
        &self,
        slice: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> fdo::Result<()> {
        limited("MatFormer", &slice, self.shared.config.max_text_bytes)?;
        let slice = Name::new("matformer", slice).map_err(Error::from)?;
        let wanted = slice.clone();
        let taken = |shown: &Shown| shown.manager.matformer == *wanted;
        let switch = Switch::Matformer(slice);
        Ok(set(&self.shared, connection, header, switch, taken).await?)
    }

    /// loading, ready, degraded or stopping.
    #[zbus(property)]
    fn state(&self) -> String {
        self.read(|shown| shown.state.clone())
    }

    /// Jobs that wait or run, those of MQTT and of microphones and cameras included.
    #[zbus(property)]
    fn queue_depth(&self) -> u32 {
        self.read(|shown| shown.queue_depth)
    }

    /// Resident weights of each parameter group (text, ple, audio, vision), bytes.
    #[zbus(property)]
    fn memory_groups(&self) -> BTreeMap<String, u64> {
        self.read(|shown| shown.memory_groups.clone())
    }

    /// Whether there is a connection to the broker.
    #[zbus(property)]
    fn mqtt_connected(&self) -> bool {
        self.read(|shown| shown.mqtt_connected)
    }

    /// A job was asked for.
    #[zbus(signal)]
    pub(super) async fn job_new(
        emitter: &SignalEmitter<'_>,
        job: ObjectPath<'_>,
    ) -> zbus::Result<()>;

    /// An ended job is forgotten; result is its last state.
    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        job: ObjectPath<'_>,
        result: &str,
    ) -> zbus::Result<()>;
}

/// What `Ask` asks, and the descriptors of its picture and of its sound, which are still to be read.
pub(super) fn ask_options(
    prompt: String,
    options: HashMap<String, OwnedVariant>,
    max_text_bytes: usize,
) -> Result<(AskFields, Option<FileFd>, Option<FileFd>), Error> {
    limited("prompt", &prompt, max_text_bytes)?;
    let mut options = Options::new(options, ASK_OPTIONS, max_text_bytes)?;
    let (image, audio) = (options.fd("image")?, options.fd("audio")?);
    let ask = AskFields {
        prompt,
        system: options.text("system")?,
        schema: options.json("schema")?,
        choices: options.texts("choices")?,
        matformer: options.text("matformer")?,
        max_tokens: options.count("max_tokens")?,
        temperature: options.number("temperature")?,
        seed: options.whole("seed")?,
        thinking: options.flag("thinking")?,
        stream: options.flag("stream")?.unwrap_or_default(),
        speak: options.flag("speak")?.unwrap_or_default(),
        conversation: options.text("conversation")?,
        timeout_ms: options.whole("timeout_ms")?,
        image: None,
        soft_tokens: options.count("soft_tokens")?,
        audio: None,
    };
    Ok((ask, image, audio))
}

/// The options of `Transcribe`.
pub(super) fn transcribe_options(
    options: HashMap<String, OwnedVariant>,
    max_text_bytes: usize,
) -> Result<TranscribeFields, Error> {
    let mut options = Options::new(options, TRANSCRIBE_OPTIONS, max_text_bytes)?;
    Ok(TranscribeFields {
        language: options.text("language")?,
        matformer: options.text("matformer")?,
        max_tokens: options.count("max_tokens")?,
        timeout_ms: options.whole("timeout_ms")?,
        audio: None,
    })
}

/// The options that both `Describe` have.
pub(super) fn describe_options(
    options: HashMap<String, OwnedVariant>,
    max_text_bytes: usize,
) -> Result<DescribeFields, Error> {
    let mut options = Options::new(options, DESCRIBE_OPTIONS, max_text_bytes)?;
    Ok(DescribeFields {
        soft_tokens: options.count("soft_tokens")?,
        prompt: options.text("prompt")?,
        matformer: options.text("matformer")?,
        max_tokens: options.count("max_tokens")?,
        timeout_ms: options.whole("timeout_ms")?,
        ..DescribeFields::default()
    })
}
