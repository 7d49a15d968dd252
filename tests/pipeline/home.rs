//! The built-in commands: what may be said of a home, what it means, and what can never come out.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::fixtures;
use gemmad::model::grammar::{Compiler, GrammarLimits, Next};
use gemmad::model::sampler::Sampling;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::pipeline::commands::{CommandGrammar, Commands, Home, HomeAssistant, Understanding};
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, FinishReason, Message, Part, Request, Timing,
};
use gemmad::report::{AreaName, CommandCall, EntityName, FloorName, Names};
use serde_json::json;

fn entity(id: &str, name: &str, aliases: &[&str], area: &str) -> EntityName {
    EntityName {
        id: id.to_owned(),
        name: name.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        area: Some(area.to_owned()).filter(|area| !area.is_empty()),
    }
}

/// Two floors, three rooms, two lamps of one name.
fn names() -> Names {
    let area = |name: &str, alias: &str, floor: &str| AreaName {
        name: name.to_owned(),
        aliases: vec![alias.to_owned()],
        floor: Some(floor.to_owned()),
    };
    let floor = |name: &str| FloorName {
        name: name.to_owned(),
        aliases: Vec::new(),
    };
    Names {
        entities: vec![
            entity("light.k", "Ceiling", &["big light"], "Kitchen"),
            entity("light.b", "Lamp", &[], "Bedroom"),
            entity("light.o", "Lamp", &[], "Office"),
            entity("cover.b", "Blinds", &["Rollos"], "Bedroom"),
            entity("climate.o", "Heating", &[], "Office"),
            entity("scene.film", "Film night", &[], ""),
            entity("sensor.t", "Outside", &["temperature outside"], ""),
        ],
        areas: vec![
            area("Kitchen", "Küche", "Ground floor"),
            area("Bedroom", "Schlafzimmer", "Upstairs"),
            area("Office", "Büro", "Upstairs"),
        ],
        floors: vec![floor("Ground floor"), floor("Upstairs")],
        speakers: [("device-1".to_owned(), "Bedroom".to_owned())].into(),
    }
}

fn grammar(names: &Names, options: &HomeAssistant) -> CommandGrammar {
    let home = Arc::new(Home::new(names, options.max_entities, 100_000));
    let limits = GrammarLimits::default();
    CommandGrammar::new(&[], Some((home, options)), &Commands::default(), &limits).unwrap()
}

fn usual(names: &Names) -> CommandGrammar {
    grammar(names, &HomeAssistant::default())
}

/// A model that writes `text`, whatever it is asked: whether the grammar lets it, token by token.
fn lets(compiler: &Compiler, tokenizer: &Tokenizer, commands: &CommandGrammar, text: &str) -> bool {
    let grammar = commands.generation().grammar.unwrap();
    let mut constraint = compiler.compile(&grammar).unwrap();
    let mut rest = text.as_bytes();
    while !constraint.is_complete() {
        let fits = |id: &u32| {
            let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
            !bytes.is_empty() && rest.starts_with(&bytes)
        };
        let length = |id: &u32| tokenizer.token_bytes(*id).unwrap_or_default().len();
        let next = match constraint.allowed().unwrap() {
            Next::Forced(ids) => ids,
            Next::Among(set) => set
                .iter()
                .filter(fits)
                .max_by_key(length)
                .into_iter()
                .collect(),
        };
        let bytes: Vec<u8> = next
            .iter()
            .flat_map(|&id| tokenizer.token_bytes(id).unwrap_or_default())
            .collect();
        match rest.strip_prefix(&bytes[..]) {
            Some(left) if !next.is_empty() => rest = left,
            _ => break,
        }
        constraint.accept(&next).unwrap();
    }
    rest.is_empty()
}

fn scribe() -> (Compiler, Arc<Tokenizer>) {
    let tokenizer = Arc::new(Tokenizer::load(&fixtures()).unwrap());
    let end = tokenizer.control().end_of_turn;
    let compiler = Compiler::new(&tokenizer, 2048, &[end]).unwrap();
    (compiler, tokenizer)
}

