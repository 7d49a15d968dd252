//! From payloads to the types of the bus.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use zbus::Variant;

/// `a{sv}`
pub(super) type Dict = HashMap<String, Variant<'static>>;

/// The bus has no text with a zero character in it, and drops whoever sends one.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A payload as a dictionary with the keys that it has in JSON: `x` for whole numbers (`t` where they do not fit), `d` for others, `av` for
/// lists, `a{sv}` for objects; what is null is left out.
pub(super) fn dict(payload: &impl Serialize) -> Dict {
    match serde_json::to_value(payload) {
        Ok(Value::Object(object)) => object_dict(&object),
        _ => Dict::new(),
    }
}

fn object_dict(object: &serde_json::Map<String, Value>) -> Dict {
    let entries = object.iter();
    entries
        .filter_map(|(key, value)| Some((text(key), variant(value)?)))
        .collect()
}

fn variant(value: &Value) -> Option<Variant<'static>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Variant::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Variant::from(value),
            (None, Some(value)) => Variant::from(value),
            (None, None) => Variant::from(number.as_f64()?),
        },
        Value::String(value) => Variant::from(text(value)),
        Value::Array(values) => {
            Variant::from(values.iter().filter_map(variant).collect::<Vec<_>>())
        }
        Value::Object(object) => Variant::from(object_dict(object)),
    })
}

/// The way back: what a value of the bus is in JSON; text where JSON has nothing like it.
pub(super) fn json(value: &Variant<'_>) -> Value {
    match value {
        Variant::Bool(value) => (*value).into(),
        Variant::U8(value) => (*value).into(),
        Variant::I16(value) => (*value).into(),
        Variant::U16(value) => (*value).into(),
        Variant::I32(value) => (*value).into(),
        Variant::U32(value) => (*value).into(),
        Variant::I64(value) => (*value).into(),
        Variant::U64(value) => (*value).into(),
        Variant::F64(value) => (*value).into(),
        Variant::Str(value) => value.as_str().into(),
        Variant::Variant(inner) => json(inner),
        Variant::Array(values) => values.inner().iter().map(json).collect(),
        Variant::Dict(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries.iter() {
                if let Variant::Str(key) = key {
                    object.insert(key.as_str().to_owned(), json(value));
                }
            }
            Value::Object(object)
        }
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_the_types_of_the_bus() {
        let dict = dict(&json!({
            "whole": 3, "most": u64::MAX, "share": 0.5, "text": "a\0b", "none": null,
            "list": [1, "x"], "inner": {"yes": true},
        }));
        assert!(!dict.contains_key("none"));
        let signature = |key: &str| dict[key].value_signature().to_string();
        let signatures = ["whole", "most", "share", "text", "list", "inner"].map(signature);
        assert_eq!(signatures, ["x", "t", "d", "s", "av", "a{sv}"]);
        assert_eq!(dict["text"], Variant::from("a\u{fffd}b"));
        let back = json(&Variant::from(dict));
        let whole = json!({
            "whole": 3, "most": u64::MAX, "share": 0.5, "text": "a\u{fffd}b", "list": [1, "x"], "inner": {"yes": true},
        });
        assert_eq!(back, whole);
    }
}
