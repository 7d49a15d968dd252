//! The schema of a tool's arguments, as clients write them, brought into what a grammar is made of.
//!
//! Taken over are `type` (one, or a list of them), `nullable`, `properties`, `required`, `additionalProperties`, `items`, `minItems`,
//! `maxItems`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, `$ref` within the schema, `minLength`, `maxLength`, `pattern`, and the bounds
//! of numbers. What only describes (`title`, `description`, `default`, `examples`, `format`, …) decides nothing. What else would decide
//! is refused, since arguments that break it could come out.

mod join;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ToolError;

/// What a value may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Any JSON value.
    Any,
    /// A text, of so many characters, that a regular expression matches somewhere.
    Text {
        least: usize,
        most: Option<usize>,
        pattern: Option<String>,
    },
    /// One of these values.
    OneOf(Vec<Value>),
    /// A number; the keys of its schema.
    Number(Map<String, Value>),
    Boolean,
    Null,
    List {
        items: Box<Shape>,
        least: usize,
        most: Option<usize>,
    },
    Object(Object),
    /// Any of these.
    Either(Vec<Shape>),
    /// What stands at a place of the schema.
    Named(String),
}

/// An object's keys, in order, and what further ones may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object {
    pub(super) keys: Vec<Key>,
    pub(super) more: Option<Box<Shape>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) shape: Shape,
}

/// A tool's arguments.
pub(super) struct Arguments {
    pub(super) object: Object,
    /// Shapes by their place in the schema.
    pub(super) named: BTreeMap<String, Shape>,
}

/// Parts of a schema at most; more than any tool has.
const MAX_NODES: usize = 20_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// The largest repetition that the parser's tables hold without swelling.
const MAX_COUNT: u64 = 4096;

struct Reader<'s> {
    tool: &'s str,
    root: &'s Value,
    nodes: usize,
    named: BTreeMap<String, Option<Shape>>,
}

/// Reads the schema of the arguments of `tool`; `null` and `{}` are those of one that takes none.
pub(super) fn arguments(tool: &str, root: &Value) -> Result<Arguments, ToolError> {
    let mut reader = Reader {
        tool,
        root,
        nodes: 0,
        named: BTreeMap::new(),
    };
    let is_empty = root.as_object().is_some_and(Map::is_empty);
    let object = match root {
        Value::Null => Object::default(),
        _ if is_empty => Object::default(),
        root => {
            let mut shape = reader.shape(root, "parameters", 0)?;
            // A schema that is elsewhere, as some generators write it.
            while let Shape::Named(place) = &shape {
                shape = match reader.named.get(place) {
                    Some(Some(found)) => found.clone(),
                    _ => break,
                };
            }
            match shape {
                Shape::Object(object) => object,
                _ => {
                    let reason = "arguments are an object: its type is \"object\"";
                    return Err(reader.wrong("parameters", reason));
                }
            }
        }
    };
    let named = reader.named.into_iter();
    Ok(Arguments {
        object,
        named: named
            .filter_map(|(place, shape)| Some((place, shape?)))
            .collect(),
    })
}

