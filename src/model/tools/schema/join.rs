//! What is looked at of a schema: keys that are refused, and two schemas of which both hold, as one.

use serde_json::{Map, Value};

/// Why there is no such schema.
pub(super) struct Fault {
    /// The key, with the dot before it.
    pub(super) key: String,
    pub(super) reason: String,
}

/// References from one to the next at most.
const MAX_REFERENCES: usize = 32;

/// Keys that belong to one place, and are not taken along.
const OF_ONE: [&str; 5] = ["$ref", "allOf", "anyOf", "oneOf", "$defs"];

/// Keys that decide what is valid.
const DECIDES: [&str; 18] = [
    "type",
    "nullable",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "enum",
    "const",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keys that would decide what is valid, and are not followed.
const REFUSED: [&str; 16] = [
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "contains",
    "minProperties",
    "maxProperties",
    "prefixItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
];

/// A key of a schema that would decide, and is not followed.
pub(super) fn refused(keys: &Map<String, Value>) -> Option<&'static str> {
    let unique = keys.get("uniqueItems") == Some(&Value::Bool(true));
    let refused = REFUSED.into_iter().find(|key| keys.contains_key(*key));
    refused.or(unique.then_some("uniqueItems"))
}

/// What stands beside the branches of a schema.
pub(super) fn beside(keys: &Map<String, Value>) -> Map<String, Value> {
    let mut keys = keys.clone();
    keys.retain(|key, _| !OF_ONE.contains(&key.as_str()));
    keys
}

/// Whether a value is of the type that its schema gives, if it gives one.
pub(super) fn is_of_type(value: &Value, keys: &Map<String, Value>) -> bool {
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    };
    match keys.get("type") {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

/// `schema`, which is of the document `root`, and `beside`.
pub(super) fn both(
    root: &Value,
    beside: &Map<String, Value>,
    schema: &Value,
) -> Result<Value, Fault> {
    let fault = |key: &str, reason: &str| Fault {
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    if !beside.keys().any(|key| DECIDES.contains(&key.as_str())) {
        return Ok(schema.clone());
    }
    let mut schema = schema;
    for _ in 0..MAX_REFERENCES {
        let Some(Value::String(place)) = schema.get("$ref") else {
            break;
        };
        let found = place.strip_prefix('#');
        let found = found.and_then(|pointer| root.pointer(pointer));
        schema = found.ok_or_else(|| fault(".$ref", "is no place in this schema"))?;
    }
    let Value::Object(of) = schema else {
        return match schema {
            Value::Bool(true) => Ok(Value::Object(beside.clone())),
            _ => Err(fault("", "a schema is an object")),
        };
    };
    let twice = "is there twice, and not the same";
    let mut joined = beside.clone();
    for (key, value) in of {
        match (key.as_str(), joined.get_mut(key)) {
            ("properties", Some(Value::Object(known))) => {
                for (name, schema) in value.as_object().into_iter().flatten() {
                    if known.get(name).is_some_and(|known| known != schema) {
                        return Err(fault(&format!(".properties.{name}"), twice));
                    }
                    known.insert(name.clone(), schema.clone());
                }
            }
            ("required", Some(Value::Array(known))) => {
                known.extend(value.as_array().into_iter().flatten().cloned());
            }
            (key, Some(known)) if known != value && DECIDES.contains(&key) => {
                return Err(fault(&format!(".{key}"), twice));
            }
            _ => {
                joined.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(Value::Object(joined))
}
