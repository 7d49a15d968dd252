//! `[wyoming]`: speech to text, and sentences to commands, for Home Assistant's Assist.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::media::LONGEST_CLIP_S;
use crate::values::between;

/// `[wyoming]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, expecting = "struct Wyoming")]
pub struct WyomingOptions {
    /// Listen for clients.
    pub enabled: bool,
    /// Address and port. The protocol knows no password: whoever reaches the port may ask.
    pub listen: SocketAddr,
    /// Clients at a time.
    pub max_clients: usize,
    /// Longest sound of one event, bytes.
    pub max_event_bytes: usize,
    /// Longest wait for a client's next event, or until it takes an answer, seconds.
    pub idle_timeout_s: u32,
    /// Longest utterance, seconds, up to 30; what follows is not heard.
    pub max_utterance_s: u32,
    /// Silence after which a speaker is done, milliseconds, for clients of protocol 1.10 and later; 0: they listen for that themselves.
    pub silence_ms: u32,
    /// Tell the local network, by multicast DNS, that the service is there: Home Assistant then finds it.
    pub zeroconf: bool,
    /// Language tags that clients may ask for, each with the language's name in the prompt.
    pub languages: BTreeMap<String, String>,
}

/// What clients usually send at once: 64 ms of 16 kHz, and more where they have more channels.
const SMALLEST_EVENT_BYTES: usize = 4096;

/// Whoever says nothing for so long is done, however slowly they think, milliseconds.
const LONGEST_SILENCE_MS: u32 = 5000;

/// More than half a minute of any microphone array.
const LARGEST_EVENT_BYTES: usize = 256 << 20;

impl Default for WyomingOptions {
    fn default() -> WyomingOptions {
        WyomingOptions {
            enabled: false,
            listen: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 10_300),
            max_clients: 4,
            max_event_bytes: 8 << 20,
            idle_timeout_s: 30,
            max_utterance_s: LONGEST_CLIP_S,
            silence_ms: 700,
            zeroconf: false,
            languages: BTreeMap::from([("en".to_owned(), "English".to_owned())]),
        }
    }
}

impl WyomingOptions {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        if self.max_clients == 0 {
            return Err(
                "wyoming.max_clients is 0; to serve nobody, set wyoming.enabled = false".to_owned(),
            );
        }
        between(
            "wyoming.max_event_bytes",
            self.max_event_bytes,
            SMALLEST_EVENT_BYTES,
            LARGEST_EVENT_BYTES,
        )?;
        if self.idle_timeout_s == 0 {
            return Err("wyoming.idle_timeout_s is 0; it must be at least 1".to_owned());
        }
        between(
            "wyoming.max_utterance_s",
            self.max_utterance_s,
            1,
            LONGEST_CLIP_S,
        )
        .map_err(|told| format!("{told}, which is what the model hears at once"))?;
        between("wyoming.silence_ms", self.silence_ms, 0, LONGEST_SILENCE_MS)?;
        if self.zeroconf && self.listen.ip().is_loopback() {
            return Err(format!(
                "wyoming.zeroconf tells the network of {}, which only this machine reaches: set wyoming.listen to \"0.0.0.0:10300\", or zeroconf = false",
                self.listen
            ));
        }
        if self.languages.is_empty() {
            return Err(
                "wyoming.languages is empty; name one, as languages = { en = \"English\" }"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The prompt's name of a language: that of the tag, or of its first part (`en` of `en-GB`); without a tag that of the first
    /// language. `None` where the tag is not configured.
    pub fn language(&self, tag: Option<&str>) -> Option<&str> {
        let Some(tag) = tag.filter(|tag| !tag.is_empty()) else {
            return self.languages.values().next().map(String::as_str);
        };
        let first = tag.split(['-', '_']).next().unwrap_or(tag);
        let same = |wanted: &str| {
            let named = |known: &&String| known.eq_ignore_ascii_case(wanted);
            let tag = self.languages.keys().find(named);
            tag.and_then(|tag| self.languages.get(tag))
        };
        same(tag).or_else(|| same(first)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_found_by_its_tag_or_the_first_part_of_it() {
        let languages = [("de", "German"), ("pt-BR", "Brazilian Portuguese")];
        let wyoming = WyomingOptions {
            languages: languages
                .map(|(tag, name)| (tag.to_owned(), name.to_owned()))
                .into(),
            ..WyomingOptions::default()
        };
        for (tag, name) in [
            (Some("de"), Some("German")),
            (Some("de-CH"), Some("German")),
            (Some("DE_at"), Some("German")),
            (Some("pt-br"), Some("Brazilian Portuguese")),
            (Some("pt"), None),
            (Some("en"), None),
            (Some(""), Some("German")),
            (None, Some("German")),
        ] {
            assert_eq!(wyoming.language(tag), name, "{tag:?}");
        }
    }
}
