//! Which broker: the one in use, one on this board, Home Assistant's where that is asked for, or any other.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Setup;
use super::document::{Answers, Broker};
use super::prompts::{Asker, tell};
use crate::cli::doctor::{State, services};
use crate::cli::failure::{Failure, exit};
use crate::config::Config;
use crate::guard::harmless;

const HERE: &str = "mqtt://localhost:1883";
/// Where Home Assistant's broker usually is: on a machine of its own, and for what runs beside it.
const USUAL: [&str; 2] = [
    "mqtt://homeassistant.local:1883",
    "mqtt://core-mosquitto:1883",
];
/// Longest that one of them is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest password, bytes.
const MAX_PASSWORD_BYTES: usize = 4096;

/// A broker that was tried, and what is to be kept of its password.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// `None`: none is used.
    pub(super) broker: Option<Broker>,
    /// It is written only with the configuration.
    pub(super) password: Option<String>,
}

/// What a broker is asked with.
pub(super) struct Surroundings<'a> {
    pub(super) asker: Asker,
    /// The text of the configuration, and where it is.
    pub(super) text: &'a str,
    pub(super) output: &'a Path,
    pub(super) config: &'a Config,
    /// Where a password is kept.
    pub(super) password_file: PathBuf,
    pub(super) is_running: bool,
}