/// What a sure answer of this text means.
fn read(commands: &CommandGrammar, text: &str, here: Option<&str>) -> Understanding {
    let answer = Answer {
        calls: Vec::new(),
        text: text.to_owned(),
        thoughts: None,
        finish: FinishReason::Stop,
        matformer: String::new(),
        grammar_confidence: Some(1.0),
        resumed: None,
        timing: Timing::default(),
        memory: Vec::new(),
    };
    commands.read(&answer, here)
}

fn calls(commands: &CommandGrammar, text: &str, here: Option<&str>) -> Vec<CommandCall> {
    match read(commands, text, here) {
        Understanding::Commands { calls, .. } => calls,
        nothing => panic!("{text}: {nothing:?}"),
    }
}

/// Each way to mean something: what the model writes, where the speaker is, and whom it means.
#[test]
fn a_command_means_entities() {
    let commands = usual(&names());
    let (compiler, tokenizer) = scribe();
    let here = commands.area_of(&["unknown".to_owned(), "device-1".to_owned()]);
    assert_eq!(here, Some("Bedroom"));
    for (text, here, meant, slots) in [
        (
            r#"{"command":"HassTurnOn","name":"big light"}"#,
            None,
            &["light.k"][..],
            json!({"name": "Ceiling"}),
        ),
        (
            r#"{"command":"HassTurnOff","name":"Lamp","area":"Büro"}"#,
            here,
            &["light.o"],
            json!({"name": "Lamp", "area": "Büro"}),
        ),
        (
            r#"{"command":"HassTurnOff","name":"Lamp"}"#,
            here,
            &["light.b"],
            json!({"name": "Lamp"}),
        ),
        (
            r#"{"command":"HassTurnOff","domain":"light","area":"Küche"}"#,
            here,
            &["light.k"],
            json!({"domain": "light", "area": "Kitchen"}),
        ),
        (
            r#"{"command":"HassTurnOff","domain":"light","floor":"Upstairs"}"#,
            None,
            &["light.b", "light.o"],
            json!({"domain": "light", "floor": "Upstairs"}),
        ),
        (
            r#"{"command":"HassTurnOff","domain":"light","all":true}"#,
            here,
            &["light.k", "light.b", "light.o"],
            json!({"domain": "light"}),
        ),
        (
            r#"{"command":"HassTurnOff","domain":"light"}"#,
            here,
            &["light.b"],
            json!({"domain": "light", "area": "Bedroom"}),
        ),
        (
            r#"{"command":"HassLightSet","name":"Ceiling","brightness":35}"#,
            None,
            &["light.k"],
            json!({"name": "Ceiling", "brightness": 35}),
        ),
        (
            r#"{"command":"HassLightSet","domain":"light","area":"Kitchen","color":"blue"}"#,
            None,
            &["light.k"],
            json!({"domain": "light", "area": "Kitchen", "color": "blue"}),
        ),
        (
            r#"{"command":"HassSetPosition","name":"Rollos","position":100}"#,
            None,
            &["cover.b"],
            json!({"name": "Blinds", "position": 100}),
        ),
        (
            r#"{"command":"HassClimateSetTemperature","name":"Heating","temperature":21}"#,
            None,
            &["climate.o"],
            json!({"name": "Heating", "temperature": 21}),
        ),
        (
            r#"{"command":"HassTurnOn","name":"Film night"}"#,
            None,
            &["scene.film"],
            json!({"name": "Film night"}),
        ),
        (
            r#"{"command":"HassGetState","name":"temperature outside"}"#,
            None,
            &["sensor.t"],
            json!({"name": "Outside"}),
        ),
        (
            r#"{"command":"HassStartTimer","minutes":5,"seconds":30}"#,
            None,
            &[],
            json!({"minutes": 5, "seconds": 30}),
        ),
    ] {
        assert!(lets(&compiler, &tokenizer, &commands, text), "{text}");
        let [call] = &calls(&commands, text, here)[..] else {
            panic!("{text}");
        };
        assert_eq!(call.entities, meant, "{text}");
        assert_eq!(json!(call.slots), slots, "{text}");
    }
    // Both at once, as one sentence has them.
    let both = r#"[{"command":"HassTurnOff","name":"Lamp","area":"Bedroom"},{"command":"HassSetPosition","name":"Blinds","position":0}]"#;
    assert!(lets(&compiler, &tokenizer, &commands, both));
    let both = calls(&commands, both, None);
    let meant: Vec<&str> = both.iter().map(|call| call.entities[0].as_str()).collect();
    assert_eq!(meant, ["light.b", "cover.b"]);
}

