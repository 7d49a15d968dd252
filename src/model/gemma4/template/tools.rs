//! Tools in prompts: declarations, calls and results, written without quotes around keys and with a token around texts.
//!
//! Keys are sorted without regard to case. Source: reference section 5.2.

use serde_json::{Map, Value};

use crate::model::prompt::{PromptError, PromptWriter};
use crate::model::tools::{Tool, ToolCall, ToolResult};

/// `<|tool>declaration:NAME{…}<tool|>`
pub(super) fn declaration(writer: &mut PromptWriter<'_>, tool: &Tool) -> Result<(), PromptError> {
    let [start, end] = writer.tools()?.declaration;
    writer.control(start);
    let mut list = ToolWriter(writer);
    list.text("declaration:");
    list.text(&tool.name);
    list.text("{description:");
    list.quoted(&tool.description)?;
    if tool.parameters.is_object() {
        list.text(",parameters:{");
        list.object_schema(&tool.parameters)?;
        list.text("type:");
        list.type_name(
            tool.parameters
                .get("type")
                .unwrap_or(&Value::from("object")),
        )?;
        list.text("}");
    }
    list.text("}");
    writer.control(end);
    Ok(())
}

/// `<|tool_call>call:NAME{…}<tool_call|>`
pub(super) fn call(writer: &mut PromptWriter<'_>, call: &ToolCall) -> Result<(), PromptError> {
    let [start, end] = writer.tools()?.call;
    writer.control(start);
    let mut list = ToolWriter(writer);
    list.text("call:");
    list.text(&call.name);
    list.map(&call.arguments)?;
    writer.control(end);
    Ok(())
}

/// `<|tool_response>response:NAME{…}<tool_response|>`
pub(super) fn result(
    writer: &mut PromptWriter<'_>,
    result: &ToolResult,
) -> Result<(), PromptError> {
    let [start, end] = writer.tools()?.response;
    writer.control(start);
    let mut list = ToolWriter(writer);
    list.text("response:");
    list.text(&result.name);
    match &result.value {
        Value::Object(keys) => list.map(keys)?,
        value => {
            list.text("{value:");
            list.value(value)?;
            list.text("}");
        }
    }
    writer.control(end);
    Ok(())
}

/// The place where the result of a call is to come.
pub(super) fn wait(writer: &mut PromptWriter<'_>) -> Result<(), PromptError> {
    let [start, _] = writer.tools()?.response;
    writer.control(start);
    Ok(())
}

struct ToolWriter<'w, 't>(&'w mut PromptWriter<'t>);

impl ToolWriter<'_, '_> {
    fn text(&mut self, text: &str) {
        self.0.text(text);
    }

    fn quoted(&mut self, text: &str) -> Result<(), PromptError> {
        let quote = self.0.tools()?.quote;
        self.0.control(quote);
        self.0.text(text);
        self.0.control(quote);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), PromptError> {
        match value {
            Value::String(text) => self.quoted(text),
            Value::Object(keys) => self.map(keys),
            Value::Array(values) => self.values(values),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.text(&value.to_string());
                Ok(())
            }
        }
    }

    fn values(&mut self, values: &[Value]) -> Result<(), PromptError> {
        self.text("[");
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.text(",");
            }
            self.value(value)?;
        }
        self.text("]");
        Ok(())
    }

    fn map(&mut self, keys: &Map<String, Value>) -> Result<(), PromptError> {
        self.text("{");
        for (at, (key, value)) in sorted(keys).into_iter().enumerate() {
            if at > 0 {
                self.text(",");
            }
            self.text(key);
            self.text(":");
            self.value(value)?;
        }
        self.text("}");
        Ok(())
    }

    /// `properties:{…},required:[…],` of an object's schema, what there is of them.
    fn object_schema(&mut self, schema: &Value) -> Result<(), PromptError> {
        if let Some(Value::Object(properties)) = schema.get("properties")
            && !properties.is_empty()
        {
            self.text("properties:{");
            for (at, (key, schema)) in sorted(properties).into_iter().enumerate() {
                if at > 0 {
                    self.text(",");
                }
                self.text(key);
                self.text(":{");
                self.property(schema)?;
                self.text("}");
            }
            self.text("},");
        }
        if let Some(Value::Array(required)) = schema.get("required")
            && !required.is_empty()
        {
            self.text("required:");
            self.values(required)?;
            self.text(",");
        }
        Ok(())
    }

    /// One property: what it means, its values, and its type.
    fn property(&mut self, schema: &Value) -> Result<(), PromptError> {
        if let Some(Value::String(description)) = schema.get("description")
            && !description.is_empty()
        {
            self.text("description:");
            self.quoted(description)?;
            self.text(",");
        }
        let none = Value::Null;
        let kind = schema.get("type").unwrap_or(&none);
        let is = |name: &str| {
            kind.as_str()
                .is_some_and(|kind| kind.eq_ignore_ascii_case(name))
        };
        if let Some(Value::Array(values)) = schema.get("enum")
            && is("string")
        {
            self.text("enum:");
            self.values(values)?;
            self.text(",");
        }
        if let Some(items) = schema.get("items")
            && is("array")
        {
            self.text("items:{type:");
            self.type_name(items.get("type").unwrap_or(&none))?;
            self.text("},");
        }
        if schema.get("nullable") == Some(&Value::Bool(true)) {
            self.text("nullable:true,");
        }
        if is("object") {
            self.object_schema(schema)?;
        }
        self.text("type:");
        self.type_name(kind)
    }

    /// A type, in upper case.
    fn type_name(&mut self, kind: &Value) -> Result<(), PromptError> {
        self.quoted(&kind.as_str().unwrap_or_default().to_uppercase())
    }
}

/// By key without regard to case; keys that differ in nothing else stay in their order.
fn sorted(keys: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = keys.iter().collect();
    sorted.sort_by_key(|(key, _)| key.to_lowercase());
    sorted
}
