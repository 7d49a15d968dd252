//! Conversations as the released template writes them, and text that tries to be more than text.

use std::sync::LazyLock;

use gemmad::model::gemma4::template::Template;
use gemmad::model::prompt::{
    ChatTemplate, MAX_TEXT_BYTES, MediaKind, Message, Part, Prompt, PromptError, PromptOptions,
    Role,
};
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::tools::{Tool, ToolCall, ToolResult};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::manifest;
use crate::common::fixtures_gemma4;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::load(&fixtures_gemma4()).unwrap());

/// Soft tokens of every picture and every clip here.
const IMAGE: usize = 3;
const AUDIO: usize = 5;

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn message(role: Role, content: Vec<Part>) -> Message {
    Message { role, content }
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn model(content: Vec<Part>) -> Message {
    message(Role::Assistant, content)
}

fn image() -> Part {
    Part::Image { soft_tokens: IMAGE }
}

fn render(messages: &[Message], options: &PromptOptions<'_>) -> Result<Prompt, PromptError> {
    Template.render(&TOKENIZER, messages, options)
}

/// What is written, as text.
fn written(messages: &[Message], options: &PromptOptions<'_>) -> String {
    let prompt = render(messages, options).unwrap();
    TOKENIZER.decode(&prompt.ids).unwrap()
}

/// The reference's way to expand media: as text, before the tokenizer sees it.
fn expand(rendered: &str) -> String {
    let media =
        |kind: &str, count| format!("<|{kind}>{}<{kind}|>", format!("<|{kind}|>").repeat(count));
    rendered
        .replace("<|image|>", &media("image", IMAGE))
        .replace("<|audio|>", &media("audio", AUDIO))
}

/// The parts of a message's `content`.
fn content(value: &Value) -> Vec<Part> {
    let part = |part: &Value| match part["type"].as_str().unwrap() {
        "image" => image(),
        "audio" => Part::Audio { soft_tokens: AUDIO },
        _ => text(part["text"].as_str().unwrap()),
    };
    match value {
        Value::Null => Vec::new(),
        Value::String(content) => vec![text(content)],
        parts => parts.as_array().unwrap().iter().map(part).collect(),
    }
}

/// The parts of a model's message: what it thought, what it called, what it said.
fn answer(value: &Value) -> Vec<Part> {
    let thought = value["reasoning"].as_str();
    let thought = thought.map(|text| Part::Thought(text.to_owned()));
    let calls = value["tool_calls"].as_array().into_iter().flatten();
    let calls = calls.map(|call| {
        Part::ToolCall(ToolCall {
            name: call["function"]["name"].as_str().unwrap().to_owned(),
            arguments: call["function"]["arguments"].as_object().unwrap().clone(),
        })
    });
    let parts = thought.into_iter().chain(calls);
    parts.chain(content(&value["content"])).collect()
}

/// A conversation as the manifest writes it: results of calls are messages of their own there, and name the call by its id.
fn messages(value: &Value) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut called = Vec::new();
    for value in value.as_array().unwrap() {
        let role = match value["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => {
                let calls = &mut messages.last_mut().unwrap().content;
                let is_tools =
                    |part: &Part| matches!(part, Part::ToolCall(_) | Part::ToolResult(_));
                let at = calls.iter().rposition(is_tools).unwrap() + 1;
                let (_, name) = called
                    .iter()
                    .find(|(id, _)| *id == value["tool_call_id"])
                    .unwrap();
                let result = ToolResult {
                    name: String::clone(name),
                    value: value["content"].clone(),
                };
                calls.insert(at, Part::ToolResult(result));
                continue;
            }
            other => panic!("{other}"),
        };
        for call in value["tool_calls"].as_array().into_iter().flatten() {
            let name = call["function"]["name"].as_str().unwrap().to_owned();
            called.push((call["id"].clone(), name));
        }
        let content = match role {
            Role::Assistant => answer(value),
            _ => content(&value["content"]),
        };
        messages.push(message(role, content));
    }
    messages
}

fn tools(value: &Value) -> Vec<Tool> {
    let tool = |value: &Value| Tool {
        name: value["function"]["name"].as_str().unwrap().to_owned(),
        description: value["function"]["description"]
            .as_str()
            .unwrap()
            .to_owned(),
        parameters: value["function"]["parameters"].clone(),
    };
    value.as_array().into_iter().flatten().map(tool).collect()
}

#[test]
fn chats_are_those_of_the_template() {
    let manifest = manifest();
    let cases = manifest["chat_cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let options = PromptOptions {
            ask: case["add_generation_prompt"] == true,
            thinking: case["enable_thinking"] == true,
            tools: &tools(&case["tools"]),
        };
        let prompt = render(&messages(&case["messages"]), &options).unwrap();
        let rendered = expand(case["text"].as_str().unwrap());
        assert_eq!(TOKENIZER.decode(&prompt.ids).unwrap(), rendered);
        assert_eq!(prompt.ids, TOKENIZER.encode(&rendered));
    }
}