impl Reader<'_> {
    fn wrong(&self, key: &str, reason: impl Into<String>) -> ToolError {
        ToolError::Schema {
            tool: self.tool.to_owned(),
            key: key.to_owned(),
            reason: reason.into(),
        }
    }

    fn shape(&mut self, schema: &Value, at: &str, depth: usize) -> Result<Shape, ToolError> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let reason = format!(
                "the schema is nested deeper than {MAX_DEPTH}, or has more than {MAX_NODES} parts"
            );
            return Err(self.wrong(at, reason));
        }
        let keys = match schema {
            Value::Bool(true) => return Ok(Shape::Any),
            Value::Object(keys) => keys,
            Value::Bool(false) => return Err(self.wrong(at, "nothing fits it")),
            _ => return Err(self.wrong(at, "a schema is an object, or true")),
        };
        if let Some(key) = join::refused(keys) {
            let reason = "is not followed: leave it out, or say it in the description";
            return Err(self.wrong(&format!("{at}.{key}"), reason));
        }
        if let Some(Value::String(place)) = keys.get("$ref") {
            return self.reference(place, at, depth);
        }
        if let Some(parts) = keys.get("allOf") {
            let joined = self.all_of(keys, parts, at)?;
            return self.shape(&joined, at, depth + 1);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = keys.get(key) {
                return self.either(keys, branches, &format!("{at}.{key}"), depth);
            }
        }
        let shape = match (keys.get("const"), keys.get("enum")) {
            (Some(value), _) => Shape::OneOf(vec![value.clone()]),
            (None, Some(Value::Array(values))) => {
                let values = values.iter().filter(|value| join::is_of_type(value, keys));
                let values: Vec<Value> = values.cloned().collect();
                if values.is_empty() {
                    let reason = "has no value of its type: nothing fits it";
                    return Err(self.wrong(&format!("{at}.enum"), reason));
                }
                Shape::OneOf(values)
            }
            (None, Some(_)) => {
                return Err(self.wrong(&format!("{at}.enum"), "is a list of values"));
            }
            (None, None) => self.typed(keys, at, depth)?,
        };
        Ok(match keys.get("nullable") {
            Some(Value::Bool(true)) => Shape::Either(vec![shape, Shape::Null]),
            _ => shape,
        })
    }

    /// By its type, or by the keys that only values of one type have.
    fn typed(
        &mut self,
        keys: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<Shape, ToolError> {
        let place = format!("{at}.type");
        match keys.get("type") {
            Some(Value::String(name)) => self.of_type(name, keys, at, depth),
            Some(Value::Array(names)) if !names.is_empty() => {
                let mut shapes = Vec::new();
                for name in names {
                    let Value::String(name) = name else {
                        return Err(self.wrong(&place, "is a name, or a list of names"));
                    };
                    shapes.push(self.of_type(name, keys, at, depth)?);
                }
                Ok(Shape::Either(shapes))
            }
            Some(Value::Null) | None => {
                let has = |names: &[&str]| names.iter().any(|name| keys.contains_key(*name));
                let name = if has(&["properties", "required", "additionalProperties"]) {
                    "object"
                } else if has(&["items", "minItems", "maxItems"]) {
                    "array"
                } else if has(&["minLength", "maxLength", "pattern"]) {
                    "string"
                } else if has(&["minimum", "maximum", "multipleOf"]) {
                    "number"
                } else {
                    return Ok(Shape::Any);
                };
                self.of_type(name, keys, at, depth)
            }
            Some(_) => Err(self.wrong(&place, "is a name, or a list of names")),
        }
    }

    fn of_type(
        &mut self,
        name: &str,
        keys: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<Shape, ToolError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "string" => Shape::Text {
                least: self.count(keys, "minLength", at)?.unwrap_or(0),
                most: self.count(keys, "maxLength", at)?,
                pattern: match keys.get("pattern") {
                    None | Some(Value::Null) => None,
                    Some(Value::String(pattern)) => Some(pattern.clone()),
                    Some(_) => return Err(self.wrong(&format!("{at}.pattern"), "is a text")),
                },
            },
            kind @ ("integer" | "number") => {
                let mut number = Map::from_iter([("type".to_owned(), json!(kind))]);
                let bounds = [
                    "minimum",
                    "maximum",
                    "exclusiveMinimum",
                    "exclusiveMaximum",
                    "multipleOf",
                ];
                for key in bounds {
                    match keys.get(key) {
                        None | Some(Value::Null) => {}
                        Some(bound @ Value::Number(_)) => {
                            number.insert(key.to_owned(), bound.clone());
                        }
                        Some(_) => return Err(self.wrong(&format!("{at}.{key}"), "is a number")),
                    }
                }
                Shape::Number(number)
            }
            "boolean" => Shape::Boolean,
            "null" => Shape::Null,
            "array" => {
                let items = keys.get("items").unwrap_or(&Value::Bool(true));
                Shape::List {
                    items: Box::new(self.shape(items, &format!("{at}.items"), depth + 1)?),
                    least: self.count(keys, "minItems", at)?.unwrap_or(0),
                    most: self.count(keys, "maxItems", at)?,
                }
            }
            "object" => Shape::Object(self.object(keys, at, depth)?),
            other => {
                let reason = format!(
                    "{other:?} is no type: it is string, integer, number, boolean, array, object or null"
                );
                return Err(self.wrong(&format!("{at}.type"), reason));
            }
        })
    }

    fn object(
        &mut self,
        keys: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<Object, ToolError> {
        let empty = Map::new();
        let properties = match keys.get("properties") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(self.wrong(&format!("{at}.properties"), "is an object")),
        };
        let mut required = Vec::new();
        match keys.get("required") {
            None | Some(Value::Null) => {}
            Some(Value::Array(names)) => {
                for name in names {
                    let Value::String(name) = name else {
                        return Err(self.wrong(&format!("{at}.required"), "is a list of names"));
                    };
                    required.push(name.as_str());
                }
            }
            Some(_) => return Err(self.wrong(&format!("{at}.required"), "is a list of names")),
        }
        let mut object = Object::default();
        // A key that must be there, and of which nothing else is said, may be anything.
        let any = Value::Bool(true);
        let unsaid = required
            .iter()
            .filter(|name| !properties.contains_key(**name));
        let unsaid = unsaid.map(|name| (*name, &any));
        let said = properties
            .iter()
            .map(|(name, schema)| (name.as_str(), schema));
        for (name, schema) in said.chain(unsaid) {
            let place = format!("{at}.properties.{name}");
            if name.is_empty()
                || name.contains([':', '{', '}', ','])
                || name.contains(char::is_control)
            {
                return Err(self.wrong(&place, "its name cannot be written in a call"));
            }
            object.keys.push(Key {
                name: name.to_owned(),
                required: required.contains(&name),
                shape: self.shape(schema, &place, depth + 1)?,
            });
        }
        // Further keys come out only where the schema says what they are: a small model would invent some.
        let place = format!("{at}.additionalProperties");
        object.more = match keys.get("additionalProperties") {
            Some(schema @ (Value::Object(_) | Value::Bool(true))) => {
                Some(Box::new(self.shape(schema, &place, depth + 1)?))
            }
            None if properties.is_empty() && depth > 0 => Some(Box::new(Shape::Any)),
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(_) => return Err(self.wrong(&place, "is a schema, true or false")),
        };
        Ok(object)
    }

    fn count(
        &self,
        keys: &Map<String, Value>,
        key: &str,
        at: &str,
    ) -> Result<Option<usize>, ToolError> {
        match keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(count) => match count.as_u64() {
                Some(count) if count <= MAX_COUNT => Ok(Some(count as usize)),
                // A bound beyond any answer bounds nothing.
                Some(_) if key.starts_with("max") => Ok(None),
                _ => {
                    let reason = format!("is {count}; it is a whole number up to {MAX_COUNT}");
                    Err(self.wrong(&format!("{at}.{key}"), reason))
                }
            },
        }
    }

    fn reference(&mut self, place: &str, at: &str, depth: usize) -> Result<Shape, ToolError> {
        let place = place.to_owned();
        if !self.named.contains_key(&place) {
            let found = place.strip_prefix('#');
            let found = found.and_then(|pointer| self.root.pointer(pointer));
            let Some(schema) = found else {
                let reason = format!("{place:?} is no place in this schema");
                return Err(self.wrong(&format!("{at}.$ref"), reason));
            };
            // Known before it is read, for it may name itself.
            self.named.insert(place.clone(), None);
            let shape = self.shape(schema, &place, depth + 1)?;
            if matches!(&shape, Shape::Named(other) if self.named.get(other) == Some(&None)) {
                return Err(self.wrong(&format!("{at}.$ref"), "names itself and nothing else"));
            }
            self.named.insert(place.clone(), Some(shape));
        }
        Ok(Shape::Named(place))
    }

    /// Any of `branches`, each with what stands beside them.
    fn either(
        &mut self,
        keys: &Map<String, Value>,
        branches: &Value,
        at: &str,
        depth: usize,
    ) -> Result<Shape, ToolError> {
        let Value::Array(branches) = branches else {
            return Err(self.wrong(at, "is a list of schemas"));
        };
        if branches.is_empty() {
            return Err(self.wrong(at, "is empty: nothing fits it"));
        }
        let beside = join::beside(keys);
        let mut shapes = Vec::new();
        for (n, branch) in branches.iter().enumerate() {
            let at = format!("{at}[{n}]");
            let both = self.both(&beside, branch, &at)?;
            shapes.push(self.shape(&both, &at, depth + 1)?);
        }
        Ok(Shape::Either(shapes))
    }

    fn all_of(
        &self,
        keys: &Map<String, Value>,
        parts: &Value,
        at: &str,
    ) -> Result<Value, ToolError> {
        let at = format!("{at}.allOf");
        let Value::Array(parts) = parts else {
            return Err(self.wrong(&at, "is a list of schemas"));
        };
        let mut joined = keys.clone();
        joined.shift_remove("allOf");
        for (n, part) in parts.iter().enumerate() {
            let at = format!("{at}[{n}]");
            match self.both(&joined, part, &at)? {
                Value::Object(keys) => joined = keys,
                _ => return Err(self.wrong(&at, "a schema is an object")),
            }
        }
        Ok(Value::Object(joined))
    }

    fn both(
        &self,
        beside: &Map<String, Value>,
        schema: &Value,
        at: &str,
    ) -> Result<Value, ToolError> {
        join::both(self.root, beside, schema)
            .map_err(|fault| self.wrong(&format!("{at}{}", fault.key), fault.reason))
    }
}
