//! What the model is asked to do with a clip or a picture: texts with places for languages.

use serde::Deserialize;

/// The prompts of the tasks; `{language}` and `{target}` are replaced by names of languages, such as `Spanish`.
///
/// The keys of a configuration file have these names; those left out keep the defaults given here, which are the texts
/// that Gemma 3n's documentation recommends and that the demo model was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tasks {
    /// Speech to text in the spoken `{language}`: `Transcribe the following speech segment in {language}:`
    pub transcribe: String,
    /// Speech in `{language}` to text in `{target}`:
    /// `Transcribe the following speech segment in {language}, then translate it into {target}.`
    pub translate: String,
    /// A picture to a sentence: `Describe what the camera sees.`
    pub describe: String,
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks {
            transcribe: "Transcribe the following speech segment in {language}:".to_owned(),
            translate: "Transcribe the following speech segment in {language}, then translate it into {target}."
                .to_owned(),
            describe: "Describe what the camera sees.".to_owned(),
        }
    }
}

/// A task's text has a place that nothing fills.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the prompt of task {task} has the place {{{place}}}; it may have only {allowed}")]
pub struct TaskError {
    /// The key of the text.
    pub task: &'static str,
    /// The name between the braces.
    pub place: String,
    /// The places that this task fills.
    pub allowed: &'static str,
}

impl Tasks {
    /// The prompt that transcribes speech in `language`.
    ///
    /// # Errors
    /// The text has another place than `{language}`.
    pub fn transcribe(&self, language: &str) -> Result<String, TaskError> {
        fill(
            "transcribe",
            &self.transcribe,
            "{language}",
            &[("language", language)],
        )
    }

    /// The prompt that translates speech in `language` into `target`.
    ///
    /// # Errors
    /// The text has another place than `{language}` and `{target}`.
    pub fn translate(&self, language: &str, target: &str) -> Result<String, TaskError> {
        let places = [("language", language), ("target", target)];
        fill(
            "translate",
            &self.translate,
            "{language} and {target}",
            &places,
        )
    }

    /// The prompt that describes a picture.
    ///
    /// # Errors
    /// The text has a place.
    pub fn describe(&self) -> Result<String, TaskError> {
        fill("describe", &self.describe, "none", &[])
    }
}

/// Puts values into places; a name between braces is a place, any other brace is text (a prompt may show JSON).
fn fill(
    task: &'static str,
    text: &str,
    allowed: &'static str,
    places: &[(&str, &str)],
) -> Result<String, TaskError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        match after.split_once('}').filter(|(name, _)| is_name(name)) {
            Some((name, behind)) => {
                let (_, value) =
                    places
                        .iter()
                        .find(|(place, _)| *place == name)
                        .ok_or_else(|| TaskError {
                            task,
                            place: name.to_owned(),
                            allowed,
                        })?;
                out.push_str(value);
                rest = behind;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_checked() {
        let tasks = Tasks::default();
        assert_eq!(
            tasks.transcribe("English").unwrap(),
            "Transcribe the following speech segment in English:"
        );
        assert_eq!(
            tasks.translate("日本語", "{language}").unwrap(),
            "Transcribe the following speech segment in 日本語, then translate it into {language}."
        );
        assert_eq!(tasks.describe().unwrap(), "Describe what the camera sees.");
        let tasks = Tasks {
            describe: "Answer as {\"a\":{}} in {language}, {".into(),
            ..tasks
        };
        let error = tasks.describe().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the prompt of task describe has the place {language}; it may have only none"
        );
        let tasks = Tasks {
            transcribe: "{\"{language}\":{}} {".into(),
            ..tasks
        };
        assert_eq!(tasks.transcribe("español").unwrap(), "{\"español\":{}} {");
    }

    #[test]
    fn a_file_may_give_some_of_the_texts() {
        let tasks: Tasks = toml::from_str("describe = \"¿Qué ve la cámara?\"").unwrap();
        assert_eq!(
            tasks,
            Tasks {
                describe: "¿Qué ve la cámara?".into(),
                ..Tasks::default()
            }
        );
        assert!(toml::from_str::<Tasks>("descrbe = \"x\"").is_err());
    }
}