#[test]
fn media_stand_where_their_marks_are() {
    let content = vec![image(), text("and"), Part::Audio { soft_tokens: AUDIO }];
    let prompt = render(&[message(Role::User, content)], &PromptOptions::ASK).unwrap();
    let control = TOKENIZER.control();
    let (image, audio) = (control.image.unwrap(), control.audio.unwrap());
    let spans: Vec<_> = prompt.media.iter().map(|span| span.kind).collect();
    assert_eq!(spans, [MediaKind::Image, MediaKind::Audio]);
    for (span, tokens, count) in [
        (&prompt.media[0], image, IMAGE),
        (&prompt.media[1], audio, AUDIO),
    ] {
        let at = span.soft_tokens.clone();
        assert_eq!(prompt.ids[at.clone()], vec![tokens.soft; count]);
        assert_eq!(prompt.ids[at.start - 1], tokens.start);
        assert_eq!(prompt.ids[at.end], tokens.end);
    }
}

#[test]
fn thoughts_stay_until_a_user_says_something_new() {
    let thoughtful = || model(vec![Part::Thought("2 + 2".to_owned()), text("4")]);
    let shown = "<|channel>thought\n2 + 2\n<channel|>4";
    let asked = PromptOptions::default();
    assert_eq!(
        written(&[user("Sum?"), thoughtful()], &asked),
        format!("<bos><|turn>user\nSum?<turn|>\n<|turn>model\n{shown}<turn|>\n")
    );
    assert_eq!(
        written(&[user("Sum?"), thoughtful(), user("Sure?")], &asked),
        "<bos><|turn>user\nSum?<turn|>\n<|turn>model\n4<turn|>\n<|turn>user\nSure?<turn|>\n"
    );
    // Two answers in a row are one turn.
    assert_eq!(
        written(
            &[user("Sum?"), thoughtful(), model(vec![text("Yes.")])],
            &asked
        ),
        format!("<bos><|turn>user\nSum?<turn|>\n<|turn>model\n{shown}Yes.<turn|>\n")
    );
    // What a model said before counts as thought where its text has the marks.
    let said = model(vec![text(
        "<|channel>thought\na<channel|> b <|channel>thought\nc",
    )]);
    assert_eq!(
        written(&[user("?"), said], &asked),
        "<bos><|turn>user\n?<turn|>\n<|turn>model\nb<turn|>\n"
    );
}

#[test]
fn instructions_in_pieces_are_joined_by_spaces() {
    let system = message(Role::System, vec![text(" a "), text("b")]);
    assert_eq!(
        written(&[system, user("?")], &PromptOptions::default()),
        "<bos><|turn>system\na b <turn|>\n<|turn>user\n?<turn|>\n"
    );
}

#[test]
fn calls_wait_for_what_comes_of_them() {
    let arguments = json!({"b": null, "A": [1, 2.5, "x"], "c": {"d": true}});
    let call = Part::ToolCall(ToolCall {
        name: "f".to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
    });
    let called = "<|tool_call>call:f{A:[1,2.5,<|\"|>x<|\"|>],b:null,c:{d:true}}<tool_call|>";
    let head = "<bos><|turn>user\n?<turn|>\n<|turn>model\n";
    let waiting = [user("?"), model(vec![call.clone()])];
    assert_eq!(
        written(&waiting, &PromptOptions::ASK),
        format!("{head}{called}<|tool_response>")
    );
    let result = Part::ToolResult(ToolResult {
        name: "f".to_owned(),
        value: json!({"state": "on", "Level": 3}),
    });
    let informed = "<|tool_response>response:f{Level:3,state:<|\"|>on<|\"|>}<tool_response|>";
    let known = [user("?"), model(vec![call, result])];
    assert_eq!(
        written(&known, &PromptOptions::ASK),
        format!("{head}{called}{informed}")
    );
    let thinking = PromptOptions {
        thinking: true,
        ..PromptOptions::ASK
    };
    let text = written(&known, &thinking);
    assert!(
        text.starts_with("<bos><|turn>system\n<|think|>\n<turn|>\n"),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("{informed}<|channel>thought\n")),
        "{text}"
    );
}

#[test]
fn tools_are_declared_with_all_that_describes_their_arguments() {
    let parameters = json!({
        "type": "object",
        "properties": {
            "Zone": {"type": "object", "properties": {"x": {"type": "number", "nullable": true}}, "required": ["x"]},
            "area": {"type": "string", "description": "Where", "enum": ["a", "b"]},
        },
    });
    let tool = Tool {
        name: "f".to_owned(),
        description: "Does it".to_owned(),
        parameters,
    };
    let plain = Tool {
        name: "g".to_owned(),
        description: "Does that".to_owned(),
        parameters: Value::Null,
    };
    let options = PromptOptions {
        tools: &[tool, plain],
        ..PromptOptions::default()
    };
    let quoted = |text: &str| {
        let mut pieces = text.split('\'');
        let first = pieces.next().unwrap().to_owned();
        pieces.fold(first, |text, piece| text + "<|\"|>" + piece)
    };
    let declared = quoted(
        "<|tool>declaration:f{description:'Does it',parameters:{properties:{area:{description:'Where',enum:['a','b'],type:'STRING'},\
         Zone:{properties:{x:{nullable:true,type:'NUMBER'}},required:['x'],type:'OBJECT'}},type:'OBJECT'}}<tool|>\
         <|tool>declaration:g{description:'Does that'}<tool|>",
    );
    assert_eq!(
        written(&[user("?")], &options),
        format!("<bos><|turn>system\n{declared}<turn|>\n<|turn>user\n?<turn|>\n")
    );
}

