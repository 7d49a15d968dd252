//! Tools with a model behind them: every right call gets through, and of random weights nothing comes out that is not there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::sampler::Sampling;
use gemmad::pack::Recipe;
use gemmad::pipeline::{
    Answer, CallRules, Engine, EngineError, EngineOptions, FinishReason, Generation, HouseNames,
    Message, Part, PrefixCacheOptions, Request, Role, Tool, ToolCall, ToolResult, Tools,
};
use serde_json::{Value, json};

use crate::common::{fixtures, fixtures_gemma4, pack_of};

const WILD: Sampling = Sampling {
    temperature: 3.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
};

/// The example of `gemmad eval tools`.
fn home() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tools/home.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tools_of(home: &Value) -> Vec<Tool> {
    let tool = |value: &Value| Tool {
        name: value["function"]["name"].as_str().unwrap().to_owned(),
        description: String::new(),
        parameters: value["function"]["parameters"].clone(),
    };
    home["tools"].as_array().unwrap().iter().map(tool).collect()
}

fn engine(dir: &Path) -> Engine {
    let options = EngineOptions {
        threads: 1,
        context: 4096,
        kv_type: KvType::F16,
        prefix_bytes: 64 << 20,
        ..EngineOptions::default()
    };
    Engine::open(dir, options).unwrap()
}

/// The tools, closed as the instructions have it; the model is told of none but their names, since its context is short.
fn tools(home: &Value, rules: CallRules) -> Tools {
    let mut callable = tools_of(home);
    let names = HouseNames::find([home["instructions"].as_str().unwrap()].into_iter()).unwrap();
    names.close(&mut callable, 1024);
    let told = |tool: &Tool| Tool {
        parameters: Value::Null,
        ..tool.clone()
    };
    Tools {
        offered: callable.iter().map(told).collect(),
        callable,
        rules,
    }
}

fn request(messages: Vec<Message>, tools: Tools, sampling: Sampling, seed: u64) -> Request {
    Request {
        messages,
        matformer: None,
        thinking: None,
        conversation: None,
        generation: Generation {
            sampling,
            seed,
            max_tokens: 160,
            stop: Vec::new(),
            grammar: None,
            tools: Some(tools),
        },
    }
}

fn says(text: &str) -> Vec<Message> {
    Message::user(vec![Part::Text(text.to_owned())])
}

fn ask(engine: &mut Engine, request: &Request) -> Answer {
    engine
        .answer(request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn calls_of(case: &Value) -> Vec<ToolCall> {
    let call = |call: &Value| ToolCall {
        name: call["name"].as_str().unwrap().to_owned(),
        arguments: call["arguments"].as_object().unwrap().clone(),
    };
    case["calls"].as_array().unwrap().iter().map(call).collect()
}

/// As Gemma 4 writes a value.
fn in_tokens(value: &Value) -> String {
    match value {
        Value::String(text) => format!("<|\"|>{text}<|\"|>"),
        Value::Array(values) => format!(
            "[{}]",
            values.iter().map(in_tokens).collect::<Vec<_>>().join(",")
        ),
        Value::Object(keys) => {
            let mut keys: Vec<_> = keys.iter().collect();
            keys.sort_by_key(|(key, _)| key.to_lowercase());
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}:{}", in_tokens(value)))
                .collect();
            format!("{{{}}}", keys.join(","))
        }
        other => other.to_string(),
    }
}

/// As Python's `json.dumps` writes it.
fn in_json(value: &Value) -> String {
    match value {
        Value::Array(values) => format!(
            "[{}]",
            values.iter().map(in_json).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), in_json(value)))
                .collect();
            format!("{{{}}}", keys.join(", "))
        }
        other => other.to_string(),
    }
}

/// What the model would say to call these.
fn script(calls: &[ToolCall], in_words: bool) -> String {
    let arguments = |call: &ToolCall| Value::Object(call.arguments.clone());
    let calls = calls.iter().map(|call| match in_words {
        true => format!(
            "{{\"name\": \"{}\", \"parameters\": {}}}\n",
            call.name,
            in_json(&arguments(call))
        ),
        false => format!(
            "<|tool_call>call:{}{}<tool_call|>",
            call.name,
            in_tokens(&arguments(call))
        ),
    });
    calls.collect::<String>().trim_end().to_owned()
}

/// In both families, by whether calls are JSON.
fn families() -> [(Engine, bool); 2] {
    [
        (engine(&fixtures_gemma4()), false),
        (engine(&fixtures()), true),
    ]
}

const MAY: CallRules = CallRules {
    must: false,
    several: true,
};
const MUST: CallRules = CallRules {
    must: true,
    several: false,
};

