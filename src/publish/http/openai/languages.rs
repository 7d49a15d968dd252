//! Languages by their tags of two letters, as speech clients name them (ISO 639-1), and by their names.

use crate::guard::harmless::short;
use crate::publish::http::fault::Fault;
use crate::report::Name;

/// Tag, and the name that prompts have. The list is Whisper's, whose clients these are.
const LANGUAGES: &[(&str, &str)] = &[
    ("af", "Afrikaans"),
    ("am", "Amharic"),
    ("ar", "Arabic"),
    ("as", "Assamese"),
    ("az", "Azerbaijani"),
    ("ba", "Bashkir"),
    ("be", "Belarusian"),
    ("bg", "Bulgarian"),
    ("bn", "Bengali"),
    ("bo", "Tibetan"),
    ("br", "Breton"),
    ("bs", "Bosnian"),
    ("ca", "Catalan"),
    ("cs", "Czech"),
    ("cy", "Welsh"),
    ("da", "Danish"),
    ("de", "German"),
    ("el", "Greek"),
    ("en", "English"),
    ("es", "Spanish"),
    ("et", "Estonian"),
    ("eu", "Basque"),
    ("fa", "Persian"),
    ("fi", "Finnish"),
    ("fo", "Faroese"),
    ("fr", "French"),
    ("gl", "Galician"),
    ("gu", "Gujarati"),
    ("ha", "Hausa"),
    ("haw", "Hawaiian"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hr", "Croatian"),
    ("ht", "Haitian Creole"),
    ("hu", "Hungarian"),
    ("hy", "Armenian"),
    ("id", "Indonesian"),
    ("is", "Icelandic"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("jw", "Javanese"),
    ("ka", "Georgian"),
    ("kk", "Kazakh"),
    ("km", "Khmer"),
    ("kn", "Kannada"),
    ("ko", "Korean"),
    ("la", "Latin"),
    ("lb", "Luxembourgish"),
    ("ln", "Lingala"),
    ("lo", "Lao"),
    ("lt", "Lithuanian"),
    ("lv", "Latvian"),
    ("mg", "Malagasy"),
    ("mi", "Maori"),
    ("mk", "Macedonian"),
    ("ml", "Malayalam"),
    ("mn", "Mongolian"),
    ("mr", "Marathi"),
    ("ms", "Malay"),
    ("mt", "Maltese"),
    ("my", "Burmese"),
    ("ne", "Nepali"),
    ("nl", "Dutch"),
    ("nn", "Nynorsk"),
    ("no", "Norwegian"),
    ("oc", "Occitan"),
    ("pa", "Punjabi"),
    ("pl", "Polish"),
    ("ps", "Pashto"),
    ("pt", "Portuguese"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("sa", "Sanskrit"),
    ("sd", "Sindhi"),
    ("si", "Sinhala"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("sn", "Shona"),
    ("so", "Somali"),
    ("sq", "Albanian"),
    ("sr", "Serbian"),
    ("su", "Sundanese"),
    ("sv", "Swedish"),
    ("sw", "Swahili"),
    ("ta", "Tamil"),
    ("te", "Telugu"),
    ("tg", "Tajik"),
    ("th", "Thai"),
    ("tk", "Turkmen"),
    ("tl", "Tagalog"),
    ("tr", "Turkish"),
    ("tt", "Tatar"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("uz", "Uzbek"),
    ("vi", "Vietnamese"),
    ("yi", "Yiddish"),
    ("yo", "Yoruba"),
    ("yue", "Cantonese"),
    ("zh", "Chinese"),
];

/// The language that a client means, by tag (`de`, `de-CH`) or by name; English where it names none.
///
/// # Errors
/// There is no such language.
pub(super) fn of(asked: Option<&str>) -> Result<Name, Fault> {
    let asked = asked.map(str::trim).filter(|asked| !asked.is_empty());
    let asked = asked.unwrap_or("en");
    let tag = asked.split(['-', '_']).next().unwrap_or(asked);
    let known = LANGUAGES
        .iter()
        .find(|(known, name)| known.eq_ignore_ascii_case(tag) || name.eq_ignore_ascii_case(asked));
    let (_, name) = known.ok_or_else(|| {
        let message = format!(
            "language is {:?}; it is a tag of two letters, such as \"en\" (ISO 639-1)",
            short(asked)
        );
        Fault::invalid("language", message)
    })?;
    Name::new("language", (*name).to_owned()).map_err(|error| Fault::from(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_known_by_tag_and_by_name() {
        let name = |asked| of(asked).ok().map(|name| name.to_string());
        assert_eq!(name(None).as_deref(), Some("English"));
        assert_eq!(name(Some("")).as_deref(), Some("English"));
        assert_eq!(name(Some("de")).as_deref(), Some("German"));
        assert_eq!(name(Some("de-CH")).as_deref(), Some("German"));
        assert_eq!(name(Some("PT_br")).as_deref(), Some("Portuguese"));
        assert_eq!(name(Some("french")).as_deref(), Some("French"));
        assert_eq!(name(Some("xx")), None);
        assert!(LANGUAGES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
