//! The answers in gemmad.toml: what was not asked for stays as people wrote it.

use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::cli::config_file::{section, set};
use crate::config::Config;

/// A microphone or a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name in topics.
    pub(super) id: String,
    /// Its device, or where a camera's pictures are served (`http://…`); `None`: the section of that name stays as it is.
    pub(super) place: Option<String>,
}

impl Source {
    /// Whether it is the one of this section.
    fn is(&self, section: &Table) -> bool {
        let has = |key: &str, value: &str| section.get(key).and_then(Item::as_str) == Some(value);
        match &self.place {
            Some(place) => has(key(place), place),
            None => has("id", &self.id),
        }
    }
}

fn is_served(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// The key that names a place.
fn key(place: &str) -> &'static str {
    match is_served(place) {
        true => "url",
        false => "device",
    }
}

/// A broker, and as whom it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) url: String,
    pub(super) user: String,
    /// Where the password is, or will be; a user needs none.
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
}

/// What is to stand in the file; `None` leaves what stands there.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) model: Option<PathBuf>,
    pub(super) microphones: Option<Vec<Source>>,
    /// Of microphones that are new.
    pub(super) language: Option<String>,
    pub(super) cameras: Option<Vec<Source>>,
    pub(super) broker: Option<Option<Broker>>,
    pub(super) node: Option<String>,
}

impl Answers {
    /// A configuration with these answers.
    ///
    /// # Errors
    /// It is not TOML, or a section is written in another way than this program's own.
    pub(super) fn written_into(&self, text: &str) -> Result<String, String> {
        let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
        if let Some(model) = &self.model {
            set(section(&mut document, "model")?, "path", path(model)?);
        }
        if let Some(broker) = &self.broker {
            write_broker(&mut document, broker.as_ref())?;
        }
        if let Some(node) = &self.node {
            set(section(&mut document, "mqtt")?, "node", node.as_str());
        }
        if let Some(microphones) = &self.microphones {
            let language = self.language.as_deref().filter(|name| *name != "English");
            sources(&mut document, "microphone", microphones, language)?;
        }
        if let Some(cameras) = &self.cameras {
            sources(&mut document, "camera", cameras, None)?;
        }
        Ok(document.to_string())
    }

    /// The same, taken as the daemon would take it.
    ///
    /// # Errors
    /// The daemon would not; why.
    pub(super) fn checked(&self, text: &str, shown: &Path) -> Result<(String, Config), String> {
        let text = self
            .written_into(text)
            .map_err(|error| format!("{}: {error}", shown.display()))?;
        let config = Config::parse(&text, shown).map_err(|error| error.to_string())?;
        Ok((text, config))
    }
}