#[test]
fn what_is_not_there_cannot_be_said_and_what_is_not_clear_is_asked_back() {
    let commands = usual(&names());
    let (compiler, tokenizer) = scribe();
    for text in [
        r#"{"command":"HassTurnOn","name":"Garage"}"#,
        r#"{"command":"HassTurnOn","name":"ceiling"}"#,
        // A sensor cannot be turned on, nor a lamp be moved, nor all scenes be meant.
        r#"{"command":"HassTurnOn","name":"Outside"}"#,
        r#"{"command":"HassSetPosition","name":"Ceiling","position":5}"#,
        r#"{"command":"HassTurnOn","domain":"scene","all":true}"#,
        r#"{"command":"HassLightSet","name":"Ceiling"}"#,
        r#"{"command":"HassLightSet","name":"Ceiling","brightness":101}"#,
        r#"{"command":"HassTurnOff","domain":"light","area":"Garage"}"#,
        r#"{"command":"HassTurnOff"}"#,
        r#"[{"command":"HassGetState","name":"Ceiling"}]"#,
        r#"{"command":"HassRestart"}"#,
    ] {
        assert!(!lets(&compiler, &tokenizer, &commands, text), "{text}");
    }
    for (text, here, words) in [
        (
            r#"{"command":"HassTurnOn","name":"Lamp"}"#,
            None,
            "2 things are called \"Lamp\": say in which area",
        ),
        (
            r#"{"command":"HassTurnOn","name":"Lamp"}"#,
            Some("Kitchen"),
            "there is no \"Lamp\" there",
        ),
        (
            r#"{"command":"HassTurnOn","domain":"light"}"#,
            None,
            "say which light",
        ),
        (
            r#"{"command":"HassTurnOn","domain":"climate"}"#,
            Some("Kitchen"),
            "there is no climate in \"Kitchen\"",
        ),
    ] {
        let Understanding::NotUnderstood { reason, .. } = read(&commands, text, here) else {
            panic!("{text} is understood");
        };
        assert!(reason.contains(words), "{text}: {reason}");
    }
}

#[test]
fn names_may_be_anything_that_people_call_things() {
    let strange = [
        "Bob's \"big\" lamp",
        "back\\slash",
        "Lampe 💡 links",
        "👩\u{200d}🚀",
        "مصباح المطبخ",
        "מנורה",
        "Ώρα ½ №7",
        "{\"command\":\"HassTurnOff\"}",
        "<end_of_turn>",
        "灯",
    ];
    let mut names = Names::default();
    for (at, name) in strange.iter().enumerate() {
        names
            .entities
            .push(entity(&format!("light.l{at}"), name, &[], ""));
    }
    // Mended: lines, tabs, and what turns the direction of text around.
    names.entities.push(entity(
        "light.mended",
        " two\n\tlines \u{202e}and more\u{0}",
        &["", "  "],
        "",
    ));
    // Left out: no name, one that nobody says, no id, the same id again.
    let endless = "x".repeat(101);
    for (id, name) in [
        ("light.none", " \n "),
        ("light.long", &endless),
        ("lamp", "Lamp"),
        ("light.", "Lamp"),
        ("Light.A", "Lamp"),
        ("light.l0", "Again"),
    ] {
        names.entities.push(entity(id, name, &[], ""));
    }
    let home = Home::new(&names, 250, 100_000);
    assert_eq!(home.counts(), [strange.len() + 1, 6, 0]);
    let commands = usual(&names);
    let (compiler, tokenizer) = scribe();
    for (at, name) in strange.iter().chain(&["two lines and more"]).enumerate() {
        let text = format!("{{\"command\":\"HassTurnOn\",\"name\":{}}}", json!(name));
        assert!(lets(&compiler, &tokenizer, &commands, &text), "{text}");
        let id = match at {
            at if at < strange.len() => format!("light.l{at}"),
            _ => "light.mended".to_owned(),
        };
        assert_eq!(calls(&commands, &text, None)[0].entities, [id], "{name}");
        let listed = commands.instructions().unwrap();
        assert!(listed.contains(&json!(name).to_string()), "{name}");
    }
}

