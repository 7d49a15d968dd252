//! Text from outside for a terminal or a log: what a device, a broker, a file or the model says may be anything, also what a
//! terminal obeys, or what makes a line look like another. Everything that the program prints or logs comes by here.

use std::borrow::Cow;
use std::fmt::Write;

/// The list: characters that a terminal obeys, or that make what is shown another than what is there.
///
/// C0, DEL and C1 move the cursor, colour, and answer in the user's place; the separators end a line where nobody expects it; the
/// bidirectional controls (Unicode's property `Bidi_Control`, and the deprecated ones beside them) reorder what stands around them; the
/// interlinear annotations hide what they enclose.
pub fn is_harmful(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

/// Stands where something harmful stood.
const MARK: char = '\u{fffd}';

/// The text as one line: a space stands for what ends a line or moves on in it, a mark for everything else that is harmful.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, &|_| false, &mut |c, into| {
        into.push(match c {
            '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
            _ => MARK,
        });
    })
}

/// The text with its lines and tabs, a mark in the place of everything else that is harmful.
pub fn text(text: &str) -> Cow<'_, str> {
    replaced(text, &|c| matches!(c, '\n' | '\t'), &mut |_, into| {
        into.push(MARK);
    })
}

/// JSON that says the same and is harmless: what is harmful stands in strings only, where it may be escaped.
pub fn json(json: &str) -> Cow<'_, str> {
    replaced(
        json,
        &|c| matches!(c, '\n' | '\t' | '\r'),
        &mut |c, into| {
            // Every harmful character has four digits. Writing into a string does not fail.
            write!(into, "\\u{:04x}", u32::from(c)).ok();
        },
    )
}

/// Names from outside in messages are cut there, characters.
const SHORT: usize = 64;

/// The beginning of a name from outside, as one line, for a message that repeats it.
pub fn short(name: &str) -> String {
    let mut rest = name.char_indices().skip(SHORT);
    match rest.next() {
        None => line(name).into_owned(),
        Some((at, _)) => format!("{}…", line(&name[..at])),
    }
}

fn replaced<'a>(
    text: &'a str,
    may_stay: &dyn Fn(char) -> bool,
    put: &mut dyn FnMut(char, &mut String),
) -> Cow<'a, str> {
    let harmful = |c: char| is_harmful(c) && !may_stay(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match harmful(c) {
            true => put(c, &mut clean),
            false => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unicode 17, `Bidi_Control` in PropList.txt, and the general categories Cc, Zl and Zp in UnicodeData.txt.
    fn by_the_standard() -> Vec<char> {
        let ranges = [
            (0x00, 0x1f),     // Cc
            (0x7f, 0x9f),     // Cc
            (0x61c, 0x61c),   // Bidi_Control
            (0x200e, 0x200f), // Bidi_Control
            (0x2028, 0x2028), // Zl
            (0x2029, 0x2029), // Zp
            (0x202a, 0x202e), // Bidi_Control
            (0x2066, 0x2069), // Bidi_Control
        ];
        let all = ranges.iter().flat_map(|&(first, last)| first..=last);
        all.filter_map(char::from_u32).collect()
    }

    #[test]
    fn nothing_harmful_is_left_and_nothing_else_is_touched() {
        let harmful = by_the_standard();
        assert_eq!(harmful.len(), 32 + 33 + 1 + 2 + 2 + 5 + 4);
        for &c in &harmful {
            let all = format!("before{c}[31mafter");
            assert!(!line(&all).contains(is_harmful), "{c:?}");
            let kept = text(&all);
            assert_eq!(kept.contains(is_harmful), matches!(c, '\n' | '\t'), "{c:?}");
            assert!(line(&all).starts_with("before") && line(&all).ends_with("[31mafter"));
            assert_eq!(line(&all).chars().count(), all.chars().count(), "{c:?}");
        }
        // What people write, with joiners and variation selectors, is left as it is: not even copied.
        for fine in [
            "Mach das Licht aus, ¿vale?",
            "台所の電気",
            "أطفئ ضوء المطبخ",
            "می‌خواهم",
            "👩‍👩‍👧‍👦 ❤️ e\u{301}",
        ] {
            assert!(matches!(line(fine), Cow::Borrowed(same) if same == fine));
            assert!(matches!(text(fine), Cow::Borrowed(same) if same == fine));
            assert!(matches!(json(fine), Cow::Borrowed(same) if same == fine));
        }
        assert_eq!(short("hall"), "hall");
        assert_eq!(short(&"ä\n".repeat(33_000)), "ä ".repeat(32) + "…");
        assert_eq!(line("a\r\nb\tc\u{2028}d\u{1b}e"), "a  b c d\u{fffd}e");
    }

    #[test]
    fn json_stays_json_and_says_the_same() {
        for c in by_the_standard() {
            let said = format!("a{c}b");
            let value = serde_json::json!({ &said: [&said, 1] });
            for written in [
                value.to_string(),
                serde_json::to_string_pretty(&value).unwrap(),
            ] {
                let harmless = json(&written);
                let may = |found: char| is_harmful(found) && found != '\n';
                assert!(!harmless.contains(may), "{c:?}");
                let read: serde_json::Value = serde_json::from_str(&harmless).unwrap();
                assert_eq!(read, value, "{c:?}");
            }
        }
    }
}