#[test]
fn every_right_call_of_sixty_sentences_gets_through() {
    let home = home();
    for (mut engine, in_words) in families() {
        let mut through = 0;
        for case in home["cases"].as_array().unwrap() {
            let sentence = case["say"].as_str().unwrap();
            let wanted = calls_of(case);
            let text = match wanted.is_empty() {
                true => "I do not know.".to_owned(),
                false => script(&wanted, in_words),
            };
            engine.follow(move |_| Some(text.clone()));
            let mut streamed = String::new();
            let asked = request(says(sentence), tools(&home, MAY), Sampling::GREEDY, 0);
            engine.accepts(&asked).unwrap();
            let answer = engine.answer(&asked, &mut |text| {
                streamed.push_str(text);
                ControlFlow::Continue(())
            });
            let answer = answer.unwrap();
            assert_eq!(answer.calls, wanted, "{sentence}: {answer:?}");
            assert_eq!(answer.finish, FinishReason::Stop);
            assert_eq!(
                (answer.text.is_empty(), &streamed),
                (!wanted.is_empty(), &answer.text)
            );
            through += usize::from(!wanted.is_empty());
        }
        assert!(through >= 50, "{through}");
    }
}

#[test]
fn random_weights_name_nothing_that_is_not_there() {
    let home = home();
    let names = HouseNames::find([home["instructions"].as_str().unwrap()].into_iter()).unwrap();
    let entities: BTreeSet<&str> = names.entities.iter().map(String::as_str).collect();
    let areas: BTreeSet<&str> = names.areas.iter().map(String::as_str).collect();
    let offered = tools_of(&home);
    for (mut engine, _) in families() {
        let (mut called, mut named) = (0, 0);
        for seed in 0..250 {
            let rules = if seed % 5 == 0 { MAY } else { MUST };
            let asked = request(says("Turn on the lamp"), tools(&home, rules), WILD, seed);
            for call in ask(&mut engine, &asked).calls {
                let tool = offered.iter().find(|tool| tool.name == call.name).unwrap();
                let arguments = Value::Object(call.arguments);
                assert!(
                    jsonschema::is_valid(&tool.parameters, &arguments),
                    "{}: {arguments}",
                    call.name
                );
                if let Some(name) = arguments["name"].as_str() {
                    assert!(entities.contains(name), "{name}");
                    named += 1;
                }
                if let Some(area) = arguments["area"].as_str() {
                    assert!(areas.contains(area), "{area}");
                    named += 1;
                }
                assert!(
                    arguments.get("floor").is_none(),
                    "no floor is listed: {arguments}"
                );
                called += 1;
            }
        }
        assert!(called > 100 && named > 20, "{called} calls, {named} names");
    }
}

/// What a home says of itself, with so many entities.
fn instructions(entities: &[&str]) -> String {
    let entry = |name: &&str| format!("- names: {name}\n  domain: light\n  areas: Hall\n");
    let list: String = entities.iter().map(entry).collect();
    format!(
        "You are a voice assistant.\nStatic Context: the house:\n{list}\nAlways call the intent tools, whenever something is to be done."
    )
}

fn home_request(entities: &[&str], rest: Vec<Message>) -> Request {
    let mut messages = vec![Message {
        role: Role::System,
        content: vec![Part::Text(instructions(entities))],
    }];
    messages.extend(rest);
    let tool = Tool {
        name: "HassTurnOn".to_owned(),
        description: "Turns on a device".to_owned(),
        parameters: json!({ "type": "object", "properties": { "name": { "type": "string" } } }),
    };
    let tools = Tools {
        offered: vec![tool.clone()],
        callable: vec![tool],
        rules: MAY,
    };
    request(messages, tools, Sampling::GREEDY, 0)
}

/// The round behind a call: what came of it.
fn informed(call: &ToolCall) -> Message {
    Message {
        role: Role::Assistant,
        content: vec![
            Part::ToolCall(call.clone()),
            Part::ToolResult(ToolResult {
                name: call.name.clone(),
                value: json!({ "data": "success", "error": null }),
            }),
        ],
    }
}

fn turn_on(name: &str) -> ToolCall {
    ToolCall {
        name: "HassTurnOn".to_owned(),
        arguments: json!({ "name": name }).as_object().unwrap().clone(),
    }
}

const LAMPS: [&str; 8] = [
    "Desk Lamp",
    "Floor Lamp",
    "Wall Lamp",
    "Night Lamp",
    "Sofa Lamp",
    "Spot",
    "Porch",
    "Shed",
];

