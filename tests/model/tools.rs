//! Calls of tools: their grammar against a schema validator that is not ours, in both ways of writing them.

use std::path::Path;
use std::sync::Arc;

use gemmad::model::grammar::{Compiler, Constraint, Grammar, Next};
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::tools::{CallRules, CallSyntax, Tool, ToolCall, ToolError, grammar, read_calls};
use serde_json::{Value, json};

use crate::common::{fixtures, fixtures_gemma4};

struct Model {
    tokenizer: Arc<Tokenizer>,
    compiler: Compiler,
    syntax: CallSyntax,
    stop: Vec<u32>,
}

fn open(dir: &Path) -> Model {
    let tokenizer = Arc::new(Tokenizer::load(dir).unwrap());
    let control = tokenizer.control();
    let mut stop = vec![control.eos, control.end_of_turn];
    stop.extend(control.tools.map(|tools| tools.response[0]));
    let syntax = control.tools.map_or(CallSyntax::Json, CallSyntax::Tokens);
    Model {
        compiler: Compiler::new(&tokenizer, tokenizer.vocab_size(), &stop).unwrap(),
        syntax,
        stop,
        tokenizer,
    }
}

fn models() -> [Model; 2] {
    [open(&fixtures_gemma4()), open(&fixtures())]
}

fn tool(name: &str, parameters: Value) -> Tool {
    Tool {
        name: name.to_owned(),
        description: "What it does.".to_owned(),
        parameters,
    }
}

/// Plain pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

impl Model {
    fn constraint(&self, tools: &[Tool], rules: CallRules) -> Constraint {
        let grammar: Grammar = grammar(self.syntax, tools, rules, None).unwrap();
        self.compiler.compile(&grammar).unwrap()
    }

    /// An answer of tokens drawn at random from those that are allowed, and whether it came to its end.
    fn drawn(&self, tools: &[Tool], rules: CallRules, random: &mut Random) -> (Vec<u32>, bool) {
        let mut constraint = self.constraint(tools, rules);
        let mut ids = Vec::new();
        while ids.len() < 400 {
            if constraint.is_complete() {
                return (ids, true);
            }
            let next = match constraint.allowed().unwrap() {
                Next::Forced(run) => run,
                Next::Among(allowed) => {
                    let ends = self.stop.iter().any(|&id| allowed.contains(id));
                    let all: Vec<u32> = allowed
                        .iter()
                        .filter(|id| !self.stop.contains(id))
                        .collect();
                    if all.is_empty() || (ends && random.below(2) == 0) {
                        return (ids, true);
                    }
                    vec![all[random.below(all.len())]]
                }
            };
            constraint.accept(&next).unwrap();
            ids.extend(next);
        }
        (ids, false)
    }

    /// What the model would have to say, as tokens.
    fn said(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text)
    }

    /// Whether exactly this may come out.
    fn takes(&self, tools: &[Tool], rules: CallRules, text: &str) -> bool {
        let mut constraint = self.constraint(tools, rules);
        for id in self.said(text) {
            if constraint.is_complete() {
                return false;
            }
            let allowed = match constraint.allowed().unwrap() {
                Next::Forced(run) => {
                    run[0] == id
                        || self.tokenizer.token_bytes(run[0]) == self.tokenizer.token_bytes(id)
                }
                Next::Among(allowed) => allowed.contains(id),
            };
            if !allowed || constraint.accept(&[id]).is_err() {
                return false;
            }
        }
        constraint.is_complete()
            || matches!(constraint.allowed().unwrap(), Next::Among(allowed) if self.stop.iter().any(|&id| allowed.contains(id)))
    }
}

const MUST: CallRules = CallRules {
    must: true,
    several: false,
};

