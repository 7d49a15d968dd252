//! What prompts as Home Assistant makes them cost: read for the first time, known from memory, known from disk, and the round behind a
//! call. The calls are written down beforehand, so that a model of random weights makes them, too.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::{Map, json};

use super::cases::Cases;
use super::{Callable, Tools};
use crate::cli::failure::{Failure, exit};
use crate::cli::output;
use crate::pipeline::{
    Answer, CallRules, Engine, Message, Part, PrefixCacheOptions, Request, Role, ToolCall,
    ToolResult,
};

/// Largest prompt: beyond any house.
const MOST: usize = 100_000;

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Row {
    asked_tokens: usize,
    entities: usize,
    cold: Round,
    memory: Round,
    second: Round,
    disk: Round,
}

/// One answer.
#[derive(Serialize)]
struct Round {
    prompt_tokens: usize,
    read_tokens: usize,
    prefill_s: f64,
    answer_tokens: usize,
    decode_s: f64,
}

impl Round {
    fn of(answer: &Answer) -> Round {
        let timing = &answer.timing;
        Round {
            prompt_tokens: timing.prompt_tokens,
            read_tokens: timing.prompt_tokens - timing.cached_tokens,
            prefill_s: timing.prefill_ms / 1e3,
            answer_tokens: timing.tokens,
            decode_s: timing.decode_ms / 1e3,
        }
    }
}

/// A request to a house with so many entities.
struct House<'t> {
    tools: &'t Tools,
    cases: &'t Cases,
    entities: usize,
}

impl House<'_> {
    fn instructions(&self) -> String {
        let mut text = "You are a voice assistant for Home Assistant.\nStatic Context: An overview of the areas and the devices in this smart home:\n".to_owned();
        for n in 0..self.entities {
            let area = ["Kitchen", "Living Room", "Bedroom", "Office", "Garden"][n % 5];
            let thing = ["Lamp", "Blind", "Fan", "Heater", "Socket"][n / 5 % 5];
            text.push_str(&format!(
                "- names: {area} {thing} {n}\n  domain: light\n  areas: {area}\n"
            ));
        }
        text
    }

    fn request(&self, engine: &Engine, turns: Vec<Message>) -> Request {
        let mut generation = engine.most_likely(64);
        generation.tools = Some(Callable {
            offered: self.cases.tools(),
            callable: self.cases.tools(),
            rules: CallRules {
                must: false,
                several: false,
            },
        });
        let system = Message {
            role: Role::System,
            content: vec![Part::Text(self.instructions())],
        };
        Request {
            messages: [vec![system], turns].concat(),
            matformer: self.tools.matformer.clone(),
            thinking: None,
            conversation: None,
            generation,
        }
    }

    fn ask(&self, engine: &mut Engine, turns: Vec<Message>) -> Result<Answer, Failure> {
        let request = self.request(engine, turns);
        engine.accepts(&request)?;
        Ok(engine.answer(&request, &mut |_| ControlFlow::Continue(()))?)
    }
}

fn user(text: &str) -> Vec<Message> {
    Message::user(vec![Part::Text(text.to_owned())])
}

/// What the model says, in the way of either family: a call of some 25 tokens, then a sentence.
fn script(request: &Request, has_tokens: bool) -> Option<String> {
    let informed = matches!(
        request.messages.last()?.content.last()?,
        Part::ToolResult(_)
    );
    Some(match (informed, has_tokens) {
        (true, _) => "Turned on the kitchen lamp.".to_owned(),
        (false, true) => "<|tool_call>call:intent__HassTurnOn{domain:[<|\"|>light<|\"|>],name:<|\"|>Kitchen Lamp 0<|\"|>}<tool_call|>".to_owned(),
        (false, false) => "{\"name\": \"intent__HassTurnOn\", \"parameters\": {\"name\": \"Kitchen Lamp 0\", \"domain\": [\"light\"]}}".to_owned(),
    })
}

