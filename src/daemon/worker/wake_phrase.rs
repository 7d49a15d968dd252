//! Whether what was heard begins with a wake phrase.

/// What was said after one of the phrases; case and punctuation do not count. `None` where it begins with none of them.
pub(super) fn after_wake_phrase<'a>(heard: &'a str, phrases: &[String]) -> Option<&'a str> {
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
}