#[test]
fn what_no_conversation_is_has_one_line() {
    let error = |messages: &[Message]| {
        let error = render(messages, &PromptOptions::ASK).unwrap_err();
        error.to_string()
    };
    let system = || Message::text(Role::System, "x");
    for nothing in [&[][..], &[system()]] {
        assert!(error(nothing).contains("empty"));
    }
    assert!(error(&[user("?"), system()]).contains("system message stands behind"));
    assert_eq!(
        error(&[message(Role::System, vec![image()]), user("?")]),
        "a message of role system may hold text only, found an image"
    );
    assert_eq!(
        error(&[user("?"), model(vec![Part::Audio { soft_tokens: 1 }])]),
        "a message of role assistant may hold text, thoughts, tool calls and tool results only, found audio"
    );
    assert_eq!(
        error(&[message(Role::User, vec![Part::Thought("hm".to_owned())])]),
        "a message of role user may hold text, images and audio only, found a thought"
    );
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    assert!(error(&[user(&long)]).contains("4194305 bytes"));
}

#[test]
fn a_conversation_goes_on_as_if_it_had_been_told_at_once() {
    let system = || Message::text(Role::System, "Be brief.");
    let next = vec![image(), text(" Really? ")];
    for thinking in [false, true] {
        let options = PromptOptions {
            thinking,
            ..PromptOptions::ASK
        };
        let mut ids = render(&[system(), user("Why?")], &options).unwrap().ids;
        ids.extend(TOKENIZER.encode_text("Because."));
        ids.extend(Template.render_next(&TOKENIZER, &next).unwrap().ids);
        let answered = model(vec![Part::Thought("hm".to_owned()), text("Because. ")]);
        let whole = [
            system(),
            user("Why?"),
            answered,
            message(Role::User, next.clone()),
        ];
        assert_eq!(ids, render(&whole, &options).unwrap().ids);
    }
}

/// Texts that would change the structure of a prompt if they could.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "<bos>",
        "<eos>",
        "<pad>",
        "<|turn>",
        "<turn|>",
        "<|turn",
        ">model\n",
        "<|channel>",
        "<channel|>",
        "<|think|>",
        "<|tool>",
        "<tool|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        "<|\"|>",
        "<|image>",
        "<|image|>",
        "<image|>",
        "<|audio>",
        "<|audio|>",
        "<audio|>",
        "<|video|>",
        "<start_of_turn>",
        "\n",
        "\n\n",
        " ",
        "<",
        "|",
        ">",
        "<0x0A>",
        "user",
        "\u{2581}",
        "señal",
        "ひ",
        "😀",
        "\u{1c}",
        "\u{a0}",
    ]);
    prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nobodys_text_becomes_control_tokens(system in hostile(), asked in hostile(), said in hostile(), name in hostile()) {
        let called = Part::ToolCall(ToolCall { name: name.clone(), arguments: serde_json::Map::from_iter([(name.clone(), json!(name))]) });
        let chat = [Message::text(Role::System, &system), user(&asked), model(vec![Part::Thought(name), called, text(&said)])];
        let ids = render(&chat, &PromptOptions::default()).unwrap().ids;
        let control = TOKENIZER.control();
        let (thoughts, tools) = (control.thoughts.unwrap(), control.tools.unwrap());
        let (start, end) = (control.start_of_turn, control.end_of_turn);
        let expected = [
            control.bos, start, end, start, end, start, thoughts.start, thoughts.end, tools.call[0], tools.quote, tools.quote, tools.call[1],
            tools.response[0],
        ];
        let found: Vec<u32> = ids.into_iter().filter(|&id| TOKENIZER.is_special(id)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn harmless_texts_give_the_ids_of_the_rendered_template(a in "[a-zé日 \n]{0,20}", b in "[a-zé日 \n]{0,20}") {
        let content = vec![text(&a), image(), text(&b)];
        let prompt = render(&[message(Role::User, content)], &PromptOptions::ASK).unwrap();
        let rendered = format!("<bos><|turn>user\n{}<|image|>{}<turn|>\n<|turn>model\n", a.trim(), b.trim());
        prop_assert_eq!(prompt.ids, TOKENIZER.encode(&expand(&rendered)));
    }
}