pub(super) fn run(tools: &Tools) -> Result<(), Failure> {
    let cases = Cases::read(None)?;
    let mut rows = Vec::new();
    for &asked in &tools.prompts {
        if asked > MOST {
            let message = format!("--prompts {asked}: {MOST} are the most");
            return Err(Failure::new(exit::USAGE, message));
        }
        rows.push(row(tools, &cases, asked)?);
    }
    output::publish(&rows, tools.json, |rows, out| print(rows, out))
}

fn row(tools: &Tools, cases: &Cases, asked: usize) -> Result<Row, Failure> {
    let kept = tempfile::tempdir().map_err(|error| Failure::new(exit::IO, error))?;
    let open = || {
        let mut options = tools.options()?;
        options.prefix_cache = PrefixCacheOptions {
            dir: Some(kept.path().to_owned()),
            max_mib: 4096,
            ..options.prefix_cache
        };
        let mut engine = tools.open(options)?;
        let has_tokens = engine.tokenizer().control().tools.is_some();
        engine.follow(move |request| script(request, has_tokens));
        Ok::<_, Failure>(engine)
    };
    let mut engine = open()?;
    let mut house = House {
        tools,
        cases,
        entities: 0,
    };
    // As many entities as fill the prompt.
    let tokens = |house: &House<'_>, engine: &Engine| {
        engine.tokenizer().encode_text(&house.instructions()).len()
    };
    let told: usize = cases
        .tools()
        .iter()
        .map(|tool| {
            let text = format!("{}{}{}", tool.name, tool.description, tool.parameters);
            engine.tokenizer().encode_text(&text).len()
        })
        .sum();
    house.entities = 100;
    let each = tokens(&house, &engine).div_ceil(100).max(1);
    house.entities = asked.saturating_sub(told).div_ceil(each).max(1);
    let turn_on = user("Turn on the kitchen lamp");
    let cold = house.ask(&mut engine, turn_on.clone())?;
    let call = ToolCall {
        name: "intent__HassTurnOn".to_owned(),
        arguments: Map::from_iter([
            ("domain".to_owned(), json!(["light"])),
            ("name".to_owned(), json!("Kitchen Lamp 0")),
        ]),
    };
    let came_of_it = Message {
        role: Role::Assistant,
        content: vec![
            Part::ToolCall(cold.calls.first().cloned().unwrap_or(call)),
            Part::ToolResult(ToolResult {
                name: "intent__HassTurnOn".to_owned(),
                value: json!({ "data": { "speech": {}, "response_type": "action_done", "data": {
                    "success": [{ "name": "Kitchen Lamp 0", "type": "entity", "id": "light.kitchen_lamp_0" }], "failed": [],
                }}, "error": null }),
            }),
        ],
    };
    let second = house.ask(&mut engine, [turn_on, vec![came_of_it]].concat())?;
    let memory = house.ask(&mut engine, user("Is the bedroom fan on?"))?;
    drop(engine);
    let mut engine = open()?;
    let disk = house.ask(&mut engine, user("Switch the heater off, please"))?;
    Ok(Row {
        asked_tokens: asked,
        entities: house.entities,
        cold: Round::of(&cold),
        memory: Round::of(&memory),
        second: Round::of(&second),
        disk: Round::of(&disk),
    })
}

fn print(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<22} {:>8} {:>8} {:>8} {:>10} {:>8} {:>9}",
        "", "entities", "prompt", "read", "prefill s", "answer", "decode s"
    )?;
    for row in rows {
        for (name, round) in [
            ("cold", &row.cold),
            ("second round", &row.second),
            ("known from memory", &row.memory),
            ("known from disk", &row.disk),
        ] {
            writeln!(
                out,
                "{name:<22} {:>8} {:>8} {:>8} {:>10.2} {:>8} {:>9.2}",
                row.entities,
                round.prompt_tokens,
                round.read_tokens,
                round.prefill_s,
                round.answer_tokens,
                round.decode_s
            )?;
        }
    }
    Ok(())
}
