//! `gemmad setup`: a few questions, and a gemmad.toml that the doctor likes.

mod broker;
mod devices;
mod document;
mod model;
mod prompts;
mod stopped;
mod tries;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use similar::TextDiff;

use super::config_file;
use super::failure::{Failure, exit, note};
use super::interrupt;
use super::procfs;
use super::pull::MODELS;
use crate::config::Config;
use crate::guard::secret::without_secrets;
use broker::{Chosen, Surroundings};
use devices::Kind;
use document::{Answers, Source};
use model::Choice;
use prompts::{Asker, tell};
use tries::Tries;

/// What stands in a file that is not there yet: the package's own.
const FRESH: &str = include_str!("../../../packaging/gemmad.toml");
const DEFAULT_OUTPUT: &str = "/etc/gemmad/gemmad.toml";

/// Ask a few questions and write gemmad.toml: the model, microphones, cameras, the broker
///
/// Every question has an option that answers it, and --yes answers what is left by the default in brackets. The model is pulled where it
/// is not there. Then all is tried: microphones are listened to, cameras take a picture, which the model describes, and messages go to
/// the broker and back. Nothing is written before all is answered; what changes is shown, and the old file is kept as gemmad.toml.bak.
/// The service is stopped meanwhile, since it has the devices. Ends with 69 if something that was asked for cannot be used.
#[derive(Debug, clap::Args)]
pub(super) struct Setup {
    /// Take the default where no option answers
    #[arg(long)]
    yes: bool,
    /// A directory with a model, an installed pack, or what `gemmad pull` is to fetch
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where packs are, and are pulled to
    #[arg(long, value_name = "DIR", default_value = MODELS)]
    models_dir: PathBuf,
    /// A microphone, by its ALSA name (`gemmad devices` lists them); may be given several times
    #[arg(long, value_name = "[ID=]DEVICE", conflicts_with = "no_microphone")]
    microphone: Vec<String>,
    /// Listen to nothing
    #[arg(long)]
    no_microphone: bool,
    /// The language that is spoken
    #[arg(long, value_name = "LANGUAGE", conflicts_with = "no_microphone")]
    language: Option<String>,
    /// A camera's device, or the address of its pictures (http://…); may be given several times
    #[arg(long, value_name = "[ID=]DEVICE|URL", conflicts_with = "no_camera")]
    camera: Vec<String>,
    /// Look at nothing
    #[arg(long)]
    no_camera: bool,
    /// The MQTT broker: mqtt://HOST[:PORT], or mqtts:// for TLS
    #[arg(long, value_name = "URL", conflicts_with = "no_broker")]
    broker: Option<String>,
    /// Publish nothing over MQTT
    #[arg(long)]
    no_broker: bool,
    /// Look for Home Assistant's broker at its usual addresses
    #[arg(long, conflicts_with_all = ["broker", "no_broker"])]
    home_assistant: bool,
    /// User at the broker; empty for none
    #[arg(long, value_name = "USER", conflicts_with = "no_broker")]
    broker_user: Option<String>,
    /// A file with its password (`-`: standard input), which is kept beside the configuration, for the daemon to read
    #[arg(long, value_name = "FILE", requires = "broker_user")]
    broker_password_file: Option<PathBuf>,
    /// Certificates to trust the broker by, with mqtts://
    #[arg(long, value_name = "FILE", conflicts_with = "no_broker")]
    broker_ca_file: Option<PathBuf>,
    /// Name of this board in topics [default: the host's name]
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
    /// Write without trying anything
    #[arg(long)]
    no_test: bool,
    /// The configuration to write
    #[arg(long, value_name = "PATH", default_value = DEFAULT_OUTPUT)]
    output: PathBuf,
}

/// What there is before anything is asked.
struct Start {
    /// Of the file; `None` where there is none.
    old: Option<String>,
    config: Config,
}

