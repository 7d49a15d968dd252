//! Which microphones and cameras: those that are there, and those that the configuration has.

use super::document::Source;
use super::prompts::{Asker, tell};
use crate::capture::options::{CameraOptions, CameraType};
use crate::capture::{cameras, microphones};
use crate::cli::failure::{Failure, exit};
use crate::config::Config;
use crate::guard::harmless;

/// Of which kind: `microphone` or `camera`, as sections are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Microphone,
    Camera,
}

/// What may be chosen.
struct Found {
    /// Its name in the configuration; `None` for one that is new.
    id: Option<String>,
    place: String,
    about: String,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Microphone => "microphone",
            Kind::Camera => "camera",
        }
    }

    /// The id where nobody gives one: unique by the number behind it.
    fn id(self, taken: &[&str]) -> String {
        let name = self.name();
        let ids = (2..).map(|number| format!("{name}-{number}"));
        let mut ids = std::iter::once(name.to_owned()).chain(ids);
        let free = ids.find(|id| !taken.contains(&id.as_str()));
        free.unwrap_or_else(|| name.to_owned())
    }
}

/// `[ID=]PLACE` of the options, in order; an id that is left out is made.
pub(super) fn given(kind: Kind, options: &[String]) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for option in options {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let named = option.split_once('=');
        // An ALSA name may have the sign, too: plughw:CARD=Device.
        let named = named.filter(|(id, _)| !id.is_empty() && id.chars().all(fits));
        let taken: Vec<&str> = sources.iter().map(|source| source.id.as_str()).collect();
        let source = match named {
            Some((id, place)) => Source {
                id: id.to_owned(),
                place: Some(place.to_owned()),
            },
            None => Source {
                id: kind.id(&taken),
                place: Some(option.clone()),
            },
        };
        sources.push(source);
    }
    sources
}

/// Asks which; the default is what the configuration has, else the first that is there.
pub(super) fn choose(kind: Kind, asker: Asker, config: &Config) -> Result<Vec<Source>, Failure> {
    let (name, found) = (kind.name(), found(kind, config)?);
    if found.is_empty() {
        tell(&format!(
            "No {name} is there that can be used; `gemmad devices` says more. Plug one in and run this again, or go on without."
        ))?;
        return Ok(Vec::new());
    }
    let known: Vec<usize> = (0..found.len())
        .filter(|at| found[*at].id.is_some())
        .collect();
    let default = match known.as_slice() {
        [] => &[0][..],
        known => known,
    };
    let shown: Vec<String> = found.iter().map(|found| found.about.clone()).collect();
    let chosen = asker.some_of(&format!("Which {name}s?"), &shown, default)?;
    let mut sources: Vec<Source> = Vec::new();
    for at in chosen {
        let Found { id, place, .. } = &found[at];
        if let Some(id) = id {
            sources.push(Source {
                id: id.clone(),
                place: None,
            });
            continue;
        }
        let taken: Vec<&str> = sources.iter().map(|source| source.id.as_str()).collect();
        let question = format!("Name of {}, such as its room", harmless::short(place));
        let check = |id: &str| fits(kind, id, &taken);
        let id = asker.text(&question, &kind.id(&taken), &check)?;
        sources.push(Source {
            id,
            place: Some(place.clone()),
        });
    }
    Ok(sources)
}

/// Whether a name can be one, by the configuration's own rules.
fn fits(kind: Kind, id: &str, taken: &[&str]) -> Result<(), String> {
    if taken.contains(&id) {
        return Err(format!("{id} is taken"));
    }
    let sources = Some(vec![Source {
        id: id.to_owned(),
        place: Some("/dev/null".to_owned()),
    }]);
    let answers = match kind {
        Kind::Microphone => super::Answers {
            microphones: sources,
            ..super::Answers::default()
        },
        Kind::Camera => super::Answers {
            cameras: sources,
            ..super::Answers::default()
        },
    };
    let checked = answers.checked("", std::path::Path::new("its name"));
    checked.map(drop)
}

fn found(kind: Kind, config: &Config) -> Result<Vec<Found>, Failure> {
    let mut found = match kind {
        Kind::Microphone => known_microphones(config),
        Kind::Camera => known_cameras(config),
    };
    let listed = match kind {
        Kind::Microphone => listed_microphones()?,
        Kind::Camera => listed_cameras(),
    };
    for (place, about) in listed {
        if found.iter().all(|known| known.place != place) {
            found.push(Found {
                about: format!("{place}  {about}"),
                id: None,
                place,
            });
        }
    }
    Ok(found)
}

fn known(id: &str, place: &str) -> Found {
    Found {
        about: format!("{id}, {place}, as now"),
        id: Some(id.to_owned()),
        place: place.to_owned(),
    }
}

fn known_microphones(config: &Config) -> Vec<Found> {
    let all = config.microphone.iter();
    all.map(|found| known(&found.id, &found.device)).collect()
}

fn known_cameras(config: &Config) -> Vec<Found> {
    let place = |camera: &CameraOptions| match &camera.kind {
        CameraType::V4l2(options) => options.device.display().to_string(),
        CameraType::Http(_) | CameraType::Replay(_) | CameraType::Frigate(_) => camera.source(),
    };
    let all = config.camera.iter();
    all.map(|camera| known(&camera.id, &place(camera)))
        .collect()
}

/// Microphones that can be used. ALSA has many names for a card: the one that converts what the card cannot is shown, and names without a
/// card, which people have given.
fn listed_microphones() -> Result<Vec<(String, String)>, Failure> {
    let all = microphones().map_err(|error| Failure::new(exit::UNAVAILABLE, error))?;
    let usable = all.into_iter().filter(|found| found.formats.is_ok());
    let (mut cards, mut others): (Vec<_>, Vec<_>) = usable
        .filter(|found| found.name.starts_with("plughw:") || !found.name.contains(':'))
        .map(|found| (found.name, found.description))
        .partition(|(name, _)| name.starts_with("plughw:"));
    cards.append(&mut others);
    Ok(cards)
}

fn listed_cameras() -> Vec<(String, String)> {
    let usable = |found: crate::capture::CameraDevice| {
        let about = found.about.ok()?;
        let understood = about.formats.iter().any(|format| format.understood);
        let place = found.path.to_str()?.to_owned();
        understood.then_some((place, about.card))
    };
    cameras().into_iter().filter_map(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_before_the_device() {
        let options = [
            "kitchen=plughw:CARD=Mic0,DEV=0",
            "plughw:CARD=Mic1,DEV=0",
            "default",
        ];
        let sources = given(Kind::Microphone, &options.map(str::to_owned));
        let found: Vec<(&str, &str)> = sources
            .iter()
            .map(|source| (source.id.as_str(), source.place.as_deref().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("kitchen", "plughw:CARD=Mic0,DEV=0"),
                ("microphone", "plughw:CARD=Mic1,DEV=0"),
                ("microphone-2", "default")
            ]
        );
        let sources = given(Kind::Camera, &["http://cam/x.jpg?a=b".to_owned()]);
        assert_eq!(sources[0].place.as_deref(), Some("http://cam/x.jpg?a=b"));
    }

    #[test]
    fn a_name_has_to_fit_topics_and_be_the_only_one() {
        fits(Kind::Microphone, "living-room", &["hall"]).unwrap();
        fits(Kind::Camera, "door", &[]).unwrap();
        assert!(
            fits(Kind::Camera, "hall", &["hall"])
                .unwrap_err()
                .contains("taken")
        );
        assert!(
            fits(Kind::Microphone, "Wohnzimmer", &[])
                .unwrap_err()
                .contains("a-z")
        );
    }
}
