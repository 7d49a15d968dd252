//! The grammar of calls, in the parser's language (Lark): a rule for each tool and for each part of its arguments that needs one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::schema::{Arguments, Key, Object, Shape, arguments};
use super::{CallRules, CallSyntax, MAX_CALLS, Tool, ToolError};
use crate::model::tokenizer::ToolTokens;

/// A key that the schema does not name.
const FREE_KEY: &str = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}";
/// Whole numbers that every client reads, and fractions as long as anybody says.
const INTEGER: &str = r"/0|-?[1-9][0-9]{0,14}/";
const NUMBER: &str = r"/-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?/";
/// What a text begins with that is no call: neither its brace, nor white space or a fence before one.
const FIRST_OF_TEXT: &str = r"/[^\s{`](?s:.*)/";

/// The grammar of an answer that calls `tools`, or may.
pub(super) fn calls(
    syntax: CallSyntax,
    tools: &[Tool],
    rules: CallRules,
    text: Option<&Value>,
) -> Result<String, ToolError> {
    let mut writer = Writer {
        syntax,
        rules: String::new(),
        memo: HashMap::new(),
        names: 0,
        named: BTreeMap::new(),
    };
    let mut alternatives = Vec::new();
    for tool in tools {
        alternatives.push(writer.call(tool)?);
    }
    let more = match (rules.several, syntax) {
        (false, _) => String::new(),
        (true, CallSyntax::Tokens(_)) => format!(" call{{0,{}}}", MAX_CALLS - 1),
        (true, CallSyntax::Json) => format!(" (\"\\n\" call){{0,{}}}", MAX_CALLS - 1),
    };
    let text = match (rules.must, text, syntax) {
        (true, ..) => String::new(),
        (false, Some(schema), _) => format!(" | %json {schema}"),
        (false, None, CallSyntax::Json) => {
            writer.rules.push_str(&format!("TEXT: {FIRST_OF_TEXT}\n"));
            " | TEXT".to_owned()
        }
        // Its calls begin with a token that no text holds: text is not their grammar's.
        (false, None, CallSyntax::Tokens(_)) => String::new(),
    };
    Ok(format!(
        "start: call{more}{text}\ncall: {}\n{}",
        alternatives.join(" | "),
        writer.rules
    ))
}

struct Writer {
    syntax: CallSyntax,
    rules: String,
    /// Rules by what they say: many tools have the same keys.
    memo: HashMap<String, String>,
    names: usize,
    /// Rules of the places of the tool in work.
    named: BTreeMap<String, String>,
}

/// As a text of the parser's language.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

impl Writer {
    fn call(&mut self, tool: &Tool) -> Result<String, ToolError> {
        let Arguments { object, named } = arguments(&tool.name, &tool.parameters)?;
        self.named.clear();
        for place in named.keys() {
            self.names += 1;
            self.named.insert(place.clone(), format!("p{}", self.names));
        }
        for (place, shape) in &named {
            let says = self.shape(shape);
            if let Some(rule) = self.named.get(place) {
                self.rules.push_str(&format!("{rule}: {says}\n"));
            }
        }
        let object = self.object(&object);
        Ok(match self.syntax {
            CallSyntax::Tokens(ToolTokens {
                call: [start, end], ..
            }) => {
                let begin = quoted(&format!("call:{}", tool.name));
                format!("<[{start}]> {begin} {object} <[{end}]>")
            }
            CallSyntax::Json => {
                let begin = format!("{{\"name\": {}, \"parameters\": ", json!(tool.name));
                format!("{} {object} \"}}\"", quoted(&begin))
            }
        })
    }

    /// The name of a rule that says this.
    fn rule(&mut self, says: String) -> String {
        self.entry(says, 'r')
    }

    /// The name of a terminal that is this.
    fn terminal(&mut self, says: String) -> String {
        self.entry(says, 'T')
    }

    fn entry(&mut self, says: String, kind: char) -> String {
        let known = format!("{kind}{says}");
        if let Some(name) = self.memo.get(&known) {
            return name.clone();
        }
        self.names += 1;
        let name = format!("{kind}{}", self.names);
        self.rules.push_str(&format!("{name}: {says}\n"));
        self.memo.insert(known, name.clone());
        name
    }