#[test]
fn a_second_round_reads_what_came_of_the_call_and_nothing_before_it() {
    for (checkpoint, in_words) in [(fixtures_gemma4(), false), (fixtures(), true)] {
        let bench = tempfile::tempdir().unwrap();
        let pack = pack_of(&checkpoint, Recipe::Balanced, bench.path());
        let kept = bench.path().join("kept");
        let open = |dir: Option<&Path>| {
            let options = EngineOptions {
                threads: 1,
                context: 4096,
                prefix_bytes: 64 << 20,
                prefix_cache: PrefixCacheOptions {
                    dir: dir.map(Path::to_owned),
                    ..PrefixCacheOptions::default()
                },
                ..EngineOptions::default()
            };
            let mut engine = Engine::open(&pack, options).unwrap();
            engine.follow(move |request| {
                let answered = matches!(
                    request.messages.last()?.content.last()?,
                    Part::ToolResult(_)
                );
                Some(match answered {
                    true => "Done.".to_owned(),
                    false => script(&[turn_on("Desk Lamp")], in_words),
                })
            });
            engine
        };
        let mut engine = open(Some(&kept));
        let question = says("Turn on the desk lamp");
        let first = home_request(&LAMPS, question.clone());
        let cold = ask(&mut engine, &first);
        assert_eq!(
            (cold.calls.as_slice(), cold.timing.cached_tokens),
            (&[turn_on("Desk Lamp")][..], 0)
        );
        let second = home_request(
            &LAMPS,
            [question.clone(), vec![informed(&cold.calls[0])]].concat(),
        );
        let round = ask(&mut engine, &second);
        assert_eq!(round.text, "Done.");
        // What was read in the first round and what was said in it are known, but for the token that ended it.
        let before = cold.timing.prompt_tokens + cold.timing.tokens;
        assert!(
            round.timing.cached_tokens + 2 >= before,
            "{:?} of {before}",
            round.timing
        );
        assert!(round.timing.prompt_tokens > before);
        // It is what a model without any memory says.
        let plain = EngineOptions {
            threads: 1,
            context: 4096,
            ..EngineOptions::default()
        };
        let mut forgetful = Engine::open(&pack, plain).unwrap();
        let mut remembering = open(None);
        remembering.follow(|_| None);
        ask(&mut remembering, &first);
        assert_eq!(
            ask(&mut remembering, &second).text,
            ask(&mut forgetful, &second).text
        );

        // Another sentence knows the instructions, the tools and the list.
        let other = home_request(&LAMPS, says("And the porch"));
        let hit = ask(&mut engine, &other);
        let rest = hit.timing.prompt_tokens - hit.timing.cached_tokens;
        assert!(rest < 64, "{:?}", hit.timing);
        // A changed list is not read from its beginning, but from a part of the instructions on; the next change there from itself on.
        let before = instructions(&LAMPS);
        let before = before.split(LAMPS[7]).next().unwrap();
        let before = engine.tokenizer().encode(before).len();
        for (lamp, question, more) in [("Barn", "And the barn", 96), ("Mill", "And the mill", 32)] {
            let mut changed = LAMPS;
            changed[7] = lamp;
            let timing = ask(&mut engine, &home_request(&changed, says(question))).timing;
            assert!(
                timing.cached_tokens + more + 4 >= before,
                "{timing:?} of {before}"
            );
        }
        // The first sentence after a restart.
        drop(engine);
        let restarted = ask(
            &mut open(Some(&kept)),
            &home_request(&LAMPS, says("Once more the shed")),
        );
        let rest = restarted.timing.prompt_tokens - restarted.timing.cached_tokens;
        assert!(rest < 64, "{:?}", restarted.timing);
    }
}

#[test]
fn what_does_not_fit_is_told_with_both_numbers_and_what_cannot_be_followed_by_name() {
    for (mut engine, _) in families() {
        let tool = |n: usize| Tool {
            name: format!("tool_{n}"),
            description: "Does something with a long description. ".repeat(8),
            parameters: json!({ "type": "object", "properties": { "a": { "type": "string", "description": "An argument" } } }),
        };
        let many: Vec<Tool> = (0..200).map(tool).collect();
        let asked = |tools: Vec<Tool>| {
            let tools = Tools {
                offered: tools.clone(),
                callable: tools,
                rules: MAY,
            };
            request(says("Hello"), tools, Sampling::GREEDY, 0)
        };
        let error = engine.accepts(&asked(many)).unwrap_err().to_string();
        assert!(error.contains("4096"), "{error}");
        let mut odd = tool(1);
        odd.parameters["properties"]["a"]["not"] = json!({});
        let error = engine.accepts(&asked(vec![tool(0), odd])).unwrap_err();
        assert!(matches!(error, EngineError::Tools(_)));
        assert!(
            error
                .to_string()
                .contains("\"tool_1\": parameters.properties.a.not"),
            "{error}"
        );
        let error = engine
            .accepts(&asked(vec![tool(0), tool(0)]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("two tools of the name \"tool_0\""),
            "{error}"
        );
        // Forty are no trouble.
        engine
            .accepts(&asked(
                (0..40)
                    .map(|n| Tool {
                        description: String::new(),
                        ..tool(n)
                    })
                    .collect(),
            ))
            .unwrap();
        // A result of 100 KB is a prompt that is too long, and nothing worse.
        let long = Message {
            role: Role::Assistant,
            content: vec![
                Part::ToolCall(ToolCall {
                    name: "tool_0".to_owned(),
                    arguments: serde_json::Map::new(),
                }),
                Part::ToolResult(ToolResult {
                    name: "tool_0".to_owned(),
                    value: json!("on ".repeat(35_000)),
                }),
            ],
        };
        let mut asked = asked(vec![tool(0)]);
        asked.messages.push(long);
        let error = engine.accepts(&asked).unwrap_err().to_string();
        assert!(error.contains("4096"), "{error}");
    }
}
