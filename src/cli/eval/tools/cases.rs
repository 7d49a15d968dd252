//! Sentences, and the calls that each should lead to.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::eval::read_text;
use crate::cli::failure::{Failure, exit};
use crate::pipeline::Tool;

/// The example that comes with the program: a house in three languages.
const EXAMPLE: &str = include_str!("../../../../demo/tools/home.json");
/// A longer file is a mistake.
const MAX_BYTES: u64 = 16 << 20;

/// What is asked, and of whom.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// What stands before each sentence.
    pub(super) instructions: String,
    /// Names of one thing, any of which is right.
    #[serde(default)]
    same: Vec<Vec<String>>,
    /// Arguments that may be there or not.
    #[serde(default)]
    optional: Vec<String>,
    /// As OpenAI's protocol has them.
    tools: Vec<Offered>,
    pub(super) cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Offered {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
}

/// A sentence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    #[serde(default)]
    pub(super) language: String,
    pub(super) say: String,
    /// The calls that are right, in any order; none where it is to be answered.
    #[serde(default)]
    pub(super) calls: Vec<Call>,
}

/// A call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Call {
    pub(super) name: String,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
}

/// What became of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// All calls are right, and no more were made.
    Right,
    /// The right tool for another entity, area or floor.
    WrongEntity,
    /// The right tool with another value.
    WrongValue,
    /// Another tool, or not as many.
    WrongTool,
    /// It was answered.
    NoCall,
    /// Something was called where nothing should be.
    Needless,
}

/// Arguments that name what is in the house.
const NAMES: [&str; 3] = ["name", "area", "floor"];

impl Cases {
    /// Of a file, else of the example.
    ///
    /// # Errors
    /// The file cannot be read, or is not of this form.
    pub(super) fn read(path: Option<&Path>) -> Result<Cases, Failure> {
        let (text, shown) = match path {
            Some(path) => (read_text(path, MAX_BYTES)?, path.display().to_string()),
            None => (EXAMPLE.to_owned(), "the example".to_owned()),
        };
        let wrong = |what: String| Failure::new(exit::DATA, format_args!("{shown}: {what}"));
        let cases: Cases = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if cases.cases.is_empty() {
            return Err(wrong("it has no cases".to_owned()));
        }
        Ok(cases)
    }

    pub(super) fn tools(&self) -> Vec<Tool> {
        let tool = |Offered { function }: &Offered| Tool {
            name: function.name.clone(),
            description: function.description.clone(),
            parameters: function.parameters.clone(),
        };
        self.tools.iter().map(tool).collect()
    }

    /// What became of a sentence to which `said` was called.
    pub(super) fn judge(&self, case: &Case, said: &[Call]) -> Outcome {
        match (case.calls.is_empty(), said.is_empty()) {
            (true, true) => return Outcome::Right,
            (true, false) => return Outcome::Needless,
            (false, true) => return Outcome::NoCall,
            (false, false) => {}
        }
        let mut left: Vec<&Call> = said.iter().collect();
        let mut wrong = Vec::new();
        for wanted in &case.calls {
            match left
                .iter()
                .position(|call| self.fault(wanted, call).is_none())
            {
                Some(at) => {
                    left.remove(at);
                }
                None => wrong.push(wanted),
            }
        }
        if wrong.is_empty() && left.is_empty() {
            return Outcome::Right;
        }
        let mut outcome = Outcome::WrongValue;
        for wanted in wrong {
            let Some(at) = left.iter().position(|call| call.name == wanted.name) else {
                return Outcome::WrongTool;
            };
            let fault = self.fault(wanted, left.remove(at));
            if fault == Some(Outcome::WrongEntity) {
                outcome = Outcome::WrongEntity;
            }
        }
        if left.is_empty() {
            outcome
        } else {
            Outcome::WrongTool
        }
    }