fn many(count: usize) -> Names {
    let lights = (0..count).map(|n| {
        let area = ["Kitchen", "Bedroom", "Office"][n % 3];
        entity(
            &format!("light.l{n}"),
            &format!("Lamp number {n}"),
            &[],
            area,
        )
    });
    Names {
        entities: lights.collect(),
        ..names()
    }
}

#[test]
fn homes_of_any_size_have_their_bounds() {
    let (compiler, tokenizer) = scribe();
    for count in [5, 25, 60, 250] {
        let commands = usual(&many(count));
        let last = format!(
            "{{\"command\":\"HassTurnOff\",\"name\":\"Lamp number {}\"}}",
            count - 1
        );
        assert!(lets(&compiler, &tokenizer, &commands, &last), "{count}");
    }
    let names = many(2000);
    // By number, and by the room that a prompt has.
    assert_eq!(Home::new(&names, 250, 100_000).counts(), [250, 0, 1750]);
    let [known, unusable, beyond] = Home::new(&names, 2000, 2457).counts();
    assert!((100..300).contains(&known), "{known}");
    assert_eq!((unusable, known + beyond), (0, 2000));
}

/// The worst model there is: random weights, any token as likely as any other.
#[test]
fn whatever_a_model_says_names_nothing_that_does_not_exist() {
    let options = EngineOptions {
        context: 1024,
        threads: 2,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(&fixtures(), options).unwrap();
    let known = names();
    let commands = usual(&known);
    let ids: Vec<&String> = known.entities.iter().map(|entity| &entity.id).collect();
    let (mut understood, mut several) = (0, 0);
    for seed in 0..60 {
        let mut generation = commands.generation();
        generation.seed = seed;
        generation.sampling = Sampling {
            temperature: 1.0,
            ..generation.sampling
        };
        let request = Request {
            conversation: None,
            // Without the list, which a tiny tokenizer makes thousands of tokens of.
            messages: Message::user(vec![Part::Text("lamp off".to_owned())]),
            matformer: None,
            thinking: None,
            generation,
        };
        let mut answer = engine
            .answer(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(answer.finish, FinishReason::Stop, "{}", answer.text);
        answer.grammar_confidence = Some(1.0);
        if let Understanding::Commands { calls, .. } = commands.read(&answer, Some("Office")) {
            understood += 1;
            several += usize::from(calls.len() > 1);
            for call in calls {
                let unknown = call.entities.iter().find(|id| !ids.contains(id));
                assert_eq!(unknown, None, "{}", answer.text);
                assert!(
                    !call.entities.is_empty() || call.name == "HassStartTimer",
                    "{}",
                    answer.text
                );
            }
        }
    }
    assert!(understood > 10, "{understood} of 60");
    assert!(several > 0, "no list among them");
}

#[test]
fn own_commands_leave_the_built_in_ones_their_names() {
    let parse = |text: &str| {
        let path = std::path::Path::new("gemmad.toml");
        gemmad::config::Config::parse(text, path)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let names = "[mqtt]\nenabled = true\n[homeassistant]\nnames = \"mqtt\"\n";
    parse(names).unwrap();
    parse(&format!("{names}[[command]]\nname = \"good_night\"\n")).unwrap();
    for (text, words) in [
        (
            "[homeassistant]\nnames = \"mqtt\"\n".to_owned(),
            ["homeassistant.names", "mqtt.enabled"],
        ),
        (
            format!("{names}max_entities = 0\n"),
            ["homeassistant.max_entities", "1 to 2000"],
        ),
        (
            format!("{names}[[command]]\nname = \"HassTurnOn\"\n"),
            ["command[1].name", "built-in"],
        ),
        (
            format!("{names}[commands]\nname_key = \"name\"\n"),
            ["commands.name_key", "built-in"],
        ),
        (
            "[commands]\nmost = 9\n[[command]]\nname = \"a\"\n".to_owned(),
            ["commands.most", "1 to 8"],
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn what_things_at_home_are_called_is_likely_to_be_said() {
    let commands = usual(&names());
    let phrases: Vec<&str> = commands.phrases().collect();
    for name in ["Rollos", "Lamp", "Schlafzimmer", "Upstairs", "HassTurnOff"] {
        assert!(phrases.contains(&name), "{name} is not among {phrases:?}");
    }
}
