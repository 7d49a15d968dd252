//! Texts that fit a state of Home Assistant.

/// Most characters of a state of Home Assistant.
const SHORT_CHARS: usize = 255;

/// Where a text that is too long is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Behind the last character that fits.
    Anywhere,
    /// Behind the last word that fits.
    AtWord,
}

/// A text in at most 255 characters, the last an ellipsis where something is left out.
pub fn short(text: &str, cut: Cut) -> String {
    if text.chars().count() <= SHORT_CHARS {
        return text.to_owned();
    }
    let fits: String = text.chars().take(SHORT_CHARS - 1).collect();
    let kept = match (cut, fits.rsplit_once(' ')) {
        (Cut::AtWord, Some((words, _))) => words,
        _ => &fits,
    };
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_fit_a_state_of_home_assistant() {
        assert_eq!(short("ünï", Cut::Anywhere), "ünï");
        let exact = "ü".repeat(255);
        assert_eq!(short(&exact, Cut::Anywhere), exact);
        let cut = short(&"ü".repeat(256), Cut::Anywhere);
        assert_eq!(cut.chars().count(), 255);
        assert!(cut.ends_with("ü…"));
        let cut = short(&"ü ".repeat(128), Cut::Anywhere);
        assert_eq!(cut.chars().count(), 255);
    }

    #[test]
    fn sentences_are_cut_at_a_word() {
        assert_eq!(short("A cat.", Cut::AtWord), "A cat.");
        let long = "Zwölf Katzen ".repeat(40);
        let cut = short(&long, Cut::AtWord);
        assert!(
            cut.chars().count() <= SHORT_CHARS && cut.ends_with("…"),
            "{cut}"
        );
        assert!(long.starts_with(cut.trim_end_matches('…')));
        let words = cut.trim_end_matches('…');
        assert!(words.ends_with("Zwölf") || words.ends_with("Katzen"));
        let one = short(&"ä".repeat(400), Cut::AtWord);
        assert_eq!(one.chars().count(), SHORT_CHARS);
    }
}
