//! Tools in requests: what may be called, what was called, and what came of it.

use serde_json::{Map, Value};

use super::fault::Fault;
use crate::guard::harmless::short;
use crate::report::chat::{Said, Tool, ToolCall, ToolChoice, Tools};

/// What may be called; nothing where there are no tools, or where none is to be called.
///
/// A tool is a function under that key, or beside its type. Without `several`, one answer holds one call.
pub(super) fn offered(
    tools: Option<Vec<Value>>,
    choice: Option<&Value>,
    several: bool,
) -> Result<Option<Tools>, Fault> {
    let tools = tools.unwrap_or_default().into_iter().enumerate();
    let offered = tools.map(|(at, value)| tool(value, &format!("tools[{at}]")));
    let offered: Vec<Tool> = offered.collect::<Result<_, _>>()?;
    let wrong = |message: String| Fault::invalid("tool_choice", message);
    let choice = match choice.unwrap_or(&Value::Null) {
        Value::Null => ToolChoice::Auto,
        Value::String(word) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => return Ok(None),
            "required" | "any" => ToolChoice::Must,
            other => {
                return Err(wrong(format!(
                    "tool_choice is {:?}; it is none, auto, required, or a function by its name",
                    short(other)
                )));
            }
        },
        other => {
            let named = other.get("function").unwrap_or(other).get("name");
            let Some(Value::String(name)) = named else {
                let shown = short(&other.to_string());
                return Err(wrong(format!(
                    "tool_choice is {shown}; it is none, auto, required, or {{\"type\": \"function\", \"function\": {{\"name\": …}}}}"
                )));
            };
            ToolChoice::Named(name.clone())
        }
    };
    let is_there = |name: &String| offered.iter().any(|tool| tool.name == *name);
    match &choice {
        ToolChoice::Must if offered.is_empty() => {
            return Err(wrong(
                "tool_choice: there are no tools to choose from".to_owned(),
            ));
        }
        ToolChoice::Named(name) if !is_there(name) => {
            let name = short(name);
            return Err(wrong(format!("tool_choice: there is no tool {name:?}")));
        }
        _ => {}
    }
    Ok((!offered.is_empty()).then_some(Tools {
        offered,
        choice,
        several,
        closed_names: false,
    }))
}

fn tool(mut value: Value, at: &str) -> Result<Tool, Fault> {
    let wrong = |key: &str, what: &str| {
        let place = format!("{at}{key}");
        Fault::invalid(&place, format!("{place} {what}"))
    };
    if let Some(kind) = value.get("type").filter(|kind| !kind.is_null())
        && kind != "function"
    {
        let shown = short(&kind.to_string());
        return Err(wrong(
            ".type",
            &format!("is {shown}; only functions can be called"),
        ));
    }
    let (mut function, at_function) = match value.get_mut("function") {
        Some(function) => (function.take(), ".function"),
        None => (value, ""),
    };
    let mut text = |key: &str| match function.get_mut(key).map(Value::take) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("{at_function}.{key}"), "is no text")),
    };
    let name = text("name")?;
    let description = text("description")?.unwrap_or_default();
    let name = name.ok_or_else(|| wrong(&format!("{at_function}.name"), "is missing"))?;
    Ok(Tool {
        name,
        description,
        parameters: function
            .get_mut("parameters")
            .map(Value::take)
            .unwrap_or_default(),
    })
}

/// Calls of a conversation whose results are still to come, in order.
#[derive(Default)]
pub(super) struct Calls {
    open: Vec<(Option<String>, String)>,
}

impl Calls {
    /// A call that the model made earlier: `{id?, function: {name, arguments}}`, or name and arguments beside an id.
    pub(super) fn called(&mut self, call: &Value, at: &str) -> Result<Said, Fault> {
        let function = call.get("function").unwrap_or(call);
        let wrong = |key: &str, what: &str| {
            let place = format!("{at}.{key}");
            Fault::invalid(&place, format!("{place} {what}"))
        };
        let Some(Value::String(name)) = function.get("name") else {
            return Err(wrong("function.name", "is missing, or no text"));
        };
        let arguments = match function.get("arguments").unwrap_or(&Value::Null) {
            Value::Null => Map::new(),
            Value::Object(arguments) => arguments.clone(),
            Value::String(text) if text.trim().is_empty() => Map::new(),
            Value::String(text) => serde_json::from_str(text)
                .map_err(|_| wrong("function.arguments", "is no JSON object"))?,
            _ => return Err(wrong("function.arguments", "is no JSON object")),
        };
        let id = ["call_id", "id"]
            .iter()
            .find_map(|key| call.get(*key)?.as_str());
        let id = id.filter(|id| !id.is_empty()).map(str::to_owned);
        self.open.push((id, name.clone()));
        Ok(Said::Called(ToolCall {
            name: name.clone(),
            arguments,
        }))
    }

    /// What came of a call: of the one with this id, of the next one with this name, or of the next one.
    pub(super) fn result(
        &mut self,
        id: Option<&str>,
        name: Option<&str>,
        content: &str,
        at: &str,
    ) -> Result<Said, Fault> {
        let known = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (id, name) = (known(id), known(name));
        let has_ids = self.open.iter().any(|(id, _)| id.is_some());
        let found = match (&id, &name) {
            (Some(_), _) if has_ids => self.open.iter().position(|(of, _)| *of == id),
            (_, Some(name)) => self.open.iter().position(|(_, of)| of == name),
            _ => (!self.open.is_empty()).then_some(0),
        };
        let Some(found) = found else {
            let of = match id.or(name) {
                Some(of) => format!("of {:?}, and no call before it waits for that", short(&of)),
                None => "of a call, and no call before it waits for one".to_owned(),
            };
            return Err(Fault::invalid(at, format!("{at} is a result {of}")));
        };
        let (_, name) = self.open.remove(found);
        let value = match serde_json::from_str(content) {
            Ok(Value::Object(keys)) => Value::Object(keys),
            _ => Value::String(content.to_owned()),
        };
        Ok(Said::Result { name, value })
    }
}

/// The text of a result, which may come in parts.
pub(super) fn text_of(said: Vec<Said>, at: &str) -> Result<String, Fault> {
    let texts = said.into_iter().map(|said| match said {
        Said::Text(text) => Ok(text),
        _ => Err(Fault::invalid(
            at,
            format!("{at}: what came of a call is told as text"),
        )),
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// Whether something is shown or played, of which only so many may be.
pub(super) fn is_media(said: &Said) -> bool {
    matches!(said, Said::Picture(_) | Said::Sound(_))
}