impl Start {
    /// The text that answers are written into.
    fn text(&self) -> &str {
        self.old.as_deref().unwrap_or(FRESH)
    }
}

impl Setup {
    pub(super) fn run(self) -> Result<(), Failure> {
        interrupt::ends_with(|| {
            stopped::start_again();
            note(
                "interrupted: nothing was written; the same command begins anew, and goes on with a pull",
            );
        });
        let done = self.set_up();
        // Unless all is written.
        stopped::start_again();
        done
    }

    fn set_up(&self) -> Result<(), Failure> {
        let start = self.start()?;
        let asker = Asker::new(self.yes);
        let (model, mut answers) = self.ask(asker, &start)?;
        let chosen = self.broker(asker, &start)?;
        if chosen.broker.is_some() {
            answers.node = self.node(asker, &start.config)?;
        }
        answers.broker = Some(chosen.broker.clone());
        let unfit = |error: String| Failure::new(exit::USAGE, error);
        // Before gigabytes are fetched.
        answers.checked(start.text(), &self.output).map_err(unfit)?;
        let path = model.fetched(&self.models_dir)?;
        answers.model = Some(path.canonicalize().unwrap_or(path));
        let (text, config) = answers.checked(start.text(), &self.output).map_err(unfit)?;
        if !self.no_test {
            self.try_out(asker, &config)?;
        }
        self.write(asker, &start, &text, &chosen)
    }