impl Surroundings<'_> {
    /// The broker of the options, or the one that is chosen, tried.
    ///
    /// # Errors
    /// Nobody answers, or the broker that an option names cannot be used.
    pub(super) fn broker(&self, options: &Setup) -> Result<Chosen, Failure> {
        if options.no_broker {
            return Ok(Chosen::default());
        }
        let mut usual = options.home_assistant;
        loop {
            let url = match &options.broker {
                Some(url) => Some(with_scheme(url)),
                None => self.choose(&mut usual)?,
            };
            let Some(url) = url else {
                return Ok(Chosen::default());
            };
            let chosen = self.login(options, url)?;
            if options.no_test || self.works(&chosen)? {
                return Ok(chosen);
            }
            let keeps = self.asker.yes("Use this broker all the same?", false)?;
            if keeps {
                return Ok(chosen);
            }
            if self.asker == Asker::Nobody || options.broker.is_some() {
                return Err(Failure::new(
                    exit::UNAVAILABLE,
                    "the broker cannot be used, as said above, and nothing was written: mend that, or give --no-test or --no-broker",
                ));
            }
        }
    }

    /// Asks for an address; `None` for no broker. `usual`: Home Assistant's addresses are tried.
    fn choose(&self, usual: &mut bool) -> Result<Option<String>, Failure> {
        loop {
            let mut known = Vec::new();
            let mqtt = &self.config.mqtt;
            if mqtt.enabled {
                known.push((format!("{}, as now", mqtt.url), mqtt.url.clone()));
            }
            let tried = USUAL.iter().filter(|_| *usual);
            for url in std::iter::once(&HERE).chain(tried) {
                if !known.iter().any(|(_, known)| known == url) && answers(url) {
                    known.push(((*url).to_owned(), (*url).to_owned()));
                }
            }
            let mut shown: Vec<String> = known.iter().map(|(text, _)| text.clone()).collect();
            let (none, other, look) = (shown.len(), shown.len() + 1, shown.len() + 2);
            shown.push("none: this board is asked over D-Bus or Wyoming only".to_owned());
            shown.push("another address".to_owned());
            if !*usual {
                let [a, b] = USUAL;
                shown.push(format!("look for Home Assistant's broker ({a}, {b})"));
            }
            let at = self.asker.one_of("Which MQTT broker?", &shown, 0)?;
            if at == none {
                return Ok(None);
            } else if at == look {
                *usual = true;
                continue;
            } else if at == other {
                let check = |url: &str| self.fits(&with_scheme(url));
                let url =
                    self.asker
                        .text("Its address, mqtt://HOST or mqtts://HOST", "", &check)?;
                return Ok(Some(with_scheme(&url)));
            }
            return Ok(known.into_iter().nth(at).map(|(_, url)| url));
        }
    }

    fn fits(&self, url: &str) -> Result<(), String> {
        let broker = Broker {
            url: url.to_owned(),
            ..Broker::default()
        };
        let answers = Answers {
            broker: Some(Some(broker)),
            ..Answers::default()
        };
        answers.checked("", self.output).map(drop)
    }

    /// As whom the broker is asked.
    fn login(&self, options: &Setup, url: String) -> Result<Chosen, Failure> {
        let mqtt = &self.config.mqtt;
        let ca_file = options.broker_ca_file.clone().or(mqtt.ca_file.clone());
        // Certificates belong to TLS.
        let ca_file = ca_file.filter(|_| url.starts_with("mqtts://"));
        let user = match &options.broker_user {
            Some(user) => user.clone(),
            None => {
                let question = match mqtt.username.as_str() {
                    "" => "User at the broker, if it wants one",
                    _ => "User at the broker",
                };
                self.asker.text(question, &mqtt.username, &|_| Ok(()))?
            }
        };
        let mut broker = Broker {
            url,
            user,
            password_file: None,
            ca_file,
        };
        let password = match &options.broker_password_file {
            _ if broker.user.is_empty() => None,
            Some(file) => Some(read_password(file)?),
            None if options.broker_user.is_some() => None,
            None => {
                let is_kept = broker.user == mqtt.username
                    && (mqtt.password_file.is_some() || mqtt.password_credential.is_some());
                let question = match is_kept {
                    true => "Password [as now]",
                    false => "Password",
                };
                let password = self.asker.secret(question)?;
                Some(password).filter(|password| !password.is_empty())
            }
        };
        if password.is_some() {
            broker.password_file = Some(self.password_file.clone());
        }
        Ok(Chosen {
            broker: Some(broker),
            password,
        })
    }

    /// Tries what the daemon would do there, and tells how that went.
    fn works(&self, chosen: &Chosen) -> Result<bool, Failure> {
        let answers = Answers {
            broker: Some(chosen.broker.clone()),
            ..Answers::default()
        };
        let checked = answers.checked(self.text, self.output);
        let (_, mut config) = checked.map_err(|error| Failure::new(exit::USAGE, error))?;
        // Nothing is written yet where the password will be.
        let unwritten = |error: std::io::Error| {
            Failure::new(
                exit::IO,
                format_args!("cannot write a temporary file: {error}"),
            )
        };
        let mut file = tempfile::NamedTempFile::new().map_err(unwritten)?;
        if let Some(password) = &chosen.password {
            file.write_all(password.as_bytes()).map_err(unwritten)?;
            config.mqtt.password_file = Some(file.path().to_owned());
        }
        let findings = services::broker(&config, self.is_running);
        let given = file.path().to_string_lossy().into_owned();
        for finding in &findings {
            tell(&finding.line().replace(&given, "the answer above"))?;
        }
        Ok(findings
            .iter()
            .all(|finding| finding.state != State::Failing))
    }
}

/// An address without a scheme means the usual one.
fn with_scheme(url: &str) -> String {
    match url.contains("://") {
        true => url.to_owned(),
        false => format!("mqtt://{url}"),
    }
}

/// Whether something listens there.
fn answers(url: &str) -> bool {
    let address = url.trim_start_matches("mqtt://");
    let found = address.to_socket_addrs().into_iter().flatten();
    found
        .into_iter()
        .any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

/// The password of a file, or of standard input (`-`), without the end of its line.
fn read_password(file: &Path) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        let shown = harmless::line(&file.to_string_lossy()).into_owned();
        Failure::new(
            exit::NO_INPUT,
            format_args!("cannot read a password from {shown}: {what}"),
        )
    };
    let mut password = String::new();
    let most = MAX_PASSWORD_BYTES as u64 + 1;
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin()
            .lock()
            .take(most)
            .read_to_string(&mut password),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut password))
        }
    };
    read.map_err(|error| failed(&error))?;
    let password = password.trim_end_matches(['\r', '\n']);
    match password.len() {
        0 => Err(failed(&"it is empty")),
        bytes if bytes > MAX_PASSWORD_BYTES => Err(failed(&"it is too long for a password")),
        _ => Ok(password.to_owned()),
    }
}
