//! Commands under a grammar, with the demo model on its held-out clips: what is configured is understood, what is not is
//! told from it by the confidence.

use std::ops::ControlFlow;
use std::path::Path;

use crate::heldout::{Clip, clips, demo};
use gemmad::config::Config;
use gemmad::model::grammar::GrammarLimits;
use gemmad::pipeline::commands::{
    Command, CommandGrammar, Commands, Slot, SlotValue, Understanding,
};
use gemmad::pipeline::{Engine, EngineOptions, Message, Part, Request};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn engine() -> Engine {
    let options = EngineOptions {
        context: 512,
        threads: 2,
        ..EngineOptions::default()
    };
    Engine::open(&demo(), options).unwrap()
}

/// The commands of config/examples/demo-commands.toml that `keep` leaves.
fn commands(keep: impl Fn(&mut Command) -> bool) -> CommandGrammar {
    let mut config = Config::load(&top().join("config/examples/demo-commands.toml")).unwrap();
    config.command.retain_mut(keep);
    CommandGrammar::new(
        &config.command,
        None,
        &config.commands,
        &config.limits.grammar,
    )
    .unwrap()
}

/// Only light and lamp can be switched.
fn only_lights() -> CommandGrammar {
    commands(|command| {
        for slot in &mut command.slots {
            if slot.name == "device" {
                slot.values.truncate(2);
            }
        }
        command.name.starts_with("turn_")
    })
}