/// As Home Assistant, pydantic and others write them.
fn as_clients_send_them() -> Vec<Tool> {
    vec![
        tool(
            "intent__HassTurnOn",
            json!({
                "type": "object",
                "properties": {
                    "name": { "type": "string" }, "area": { "type": "string" }, "floor": { "type": "string" },
                    "domain": { "type": "array", "items": { "type": "string" } },
                    "device_class": { "type": "array", "items": { "type": "string", "enum": ["awning", "blind", "curtain"] } },
                },
                "required": [],
            }),
        ),
        tool(
            "homeassistant__GetLiveContext",
            json!({ "type": "object", "properties": {}, "required": [] }),
        ),
        tool("nothing", Value::Null),
        tool(
            "light",
            json!({ "type": "object", "properties": {} , "additionalProperties": false }),
        ),
        tool(
            "light_set",
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "LightSet", "type": "object",
                "properties": {
                    "Brightness": { "title": "Brightness", "type": "integer", "minimum": 0, "maximum": 100, "default": 50 },
                    "color": { "anyOf": [{ "type": "string", "enum": ["red", "grün", "\"blue\""] }, { "type": "null" }], "default": null },
                    "transition": { "type": "number", "exclusiveMinimum": 0, "maximum": 10 },
                    "where": { "$ref": "#/$defs/Where" },
                    "on": { "type": "boolean", "description": "Whether it is on" },
                    "mode": { "const": "soft" },
                },
                "required": ["where", "Brightness"],
                "additionalProperties": false,
                "$defs": { "Where": {
                    "type": "object", "properties": { "room": { "type": "string", "minLength": 1, "maxLength": 4 }, "in": { "$ref": "#/$defs/Where" } },
                    "required": ["room"], "additionalProperties": false,
                }},
            }),
        ),
        tool(
            "free",
            json!({
                "type": "object", "properties": { "known": { "type": ["integer", "null"] } }, "additionalProperties": { "type": "boolean" },
            }),
        ),
        tool(
            "lists",
            json!({
                "allOf": [
                    { "type": "object", "properties": { "codes": { "type": "array", "minItems": 1, "maxItems": 3, "items": { "type": "integer" } } } },
                    { "required": ["codes"], "properties": { "kind": { "enum": [1, 2, "three", null, ["a"], { "b": 1 }] } } },
                ],
            }),
        ),
        tool(
            "dated",
            json!({
                "type": "object", "properties": { "day": { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$" }, "note": { "type": "string", "maxLength": 4, "pattern": "a/b" } },
                "required": ["day", "note"],
            }),
        ),
    ]
}

#[test]
fn whatever_comes_out_is_valid_by_another_validator() {
    let tools = as_clients_send_them();
    for model in models() {
        let mut random = Random(23);
        let (mut whole, mut called) = (0, std::collections::BTreeMap::new());
        for _ in 0..400 {
            let rules = CallRules {
                must: true,
                several: random.below(4) == 0,
            };
            let (ids, ended) = model.drawn(&tools, rules, &mut random);
            let calls = read_calls(model.syntax, &model.tokenizer, &ids);
            if ended {
                assert!(!calls.is_empty(), "{:?}", model.tokenizer.decode(&ids));
                assert!(rules.several || calls.len() == 1);
                whole += 1;
            }
            for call in calls {
                let tool = tools.iter().find(|tool| tool.name == call.name).unwrap();
                let arguments = Value::Object(call.arguments);
                if !tool.parameters.is_null() {
                    let valid = jsonschema::validate(&tool.parameters, &arguments);
                    assert!(valid.is_ok(), "{}: {arguments}: {valid:?}", call.name);
                }
                *called.entry(call.name).or_insert(0) += 1;
            }
        }
        assert!(whole > 200, "{whole}");
        assert_eq!(called.len(), tools.len(), "{called:?}");
    }
}