    fn comma(&self) -> &'static str {
        match self.syntax {
            CallSyntax::Tokens(_) => "\",\"",
            CallSyntax::Json => "\", \"",
        }
    }

    /// A key with its colon.
    fn key(&self, name: &str) -> String {
        match self.syntax {
            CallSyntax::Tokens(_) => quoted(&format!("{name}:")),
            CallSyntax::Json => quoted(&format!("{}: ", json!(name))),
        }
    }

    /// A key that is none of these, with its colon.
    fn free_key(&mut self, known: &[Key]) -> String {
        let (before, after) = match self.syntax {
            CallSyntax::Tokens(_) => ("", "\":\""),
            CallSyntax::Json => ("\"", "\": \""),
        };
        let mut says = format!("/{before}{FREE_KEY}{before}/");
        if !known.is_empty() {
            let names = known
                .iter()
                .map(|key| quoted(&format!("{before}{}{before}", key.name)));
            says.push_str(&format!(" & ~({})", names.collect::<Vec<_>>().join(" | ")));
        }
        format!("{} {after}", self.terminal(says))
    }

    /// Text between quotes.
    fn within_quotes(&self, text: &str) -> String {
        match self.syntax {
            CallSyntax::Tokens(ToolTokens { quote, .. }) => {
                format!("<[{quote}]> {text} <[{quote}]>")
            }
            CallSyntax::Json => text.to_owned(),
        }
    }

    fn shape(&mut self, shape: &Shape) -> String {
        match shape {
            Shape::Any => self.any(),
            Shape::Text {
                least,
                most,
                pattern,
            } => self.text(*least, *most, pattern.as_deref()),
            Shape::OneOf(values) => self.one_of(values),
            Shape::Number(keys) => self.number(keys),
            Shape::Boolean => "(\"true\" | \"false\")".to_owned(),
            Shape::Null => "\"null\"".to_owned(),
            Shape::List { items, least, most } => {
                let item = self.shape(items);
                let item = self.rule(item);
                self.list(&item, *least, *most)
            }
            Shape::Object(object) => self.object(object),
            Shape::Either(shapes) => {
                let shapes: Vec<String> = shapes.iter().map(|shape| self.shape(shape)).collect();
                format!("({})", shapes.join(" | "))
            }
            Shape::Named(place) => self.named.get(place).cloned().unwrap_or_default(),
        }
    }

    fn any(&mut self) -> String {
        let known = "rany".to_owned();
        if let Some(name) = self.memo.get(&known) {
            return name.clone();
        }
        self.memo.insert(known, "any".to_owned());
        let text = self.text(0, None, None);
        let number = self.terminal(NUMBER.to_owned());
        let list = self.list("any", 0, None);
        let object = self.object(&Object {
            keys: Vec::new(),
            more: Some(Box::new(Shape::Any)),
        });
        self.rules.push_str(&format!(
            "any: {text} | {number} | \"true\" | \"false\" | \"null\" | {list} | {object}\n"
        ));
        "any".to_owned()
    }

    fn text(&mut self, least: usize, most: Option<usize>, pattern: Option<&str>) -> String {
        if self.syntax == CallSyntax::Json {
            let mut schema = Map::from_iter([("type".to_owned(), json!("string"))]);
            if least > 0 {
                schema.insert("minLength".to_owned(), json!(least));
            }
            if let Some(most) = most {
                schema.insert("maxLength".to_owned(), json!(most));
            }
            if let Some(pattern) = pattern {
                schema.insert("pattern".to_owned(), json!(pattern));
            }
            return self.rule(format!("%json {}", Value::Object(schema)));
        }
        if most == Some(0) {
            return self.within_quotes("");
        }
        let most = most.map_or(String::new(), |most| most.to_string());
        let length = format!("/(?s:.{{{},{most}}})/", least.max(1));
        let (says, may_be_empty) = match pattern {
            None => (length, least == 0),
            // A pattern holds somewhere, unless it says where.
            Some(pattern) => {
                let (begin, rest) = match pattern.strip_prefix('^') {
                    Some(rest) => ("", rest),
                    None => ("(?s:.*)", pattern),
                };
                let (rest, end) = match rest.strip_suffix('$') {
                    Some(rest) if !rest.ends_with('\\') => (rest, ""),
                    _ => (rest, "(?s:.*)"),
                };
                let pattern = format!("/{begin}({}){end}/", rest.replace('/', r"\/"));
                (format!("{pattern} & {length}"), false)
            }
        };
        let text = self.terminal(says);
        self.within_quotes(&if may_be_empty {
            format!("{text}?")
        } else {
            text
        })
    }

    fn number(&mut self, keys: &Map<String, Value>) -> String {
        let is_integer = keys.get("type").and_then(Value::as_str) == Some("integer");
        let plain = if is_integer { INTEGER } else { NUMBER };
        match keys.len() {
            1 => self.terminal(plain.to_owned()),
            _ => {
                // A number without an end on one side could be too long for anybody to read.
                let mut keys = keys.clone();
                let far = if is_integer {
                    json!(999_999_999_999_999_i64)
                } else {
                    json!(1e15)
                };
                let near = if is_integer {
                    json!(-999_999_999_999_999_i64)
                } else {
                    json!(-1e15)
                };
                for (key, other, bound) in [
                    ("maximum", "exclusiveMaximum", far),
                    ("minimum", "exclusiveMinimum", near),
                ] {
                    if !keys.contains_key(key) && !keys.contains_key(other) {
                        keys.insert(key.to_owned(), bound);
                    }
                }
                self.rule(format!("%json {}", Value::Object(keys)))
            }
        }
    }

    fn one_of(&mut self, values: &[Value]) -> String {
        let (texts, others): (Vec<&Value>, Vec<&Value>) =
            values.iter().partition(|value| value.is_string());
        let mut alternatives: Vec<String> =
            others.into_iter().map(|value| self.value(value)).collect();
        let texts: Vec<&str> = texts.into_iter().filter_map(Value::as_str).collect();
        if texts.contains(&"") && self.syntax != CallSyntax::Json {
            alternatives.push(self.within_quotes(""));
        }
        let written = texts.into_iter().filter_map(|text| match self.syntax {
            CallSyntax::Json => Some(quoted(&json!(text).to_string())),
            CallSyntax::Tokens(_) => (!text.is_empty()).then(|| quoted(text)),
        });
        let written: Vec<String> = written.collect();
        if !written.is_empty() {
            let terminal = self.terminal(written.join(" | "));
            alternatives.push(self.within_quotes(&terminal));
        }
        let says = alternatives.join(" | ");
        self.rule(says)
    }

    /// One value, as it is written.
    fn value(&self, value: &Value) -> String {
        match value {
            Value::String(text) => match self.syntax {
                CallSyntax::Json => quoted(&value.to_string()),
                CallSyntax::Tokens(_) if text.is_empty() => self.within_quotes(""),
                CallSyntax::Tokens(_) => self.within_quotes(&quoted(text)),
            },
            Value::Array(values) => {
                let values: Vec<String> = values.iter().map(|value| self.value(value)).collect();
                format!(
                    "\"[\" {} \"]\"",
                    values.join(&format!(" {} ", self.comma()))
                )
            }
            Value::Object(keys) => {
                let entry = |(name, value): &(&String, &Value)| {
                    format!("{} {}", self.key(name), self.value(value))
                };
                let entries: Vec<String> = self
                    .sorted(keys.iter(), |(name, _)| name)
                    .iter()
                    .map(entry)
                    .collect();
                format!(
                    "\"{{\" {} \"}}\"",
                    entries.join(&format!(" {} ", self.comma()))
                )
            }
            other => quoted(&other.to_string()),
        }
    }

    fn list(&mut self, item: &str, least: usize, most: Option<usize>) -> String {
        let comma = self.comma();
        let more = match most {
            Some(0) => return "\"[]\"".to_owned(),
            Some(most) => format!(
                "({comma} {item}){{{},{}}}",
                least.saturating_sub(1),
                most - 1
            ),
            None => format!("({comma} {item}){{{},}}", least.saturating_sub(1)),
        };
        match least {
            0 => format!("\"[\" ({item} {more})? \"]\""),
            _ => format!("\"[\" {item} {more} \"]\""),
        }
    }

    /// An object's keys in the order in which the family writes them, those that need not be there each there or not.
    fn object(&mut self, object: &Object) -> String {
        let comma = self.comma();
        let keys = self.sorted(object.keys.iter(), |key| &key.name);
        // Behind a key that is there, and where none is there yet.
        let (mut behind, mut first) = (String::new(), String::new());
        if let Some(more) = &object.more {
            let shape = self.shape(more);
            let key = self.free_key(&object.keys);
            let entry = self.rule(format!("{key} {shape}"));
            behind = format!("({comma} {entry})*");
            first = format!("({entry} {behind})?");
        }
        for key in keys.into_iter().rev() {
            let shape = self.shape(&key.shape);
            let entry = self.rule(format!("{} {shape}", self.key(&key.name)));
            let (next, other) = match key.required {
                true => (
                    format!("{comma} {entry} {behind}"),
                    format!("{entry} {behind}"),
                ),
                false => {
                    let rest = if first.is_empty() {
                        String::new()
                    } else {
                        format!(" | {first}")
                    };
                    let may = if first.is_empty() { "?" } else { "" };
                    (
                        format!("({comma} {entry})? {behind}"),
                        format!("({entry} {behind}{rest}){may}"),
                    )
                }
            };
            behind = self.rule(next);
            first = self.rule(other);
        }
        match first.is_empty() {
            true => "\"{}\"".to_owned(),
            false => self.rule(format!("\"{{\" {first} \"}}\"")),
        }
    }

    /// In the order in which the family writes keys: by name without regard to case, or as they are.
    fn sorted<T>(&self, entries: impl Iterator<Item = T>, name: impl Fn(&T) -> &String) -> Vec<T> {
        let mut entries: Vec<T> = entries.collect();
        if let CallSyntax::Tokens(_) = self.syntax {
            entries.sort_by_key(|entry| name(entry).to_lowercase());
        }
        entries
    }
}