    /// What is there, and whether it can be written.
    fn start(&self) -> Result<Start, Failure> {
        let shown = self.output.display();
        let old = match std::fs::read_to_string(&self.output) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Failure::new(
                    exit::NO_INPUT,
                    format_args!("cannot read {shown}: {error}{}", self.as_root()),
                ));
            }
        };
        let directory = match self.output.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        if let Err(error) = access(directory, Access::WRITE_OK) {
            return Err(Failure::new(
                exit::IO,
                format_args!("cannot write {shown}: {error}{}", self.as_root()),
            ));
        }
        let config = Config::parse(old.as_deref().unwrap_or(FRESH), &self.output);
        let config = config.map_err(|error| {
            Failure::new(
                exit::CONFIG,
                format_args!("{error}; mend that first, or move the file away"),
            )
        })?;
        Ok(Start { old, config })
    }

    /// What would need root's rights.
    fn as_root(&self) -> String {
        match procfs::is_root() {
            true => String::new(),
            false => format!(
                "; root may write there, put models into {}, and stop the service: sudo gemmad setup. Or give --output and --models-dir",
                self.models_dir.display()
            ),
        }
    }

    fn ask(&self, asker: Asker, start: &Start) -> Result<(Choice, Answers), Failure> {
        let config = &start.config;
        let model = match &self.model {
            Some(name) => model::named(name, &self.models_dir)?,
            None => model::choose(asker, &self.models_dir, Some(&config.model.path))?,
        };
        let microphones = match (self.no_microphone, self.microphone.as_slice()) {
            (true, _) => Vec::new(),
            (false, []) => devices::choose(Kind::Microphone, asker, config)?,
            (false, given) => devices::given(Kind::Microphone, given),
        };
        let is_new = |source: &Source| source.place.is_some();
        let language = match &self.language {
            Some(language) => Some(language.clone()),
            None if microphones.iter().any(is_new) => {
                let words = |text: &str| match text {
                    "" => Err("give a language".to_owned()),
                    _ => Ok(()),
                };
                Some(asker.text("Language that is spoken", "English", &words)?)
            }
            None => None,
        };
        let cameras = match (self.no_camera, self.camera.as_slice()) {
            (true, _) => Vec::new(),
            (false, []) => devices::choose(Kind::Camera, asker, config)?,
            (false, given) => devices::given(Kind::Camera, given),
        };
        let answers = Answers {
            microphones: Some(microphones),
            language,
            cameras: Some(cameras),
            ..Answers::default()
        };
        Ok((model, answers))
    }

    fn broker(&self, asker: Asker, start: &Start) -> Result<Chosen, Failure> {
        let surroundings = Surroundings {
            asker,
            text: start.text(),
            output: &self.output,
            config: &start.config,
            password_file: self.password_file(),
            is_running: procfs::runs_with(&self.output),
        };
        surroundings.broker(self)
    }

    /// Beside the configuration; the package's purge knows it.
    fn password_file(&self) -> PathBuf {
        let path = self.output.with_file_name("mqtt-password");
        std::path::absolute(&path).unwrap_or(path)
    }

    /// The name in topics, where it is not what it would be by itself.
    fn node(&self, asker: Asker, config: &Config) -> Result<Option<String>, Failure> {
        let now = config.mqtt.node_name();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let fits = |name: &str| {
                    let answers = Answers {
                        node: Some(name.to_owned()),
                        ..Answers::default()
                    };
                    answers.checked("", Path::new("its name")).map(drop)
                };
                asker.text("Name of this board in topics", &now, &fits)?
            }
        };
        Ok((self.name.is_some() || name != now).then_some(name))
    }

    /// Tries what is going to be written.
    fn try_out(&self, asker: Asker, config: &Config) -> Result<(), Failure> {
        let mut is_running = procfs::runs_with(&self.output);
        if is_running && stopped::stop() {
            tell("The service is stopped, so that microphones and cameras can be tried.")?;
            is_running = false;
        }
        let is_well = Tries::new(asker, config, is_running).all()?;
        if is_well
            || asker != Asker::Nobody
                && asker.yes("Write the configuration all the same?", false)?
        {
            return Ok(());
        }
        Err(Failure::new(
            exit::UNAVAILABLE,
            "something cannot be used, as said above, and nothing was written: mend that, or give --no-test",
        ))
    }

    fn write(
        &self,
        asker: Asker,
        start: &Start,
        text: &str,
        chosen: &Chosen,
    ) -> Result<(), Failure> {
        let shown = self.output.display();
        let old = start.old.as_deref();
        let failed = |path: &Path, error: std::io::Error| {
            Failure::new(
                exit::IO,
                format_args!("cannot write {}: {error}{}", path.display(), self.as_root()),
            )
        };
        let is_same = old == Some(text);
        if !is_same {
            let diff = TextDiff::from_lines(old.unwrap_or_default(), text);
            let diff = diff.unified_diff().context_radius(2).to_string();
            tell(&format!("\n{shown} becomes:\n{}", without_secrets(&diff)))?;
        }
        if !is_same && !asker.yes("Write it?", true)? {
            return Err(Failure::new(exit::USAGE, "nothing was written"));
        }
        if let Some(password) = &chosen.password {
            let path = self.password_file();
            let written =
                config_file::replace_private(&path, &format!("{password}\n"), &self.output);
            written.map_err(|error| failed(&path, error))?;
        }
        if is_same {
            tell(&format!("{shown} is as it should be."))?;
        } else {
            if let Some(old) = old {
                let backup = self.output.with_extension("toml.bak");
                let kept = config_file::replace_private(&backup, old, &self.output);
                kept.map_err(|error| failed(&backup, error))?;
                tell(&format!("The old one is kept as {}.", backup.display()))?;
            }
            let written = config_file::replace(&self.output, text);
            written.map_err(|error| failed(&self.output, error))?;
        }
        self.tell_what_is_left()
    }

    fn tell_what_is_left(&self) -> Result<(), Failure> {
        let is_running = procfs::runs_with(&self.output);
        stopped::leave_stopped();
        let shown = self.output.display();
        tell(
            &match (self.output == Path::new(DEFAULT_OUTPUT), is_running) {
                (true, false) => "All that is left: sudo systemctl enable --now gemmad".to_owned(),
                (true, true) => "All that is left: sudo systemctl restart gemmad".to_owned(),
                (false, _) => format!("All that is left: gemmad run --config {shown}"),
            },
        )
    }
}