    /// In what a call is not the wanted one.
    fn fault(&self, wanted: &Call, said: &Call) -> Option<Outcome> {
        if wanted.name != said.name {
            return Some(Outcome::WrongTool);
        }
        let keys = wanted.arguments.keys().chain(said.arguments.keys());
        let wrong = |key: &&String| {
            let (wanted, said) = (wanted.arguments.get(*key), said.arguments.get(*key));
            let may_be_absent = self.optional.contains(key) && (wanted.is_none() || said.is_none());
            !may_be_absent && !self.is_same(wanted, said)
        };
        let wrong: Vec<&String> = keys.filter(wrong).collect();
        if wrong.is_empty() {
            return None;
        }
        let names = wrong.iter().any(|key| NAMES.contains(&key.as_str()));
        Some(if names {
            Outcome::WrongEntity
        } else {
            Outcome::WrongValue
        })
    }

    fn is_same(&self, a: Option<&Value>, b: Option<&Value>) -> bool {
        let number = |value: Option<&Value>| value.and_then(Value::as_f64);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_lowercase);
        let is_one = |a: &str, b: &str| {
            let has = |names: &[String], name: &str| {
                names.iter().any(|known| known.to_lowercase() == name)
            };
            a == b || self.same.iter().any(|names| has(names, a) && has(names, b))
        };
        match (text(a), text(b)) {
            (Some(a), Some(b)) => is_one(&a, &b),
            _ => a == b || (number(a).is_some() && number(a) == number(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: Value) -> Call {
        Call {
            name: name.to_owned(),
            arguments: arguments.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn what_became_of_a_sentence_is_told_from_its_calls() {
        let cases = Cases {
            instructions: String::new(),
            same: vec![vec!["Lamp".to_owned(), "Sofa Lamp".to_owned()]],
            optional: vec!["domain".to_owned()],
            tools: Vec::new(),
            cases: Vec::new(),
        };
        let lamp = || call("on", json!({ "name": "Lamp" }));
        let judge = |wanted: &[Call], said: &[Call]| {
            let case = Case {
                language: String::new(),
                say: String::new(),
                calls: wanted.to_vec(),
            };
            cases.judge(&case, said)
        };
        let one = [lamp()];
        for (said, outcome) in [
            (vec![lamp()], Outcome::Right),
            (
                vec![call(
                    "on",
                    json!({ "name": "sofa lamp", "domain": ["light"] }),
                )],
                Outcome::Right,
            ),
            (
                vec![call("on", json!({ "name": "Fan" }))],
                Outcome::WrongEntity,
            ),
            (
                vec![call("on", json!({ "name": "Lamp", "area": "Hall" }))],
                Outcome::WrongEntity,
            ),
            (
                vec![call("on", json!({ "name": "Lamp", "level": 1 }))],
                Outcome::WrongValue,
            ),
            (
                vec![call("off", json!({ "name": "Lamp" }))],
                Outcome::WrongTool,
            ),
            (vec![lamp(), lamp()], Outcome::WrongTool),
            (vec![], Outcome::NoCall),
        ] {
            assert_eq!(judge(&one, &said), outcome, "{said:?}");
        }
        assert_eq!(
            (judge(&[], &[]), judge(&[], &one)),
            (Outcome::Right, Outcome::Needless)
        );
        let two = [lamp(), call("set", json!({ "level": 7.0 }))];
        assert_eq!(
            judge(&two, &[call("set", json!({ "level": 7 })), lamp()]),
            Outcome::Right
        );
        assert_eq!(judge(&two, &one), Outcome::WrongTool);
        assert_eq!(
            judge(&two, &[lamp(), call("set", json!({ "level": 8 }))]),
            Outcome::WrongValue
        );
    }

    #[test]
    fn the_example_has_sixty_sentences_in_three_languages_and_calls_that_fit_its_tools() {
        let cases = Cases::read(None).ok().map(|cases| {
            let tools = cases.tools();
            for case in &cases.cases {
                for call in &case.calls {
                    let tool = tools.iter().find(|tool| tool.name == call.name);
                    let arguments = Value::Object(call.arguments.clone());
                    assert!(
                        tool.is_some_and(|tool| jsonschema::is_valid(&tool.parameters, &arguments)),
                        "{}",
                        case.say
                    );
                }
            }
            cases
                .cases
                .into_iter()
                .map(|case| case.language)
                .collect::<Vec<_>>()
        });
        let languages = cases.unwrap_or_default();
        let count = |of: &str| languages.iter().filter(|language| *language == of).count();
        assert_eq!(["en", "de", "es"].map(count), [20, 20, 20]);
    }
}