fn hear(engine: &mut Engine, commands: &CommandGrammar, clip: &Clip) -> Understanding {
    let mut speech = engine
        .start_speech(None, &commands.prompt(None), None)
        .unwrap();
    for piece in clip.samples.chunks(320) {
        engine.hear(&mut speech, piece).unwrap();
    }
    let answer = engine
        .finish_speech(speech, &commands.generation(), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    commands.read(&answer, None)
}

fn read(engine: &mut Engine, commands: &CommandGrammar, text: &str) -> Understanding {
    let request = Request {
        conversation: None,
        messages: Message::user(vec![Part::Text(commands.prompt_for(text, None))]),
        matformer: None,
        thinking: None,
        generation: commands.generation(),
    };
    let answer = engine
        .answer(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    commands.read(&answer, None)
}

fn confidence(understanding: &Understanding) -> f32 {
    match understanding {
        Understanding::Commands { confidence, .. }
        | Understanding::NotUnderstood { confidence, .. } => *confidence,
    }
}

fn is_right(understanding: &Understanding, clip: &Clip) -> bool {
    let mut slots: serde_json::Map<_, _> = serde_json::from_str(&clip.command).unwrap();
    let name = slots.shift_remove("action").unwrap();
    match understanding {
        Understanding::Commands { calls, .. } => {
            let [call] = calls.as_slice() else {
                return false;
            };
            name == call.name.as_str() && slots == call.slots
        }
        Understanding::NotUnderstood { .. } => false,
    }
}

#[test]
fn instructions_stand_before_and_have_the_list_too() {
    let options = Commands {
        instructions: "These can be done:\n{commands}".to_owned(),
        prompt: "Which?".to_owned(),
        ..Commands::default()
    };
    let stop = Command {
        name: "stop".to_owned(),
        description: Some("Be still".to_owned()),
        slots: Vec::new(),
    };
    let grammar = CommandGrammar::new(&[stop], None, &options, &GrammarLimits::default()).unwrap();
    assert_eq!(
        (grammar.instructions(), grammar.prompt(None).as_str()),
        (Some("These can be done:\n- stop(): Be still"), "Which?")
    );
    assert_eq!(commands(|_| true).instructions(), None);
}

/// Without a grammar the demo model gets all 24 from sound and 23 from text (models/demo/README.md).
#[test]
fn every_clip_becomes_its_command() {
    let mut engine = engine();
    let commands = commands(|_| true);
    let mut read_right = 0;
    for clip in clips() {
        let heard = hear(&mut engine, &commands, &clip);
        assert!(is_right(&heard, &clip), "{}: {heard:?}", clip.file);
        // Measured: 0.987 at least.
        assert!(confidence(&heard) > 0.9, "{}: {heard:?}", clip.file);
        let read = read(&mut engine, &commands, &clip.transcript);
        read_right += usize::from(is_right(&read, &clip));
        assert!(confidence(&read) > 0.9, "{}: {read:?}", clip.file);
    }
    assert!(read_right >= 23, "{read_right} of 24 read right");
}

/// Where only lights can be switched, other commands become nothing instead of a light.
#[test]
fn what_is_not_configured_is_not_understood() {
    let mut engine = engine();
    let commands = only_lights();
    let mut fitting = 0;
    for clip in clips() {
        let command: serde_json::Value = serde_json::from_str(&clip.command).unwrap();
        let value = |key: &str| command[key].as_str().unwrap_or_default();
        let fits =
            value("action").starts_with("turn_") && matches!(value("device"), "light" | "lamp");
        fitting += usize::from(fits);
        for understanding in [
            hear(&mut engine, &commands, &clip),
            read(&mut engine, &commands, &clip.transcript),
        ] {
            if fits {
                assert!(is_right(&understanding, &clip), "{understanding:?}");
            } else {
                let Understanding::NotUnderstood { confidence, reason } = understanding else {
                    panic!("{}: {understanding:?}", clip.file);
                };
                // Measured: 0.0003 at most.
                assert!(confidence < 0.01, "{}: {confidence} {reason}", clip.file);
                assert!(reason.contains("min_confidence"), "{reason}");
            }
        }
    }
    assert_eq!(fitting, 2);
}

fn slot(name: &str, values: Vec<SlotValue>) -> Slot {
    Slot {
        name: name.to_owned(),
        values,
        optional: false,
    }
}

fn command(name: &str, slots: Vec<Slot>) -> Command {
    Command {
        name: name.to_owned(),
        description: Some("what it does".to_owned()),
        slots,
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let text = |text: &str| SlotValue::Text(text.to_owned());
    let good = || slot("area", vec![text("hall"), SlotValue::Number(3)]);
    let check = |commands: &[Command], options: Commands| {
        CommandGrammar::new(commands, None, &options, &GrammarLimits::default())
    };
    let options = Commands::default;
    let made = check(&[command("go", vec![good()])], options()).unwrap();
    assert!(
        made.prompt(None)
            .ends_with("- go(area: \"hall\" | 3): what it does"),
        "{}",
        made.prompt(None)
    );
    for (commands, options, words) in [
        (vec![], options(), ["command", "none"]),
        (
            vec![command("", vec![])],
            options(),
            ["command[1].name", "empty"],
        ),
        (
            vec![command("go", vec![]), command("go", vec![])],
            options(),
            ["command[2].name", "\"go\""],
        ),
        (
            vec![command("go", vec![good(), good()])],
            options(),
            ["command[1].slots[2].name", "\"area\""],
        ),
        (
            vec![command("go", vec![slot("command", vec![text("x")])])],
            options(),
            ["command[1].slots[1].name", "\"command\""],
        ),
        (
            vec![command("go", vec![slot("area", vec![])])],
            options(),
            ["command[1].slots[1].values", "at least one"],
        ),
        (
            vec![command(
                "go",
                vec![slot("n", vec![SlotValue::Number(1), SlotValue::Number(1)])],
            )],
            options(),
            ["command[1].slots[1].values", "1 twice"],
        ),
        (
            vec![command("go", vec![])],
            Commands {
                min_confidence: f32::NAN,
                ..options()
            },
            ["commands.min_confidence", "0 to 1"],
        ),
        (
            vec![command("go", vec![])],
            Commands {
                name_key: String::new(),
                ..options()
            },
            ["commands.name_key", "empty"],
        ),
        (
            vec![command(&"long".repeat(20_000), vec![])],
            options(),
            ["limits.grammar.max_bytes", "65536"],
        ),
    ] {
        let error = check(&commands, options).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let parse = |text: &str| Config::parse(text, Path::new("gemmad.toml"));
    let error = parse("[[command]]\nname = \"a\"\n[[command]]\nname = \"a\"").unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("gemmad.toml") && error.contains("command[2].name"),
        "{error}"
    );
}

/// The blocks that config/gemmad.toml shows as a comment are a configuration.
#[test]
fn the_documented_example_is_read() {
    let reference = std::fs::read_to_string(top().join("config/gemmad.toml")).unwrap();
    let example: String = reference
        .lines()
        .skip_while(|line| *line != "# [[command]]")
        .map_while(|line| line.strip_prefix("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = Config::parse(&example, Path::new("example")).unwrap();
    assert_eq!(config.command.len(), 1);
    assert_eq!(config.command[0].slots.len(), 2);
}