#[test]
fn the_right_call_may_come_out_as_the_family_writes_it_and_no_other() {
    let tools = as_clients_send_them();
    let [gemma4, gemma3n] = models();
    let right = [
        r#"<|tool_call>call:intent__HassTurnOn{area:<|"|>Küche<|"|>,domain:[<|"|>light<|"|>]}<tool_call|>"#,
        "<|tool_call>call:homeassistant__GetLiveContext{}<tool_call|>",
        "<|tool_call>call:light{}<tool_call|>",
        r#"<|tool_call>call:light_set{Brightness:7,color:<|"|>"blue"<|"|>,where:{in:{room:<|"|>a<|"|>},room:<|"|>é:{}<|"|>}}<tool_call|>"#,
        "<|tool_call>call:free{known:null,other:true}<tool_call|>",
    ];
    for text in right {
        assert!(gemma4.takes(&tools, MUST, text), "{text}");
    }
    let wrong = [
        "Of course!",
        r#"<|tool_call>call:intent__HassTurnOff{name:<|"|>Lamp<|"|>}<tool_call|>"#,
        r#"<|tool_call>call:light_set{Brightness:101,where:{room:<|"|>a<|"|>}}<tool_call|>"#,
        r#"<|tool_call>call:light_set{Brightness:7}<tool_call|>"#,
        r#"<|tool_call>call:light_set{Brightness:7,where:{room:<|"|>abcde<|"|>}}<tool_call|>"#,
        "<|tool_call>call:light{extra:1}<tool_call|>",
        "<|tool_call>call:free{known:null,known:true}<tool_call|>",
        "<|tool_call>call:light{}<tool_call|><|tool_call>call:light{}<tool_call|>",
    ];
    for text in wrong {
        assert!(!gemma4.takes(&tools, MUST, text), "{text}");
    }
    let several = CallRules {
        several: true,
        ..MUST
    };
    assert!(gemma4.takes(&tools, several, wrong[7]));

    let may = CallRules::default();
    for (text, rules) in [
        (r#"{"name": "light", "parameters": {}}"#, MUST),
        (
            r#"{"name": "intent__HassTurnOn", "parameters": {"name": "L\"amp", "area": "Hall"}}"#,
            may,
        ),
        ("Of course!", may),
        (
            "{\"name\": \"light\", \"parameters\": {}}\n{\"name\": \"nothing\", \"parameters\": {}}",
            several,
        ),
    ] {
        assert!(gemma3n.takes(&tools, rules, text), "{text}");
    }
    for (text, rules) in [
        ("Of course!", MUST),
        (r#"{"name": "lamp", "parameters": {}}"#, may),
        ("```json", may),
        (r#"{"name": "light", "parameters": {"a": 1}}"#, may),
    ] {
        assert!(!gemma3n.takes(&tools, rules, text), "{text}");
    }
}

#[test]
fn calls_are_read_as_they_were_written_and_cut_ones_are_none() {
    let [gemma4, gemma3n] = models();
    let call = |name: &str, arguments: Value| ToolCall {
        name: name.to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    let wanted = [
        call(
            "a",
            json!({ "list": [1, -2.5, "x, y", { "k": null }], "odd": "{a:\"b\"}\n🛋 مطبخ", "yes": true }),
        ),
        call("b", json!({})),
    ];
    let text = "<|tool_call>call:a{list:[1,-2.5,<|\"|>x, y<|\"|>,{k:null}],odd:<|\"|>{a:\"b\"}\n🛋 مطبخ<|\"|>,yes:true}<tool_call|><|tool_call>call:b{}<tool_call|>";
    let read = |text: &str| read_calls(gemma4.syntax, &gemma4.tokenizer, &gemma4.said(text));
    assert_eq!(read(text), wanted);
    assert_eq!(read(&text[..text.len() - 12]), wanted[..1]);
    for nonsense in [
        "",
        "call:a{}",
        "<|tool_call>call:a{<tool_call|>",
        "<|tool_call>call:a{}x<tool_call|>",
        "<|tool_call>a{}<tool_call|>",
    ] {
        assert_eq!(read(nonsense), [], "{nonsense}");
    }
    let text = "{\"name\": \"b\", \"parameters\": {}}\n{\"name\": \"a\", \"parameters\": {\"x\": 1";
    let read = read_calls(gemma3n.syntax, &gemma3n.tokenizer, &gemma3n.said(text));
    assert_eq!(read, wanted[1..]);
}

#[test]
fn what_cannot_be_followed_is_told_with_tool_and_key() {
    let of = |parameters: Value| {
        grammar(CallSyntax::Json, &[tool("t", parameters)], MUST, None)
            .unwrap_err()
            .to_string()
    };
    for (parameters, told) in [
        (
            json!({ "type": "string" }),
            "tool \"t\": parameters: arguments are an object",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "not": {} } } }),
            "tool \"t\": parameters.properties.a.not: is not followed",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "text" } } }),
            "parameters.properties.a.type: \"text\" is no type",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "$ref": "#/nowhere" } } }),
            "parameters.properties.a.$ref: \"#/nowhere\" is no place",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "$ref": "#/properties/a" } } }),
            "names itself",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "enum": [] } } }),
            "parameters.properties.a.enum: has no value",
        ),
        (
            json!({ "type": "object", "properties": { "a:b": {} } }),
            "parameters.properties.a:b: its name cannot be written",
        ),
        (
            json!({ "type": "object", "properties": { "a": false } }),
            "parameters.properties.a: nothing fits it",
        ),
        (
            json!({ "type": "object", "properties": [] }),
            "parameters.properties: is an object",
        ),
        (json!([]), "parameters: a schema is an object"),
    ] {
        let error = of(parameters.clone());
        assert!(error.contains(told), "{parameters}: {error}");
    }
    let mut deep = json!({});
    for _ in 0..40 {
        deep = json!({ "type": "object", "properties": { "a": deep } });
    }
    assert!(of(deep).contains("nested deeper"));
    let named = |names: &[&str]| {
        let tools: Vec<Tool> = names.iter().map(|name| tool(name, Value::Null)).collect();
        grammar(CallSyntax::Json, &tools, MUST, None)
    };
    assert!(matches!(named(&["a", "b", "a"]), Err(ToolError::Twice(name)) if name == "a"));
    for odd in ["", "a b", "a{", "a\n", &"x".repeat(129)] {
        assert!(
            matches!(named(&["ok", odd]), Err(ToolError::Name { at: 2, .. })),
            "{odd}"
        );
    }
    assert!(named(&["مطبخ", "🛋", "a.b-c/d"]).is_ok());
}
