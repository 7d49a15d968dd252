//! Whether what was heard begins with a wake phrase, or has a wake word in it.

use crate::capture::options::{MicrophoneOptions, Trigger};
use crate::daemon::job::{NO_WAKE_PHRASE, NO_WAKE_WORD, NOTHING_SAID};

/// What of a transcript is meant for the daemon; else why none of it is. `wake_word` is what a microphone was woken by; what `goes_on`
/// after an answer needs none, and no phrase.
pub(in crate::daemon) fn meant<'a>(
    microphone: &MicrophoneOptions,
    wake_word: Option<&str>,
    goes_on: bool,
    heard: &'a str,
) -> Result<&'a str, &'static str> {
    match (microphone.trigger, wake_word) {
        (Trigger::WakePhrase, _) => match after_wake_phrase(heard, &microphone.wake_phrases) {
            None if goes_on => Ok(heard),
            said => said.ok_or(NO_WAKE_PHRASE),
        },
        (Trigger::WakeWord, Some(word)) if microphone.wake.verify => {
            match after_wake_word(heard, word).ok_or(NO_WAKE_WORD) {
                Ok("") => Err(NOTHING_SAID),
                said => said,
            }
        }
        _ => Ok(heard),
    }
}

/// What was said after one of the phrases; case and punctuation do not count. `None` where it begins with none of them.
fn after_wake_phrase<'a>(heard: &'a str, phrases: &[String]) -> Option<&'a str> {
    phrases
        .iter()
        .find_map(|phrase| after_phrase(heard, phrase))
}

fn after_phrase<'a>(heard: &'a str, phrase: &str) -> Option<&'a str> {
    let counts = |c: &char| c.is_alphanumeric();
    let mut wanted = phrase.chars().filter(counts).flat_map(char::to_lowercase);
    let mut next = wanted.next();
    for (at, c) in heard.char_indices() {
        if next.is_none() {
            // The phrase has ended; it counts only where its last word has, too.
            let rest = &heard[at..];
            return (!c.is_alphanumeric())
                .then(|| rest.trim_start_matches(|c: char| !c.is_alphanumeric()));
        }
        if !c.is_alphanumeric() {
            continue;
        }
        for lower in c.to_lowercase() {
            if next != Some(lower) {
                return None;
            }
            next = wanted.next();
        }
    }
    next.is_none().then_some("")
}

/// Share of a wake word's letters that a transcript may have otherwise: names are written as they sound.
const OTHERWISE: usize = 40;

/// What was said after a wake word that a model heard; `None` where the transcript has nothing like it.
///
/// It begins and ends with words of the transcript, anywhere in it, since something else may have been said before; the likest
/// counts, and of such the first.
fn after_wake_word<'a>(heard: &'a str, word: &str) -> Option<&'a str> {
    let wanted: String = words(word)
        .iter()
        .map(|&(from, to)| letters(&word[from..to]))
        .collect();
    let length = wanted.chars().count();
    let most = length * OTHERWISE / 100;
    let words = words(heard);
    let mut best: Option<(usize, usize)> = None;
    for start in 0..words.len() {
        let mut said = String::new();
        for &(from, to) in &words[start..] {
            said.push_str(&letters(&heard[from..to]));
            if said.chars().count() > length + most {
                break;
            }
            let apart = strsim::levenshtein(&wanted, &said);
            if apart <= most && best.is_none_or(|(other, _)| apart < other) {
                best = Some((apart, to));
            }
        }
    }
    let (_, end) = best?;
    Some(heard[end..].trim_start_matches(|c: char| !c.is_alphanumeric()))
}

/// A word in small letters. "OK" is but another way to write "okay", and would use up what may be otherwise.
fn letters(word: &str) -> String {
    let small = word.to_lowercase();
    if small == "ok" {
        "okay".to_owned()
    } else {
        small
    }
}

/// Where each word begins and ends.
fn words(text: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut inside = false;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        match (c.is_alphanumeric(), found.last_mut()) {
            (true, Some(last)) if inside => last.1 = end,
            (true, _) => found.push((at, end)),
            (false, _) => {}
        }
        inside = c.is_alphanumeric();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_phrases_are_compared_without_case_and_punctuation() {
        let phrases = ["hey house".to_owned(), "Computer".to_owned()];
        let rest = |heard| after_wake_phrase(heard, &phrases);
        assert_eq!(
            rest("Hey, House! Turn on the light."),
            Some("Turn on the light.")
        );
        assert_eq!(rest("computer, lights off"), Some("lights off"));
        assert_eq!(rest("Hey house"), Some(""));
        assert_eq!(rest("Computers are fun."), None);
        assert_eq!(rest("Turn on the light."), None);
        assert_eq!(rest("Hey"), None);
    }

    #[test]
    fn whoever_goes_on_needs_no_wake_phrase() {
        let microphone: MicrophoneOptions = toml::from_str(
            "id = \"hall\"\ndevice = \"x\"\ntrigger = \"wake_phrase\"\nwake_phrases = [\"Computer\"]",
        )
        .unwrap();
        let meant = |goes_on, heard| meant(&microphone, None, goes_on, heard);
        assert_eq!(meant(false, "And the other one."), Err(NO_WAKE_PHRASE));
        assert_eq!(meant(true, "And the other one."), Ok("And the other one."));
        assert_eq!(meant(true, "Computer, that one."), Ok("that one."));
    }

    #[test]
    fn a_wake_word_is_found_as_it_sounds() {
        for (heard, word, rest) in [
            (
                "Okay Nabu, turn on the light.",
                "Okay Nabu",
                Some("turn on the light."),
            ),
            ("OK, Naboo! Turn it off.", "Okay Nabu", Some("Turn it off.")),
            (
                "So he said no. Okay nabu what time is it?",
                "Okay Nabu",
                Some("what time is it?"),
            ),
            ("Alexa", "Alexa", Some("")),
            ("Alexas Licht an", "Alexa", Some("Licht an")),
            ("Hey Jarvis.", "Hey Jarvis", Some("")),
            ("Hej Jarvis, tænd lyset", "Hey Jarvis", Some("tænd lyset")),
            ("The boat was blue.", "Okay Nabu", None),
            ("OK, turn it off.", "Okay Nabu", None),
            ("He is a relative of mine.", "Alexa", None),
            ("They started it.", "Hey Jarvis", None),
            ("", "Alexa", None),
        ] {
            assert_eq!(after_wake_word(heard, word), rest, "{heard}");
        }
    }
}