fn path(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

/// The sections of that kind which are wanted: those that are there stay as they are, known by their device.
fn sources(
    document: &mut DocumentMut,
    kind: &str,
    wanted: &[Source],
    language: Option<&str>,
) -> Result<(), String> {
    if wanted.is_empty() {
        document.remove(kind);
        return Ok(());
    }
    let all = document.entry(kind);
    let all = all.or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let all = all.as_array_of_tables_mut().ok_or_else(|| {
        format!("{kind} is a list in one line there: write each as a section, [[{kind}]]")
    })?;
    all.retain(|section| wanted.iter().any(|source| source.is(section)));
    for source in wanted {
        if let Some(section) = all.iter_mut().find(|section| source.is(section)) {
            set(section, "id", source.id.as_str());
            continue;
        }
        all.push(new_source(source, language));
    }
    Ok(())
}

fn new_source(source: &Source, language: Option<&str>) -> Table {
    let mut section = Table::new();
    section.decor_mut().set_prefix("\n");
    section.insert("id", value(source.id.as_str()));
    if let Some(place) = &source.place {
        if is_served(place) {
            section.insert("type", value("http"));
        }
        section.insert(key(place), value(place.as_str()));
    }
    if let Some(language) = language {
        section.insert("language", value(language));
    }
    section
}

fn write_broker(document: &mut DocumentMut, broker: Option<&Broker>) -> Result<(), String> {
    let mqtt = section(document, "mqtt")?;
    set(mqtt, "enabled", broker.is_some());
    let Some(broker) = broker else {
        return Ok(());
    };
    set(mqtt, "url", broker.url.as_str());
    let user = mqtt.get("username").and_then(Item::as_str);
    let is_same = user.unwrap_or_default() == broker.user;
    match broker.user.as_str() {
        "" => drop(mqtt.remove("username")),
        user => set(mqtt, "username", user),
    }
    if broker.password_file.is_some() || !is_same {
        // Another user's.
        mqtt.remove("password_credential");
    }
    match &broker.password_file {
        Some(file) => set(mqtt, "password_file", path(file)?),
        None if is_same => {}
        None => drop(mqtt.remove("password_file")),
    }
    match &broker.ca_file {
        Some(file) => set(mqtt, "ca_file", path(file)?),
        None => drop(mqtt.remove("ca_file")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, place: &str) -> Source {
        Source {
            id: id.to_owned(),
            place: Some(place.to_owned()),
        }
    }

    #[test]
    fn what_is_there_stays_and_what_is_not_wanted_goes() {
        let before = "# mine\n[model]\npath = \"/old\" # why\n\n[mqtt]\nenabled = false\n# url = \"x\"\n\n\
                      # by the door\n[[microphone]]\nid = \"hall\"\ndevice = \"a\" # USB\nanswer = \"both\"\n\n\
                      [[microphone]]\nid = \"attic\"\ndevice = \"b\"\n";
        let answers = Answers {
            model: Some(PathBuf::from("/m/e2b.pack")),
            microphones: Some(vec![source("hall", "a"), source("desk", "c")]),
            language: Some("German".to_owned()),
            cameras: Some(vec![source("door", "http://cam/x.jpg")]),
            broker: Some(Some(Broker {
                url: "mqtt://h".to_owned(),
                user: "u".to_owned(),
                password_file: Some(PathBuf::from("/p")),
                ca_file: None,
            })),
            node: Some("pi".to_owned()),
        };
        let after = answers.written_into(before).unwrap();
        assert_eq!(
            after,
            "# mine\n[model]\npath = \"/m/e2b.pack\" # why\n\n[mqtt]\nenabled = true\nurl = \"mqtt://h\"\nusername = \"u\"\n\
             password_file = \"/p\"\nnode = \"pi\"\n# url = \"x\"\n\n\
             # by the door\n[[microphone]]\nid = \"hall\"\ndevice = \"a\" # USB\nanswer = \"both\"\n\n\
             [[microphone]]\nid = \"desk\"\ndevice = \"c\"\nlanguage = \"German\"\n\n\
             [[camera]]\nid = \"door\"\ntype = \"http\"\nurl = \"http://cam/x.jpg\"\n"
        );
        assert_eq!(
            answers.written_into(&after).unwrap(),
            after,
            "twice is once"
        );
        let nothing = Answers {
            microphones: Some(Vec::new()),
            cameras: Some(Vec::new()),
            broker: Some(None),
            ..Answers::default()
        };
        let off = nothing.written_into(&after).unwrap();
        assert!(
            !off.contains("[[") && off.contains("enabled = false"),
            "{off}"
        );
        assert_eq!(Answers::default().written_into(before).unwrap(), before);
        let only = Source {
            id: "attic".to_owned(),
            place: None,
        };
        let one = Answers {
            microphones: Some(vec![only]),
            ..Answers::default()
        };
        let one = one.written_into(before).unwrap();
        assert!(
            one.ends_with("\n[[microphone]]\nid = \"attic\"\ndevice = \"b\"\n"),
            "{one}"
        );
        assert!(!one.contains("hall"), "{one}");
    }

    #[test]
    fn what_cannot_be_changed_is_told() {
        let answers = Answers {
            microphones: Some(vec![source("hall", "a")]),
            ..Answers::default()
        };
        for wrong in ["microphone = []", "[microphone]", "[x"] {
            assert!(answers.written_into(wrong).is_err(), "{wrong}");
        }
        let shown = Path::new("/etc/x.toml");
        let refused = answers.checked("[modle]", shown).unwrap_err();
        assert!(refused.contains("/etc/x.toml") && refused.contains("modle"));
    }
}
