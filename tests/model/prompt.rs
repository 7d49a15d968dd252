//! Prompts against the reference's rendered chats and its multimodal inputs; text that tries to be more than text.

use std::sync::LazyLock;

use crate::common::{Golden, fixtures};
use gemmad::model::gemma3n::template::Template;
use gemmad::model::prompt::{
    ChatTemplate, MAX_TEXT_BYTES, MediaKind, Message, Part, PromptError, PromptOptions, Role,
};
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::tools::{Tool, ToolCall, ToolResult};
use proptest::prelude::*;
use serde_json::Value;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::load(&fixtures()).unwrap());

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(path)).unwrap()).unwrap()
}

fn image_soft_tokens() -> usize {
    json("config.json")["vision_soft_tokens_per_image"]
        .as_u64()
        .unwrap() as usize
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn user(content: Vec<Part>) -> Message {
    Message {
        role: Role::User,
        content,
    }
}

/// The reference's way to expand media: as text, before the tokenizer sees it.
fn expand(rendered: &str, image: usize, audio: usize) -> String {
    let media = |kind: &str, count| {
        let soft = format!("<{kind}_soft_token>").repeat(count);
        format!("\n\n<start_of_{kind}>{soft}<end_of_{kind}>\n\n")
    };
    rendered
        .replace("<image_soft_token>", &media("image", image))
        .replace("<audio_soft_token>", &media("audio", audio))
}

/// A conversation as the manifest writes it.
fn messages(value: &Value) -> Vec<Message> {
    let part = |part: &Value| match part["type"].as_str().unwrap() {
        "image" => Part::Image {
            soft_tokens: image_soft_tokens(),
        },
        "audio" => Part::Audio { soft_tokens: 188 },
        _ => text(part["text"].as_str().unwrap()),
    };
    let message = |message: &Value| Message {
        role: match message["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        },
        content: match &message["content"] {
            Value::String(content) => vec![text(content)],
            parts => parts.as_array().unwrap().iter().map(part).collect(),
        },
    };
    value.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn chats_are_those_of_the_template() {
    let manifest = json("golden/manifest.json");
    let cases = manifest["chat_cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let ask = case["add_generation_prompt"].as_bool().unwrap();
        let prompt = Template
            .render(
                &TOKENIZER,
                &messages(&case["messages"]),
                &PromptOptions {
                    ask,
                    ..PromptOptions::default()
                },
            )
            .unwrap();
        let rendered = expand(case["text"].as_str().unwrap(), image_soft_tokens(), 188);
        assert_eq!(TOKENIZER.decode(&prompt.ids).unwrap(), rendered);
        assert_eq!(prompt.ids, TOKENIZER.encode(&rendered));
    }
}

#[test]
fn multimodal_inputs_are_those_of_the_reference() {
    let golden = Golden::open("multimodal");
    let image = || Part::Image {
        soft_tokens: image_soft_tokens(),
    };
    let audio = || Part::Audio { soft_tokens: 188 };
    for (case, content, kinds) in [
        (
            "image",
            vec![image(), text("Describe the picture.")],
            vec![MediaKind::Image],
        ),
        (
            "audio",
            vec![
                audio(),
                text("Transcribe the following speech segment in English."),
            ],
            vec![MediaKind::Audio],
        ),
        (
            "both",
            vec![
                text("Look and listen:"),
                image(),
                audio(),
                text("How many people?"),
            ],
            vec![MediaKind::Image, MediaKind::Audio],
        ),
    ] {
        let prompt = Template
            .render(&TOKENIZER, &[user(content)], &PromptOptions::ASK)
            .unwrap();
        let (ids, _) = golden.i32(&format!("{case}.input_ids"));
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        assert_eq!(prompt.ids, ids, "{case}");
        assert_eq!(
            prompt
                .media
                .iter()
                .map(|span| span.kind)
                .collect::<Vec<_>>(),
            kinds
        );
        for span in &prompt.media {
            let tokens = match span.kind {
                MediaKind::Image => TOKENIZER.control().image.unwrap(),
                MediaKind::Audio => TOKENIZER.control().audio.unwrap(),
            };
            assert!(
                ids[span.soft_tokens.clone()]
                    .iter()
                    .all(|&id| id == tokens.soft)
            );
            assert_eq!(ids[span.soft_tokens.start - 1], tokens.start);
            assert_eq!(ids[span.soft_tokens.end], tokens.end);
        }
    }
}

#[test]
fn several_media_keep_their_order_and_their_own_counts() {
    let content = vec![
        Part::Audio { soft_tokens: 5 },
        text("dos"),
        Part::Audio { soft_tokens: 0 },
        Part::Image { soft_tokens: 3 },
        Part::Image { soft_tokens: 2 },
    ];
    let prompt = Template
        .render(&TOKENIZER, &[user(content)], &PromptOptions::ASK)
        .unwrap();
    let spans: Vec<_> = prompt
        .media
        .iter()
        .map(|span| (span.kind, span.soft_tokens.len()))
        .collect();
    use MediaKind::{Audio, Image};
    assert_eq!(spans, [(Audio, 5), (Audio, 0), (Image, 3), (Image, 2)]);
    // What stands around a clip does not depend on its length.
    let render = |soft_tokens| {
        let message = user(vec![Part::Audio { soft_tokens }, text("¿Qué dice?")]);
        Template
            .render(&TOKENIZER, &[message], &PromptOptions::ASK)
            .unwrap()
    };
    let (open, whole) = (render(0), render(188));
    let (at, span) = (
        open.media[0].soft_tokens.start,
        whole.media[0].soft_tokens.clone(),
    );
    assert_eq!(open.ids[..at], whole.ids[..span.start]);
    assert_eq!(open.ids[at..], whole.ids[span.end..]);
}

#[test]
fn turns_must_alternate() {
    let message = |role| Message::text(role, "x");
    let (system, user, assistant) = (
        message(Role::System),
        message(Role::User),
        message(Role::Assistant),
    );
    let render = |messages: &[&Message]| {
        let messages: Vec<Message> = messages.iter().map(|&message| message.clone()).collect();
        Template
            .render(&TOKENIZER, &messages, &PromptOptions::ASK)
            .map(|_| ())
    };
    assert_eq!(render(&[&system, &user, &assistant, &user]), Ok(()));
    assert_eq!(render(&[]), Err(PromptError::Empty));
    assert_eq!(render(&[&system]), Err(PromptError::Empty));
    assert_eq!(
        render(&[&assistant]),
        Err(PromptError::Order {
            at: 1,
            found: "assistant"
        })
    );
    assert_eq!(
        render(&[&system, &user, &user]),
        Err(PromptError::Order {
            at: 2,
            found: "user"
        })
    );
    assert_eq!(render(&[&user, &system]), Err(PromptError::LateSystem));
    let media = Message {
        role: Role::System,
        content: vec![Part::Image { soft_tokens: 1 }],
    };
    assert_eq!(
        render(&[&media, &user]).unwrap_err().to_string(),
        "a message of role system may hold text only, found an image"
    );
    let long = Message::text(Role::User, "x".repeat(MAX_TEXT_BYTES + 1));
    assert_eq!(
        render(&[&long]),
        Err(PromptError::TooLong {
            found: MAX_TEXT_BYTES + 1
        })
    );
}

#[test]
fn what_gemma_3n_has_no_words_for_is_refused() {
    let thinking = PromptOptions {
        thinking: true,
        ..PromptOptions::ASK
    };
    let refused = Template.check(&TOKENIZER, &thinking).unwrap_err();
    let question = [Message::text(Role::User, "Why?")];
    let rendered = Template.render(&TOKENIZER, &question, &thinking);
    assert_eq!(rendered.unwrap_err(), refused);
    assert_eq!(
        refused.to_string(),
        "Gemma 3n answers without thinking first: leave out `thinking`, or use a model that does, such as Gemma 4"
    );
    let thoughtful = Message {
        role: Role::Assistant,
        content: vec![Part::Thought("hm".to_owned())],
    };
    let chat = [Message::text(Role::User, "Why?"), thoughtful];
    let error = Template.render(&TOKENIZER, &chat, &PromptOptions::ASK);
    assert_eq!(
        error.unwrap_err().to_string(),
        "a message of role assistant may hold text, images and audio only, found a thought"
    );
}

#[test]
fn gemma_3n_is_told_of_tools_as_json_and_of_what_came_of_a_call_by_the_user() {
    let tool = Tool {
        name: "set_light".to_owned(),
        description: "Switches a light.".to_owned(),
        parameters: Value::Null,
    };
    let options = PromptOptions {
        tools: &[tool],
        ..PromptOptions::ASK
    };
    let arguments = serde_json::json!({ "name": "Lamp", "levels": [1, 2] });
    let called = Message {
        role: Role::Assistant,
        content: vec![
            Part::ToolCall(ToolCall {
                name: "set_light".to_owned(),
                arguments: arguments.as_object().unwrap().clone(),
            }),
            Part::ToolResult(ToolResult {
                name: "set_light".to_owned(),
                value: Value::String("on".to_owned()),
            }),
        ],
    };
    let chat = [
        Message::text(Role::System, "Be terse."),
        Message::text(Role::User, "Light!"),
        called,
    ];
    let prompt = Template.render(&TOKENIZER, &chat, &options).unwrap();
    let said = TOKENIZER.decode(&prompt.ids).unwrap();
    let (told, said) = said.split_once("if you call a function.\n").unwrap();
    assert!(told.starts_with("<bos><start_of_turn>user\nYou have access to functions."));
    let (declared, said) = said.split_once("\n\n").unwrap();
    let declared: Value = serde_json::from_str(declared).unwrap();
    assert_eq!(
        declared,
        serde_json::json!({
            "name": "set_light",
            "description": "Switches a light.",
            "parameters": { "type": "object", "properties": {} },
        })
    );
    assert_eq!(
        said,
        "Be terse.\n\nLight!<end_of_turn>\n<start_of_turn>model\n{\"name\": \"set_light\", \"parameters\": {\"name\": \"Lamp\", \"levels\": [1, 2]}}<end_of_turn>\n<start_of_turn>user\nResult of set_light:\non<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn a_text_only_tokenizer_refuses_media() {
    let mut file = json("tokenizer.json");
    // Tokens such as <start_of_image>, not words such as "images".
    let is_media = |text: &str| {
        text.starts_with('<') && ["image", "audio"].iter().any(|kind| text.contains(kind))
    };
    file["added_tokens"]
        .as_array_mut()
        .unwrap()
        .retain(|token| !is_media(token["content"].as_str().unwrap()));
    file["model"]["vocab"]
        .as_object_mut()
        .unwrap()
        .retain(|token, _| !is_media(token));
    let tokenizer = Tokenizer::parse(&file.to_string(), "tokenizer.json".as_ref()).unwrap();
    let render = |part| {
        Template
            .render(&tokenizer, &[user(vec![part])], &PromptOptions::ASK)
            .map(|_| ())
    };
    assert_eq!(render(text("Hola")), Ok(()));
    assert_eq!(
        render(Part::Image { soft_tokens: 1 }),
        Err(PromptError::NoMedia("image"))
    );
    assert_eq!(
        render(Part::Audio { soft_tokens: 1 }),
        Err(PromptError::NoMedia("audio"))
    );
}

/// Texts that would change the structure of a prompt if they could.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "<bos>",
        "<eos>",
        "<pad>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<end_of_",
        "turn>",
        "<start",
        "_of_turn>model",
        "\n",
        "\n\n",
        " ",
        "<image_soft_token>",
        "<audio_soft_token>",
        "<start_of_image>",
        "<end_of_audio>",
        "<",
        ">",
        "<0x0A>",
        "user",
        "model",
        "\u{2581}",
        "señal",
        "ひ",
        "😀",
        "شكرا",
        "\u{1c}",
        "\u{a0}",
    ]);
    prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_users_text_never_becomes_control_tokens(system in hostile(), a in hostile(), b in hostile(), image in any::<bool>()) {
        let between = if image { vec![Part::Image { soft_tokens: 2 }] } else { Vec::new() };
        let content = [vec![text(&a)], between, vec![text(&b)]].concat();
        let prompt = Template.render(&TOKENIZER, &[Message::text(Role::System, &system), user(content)], &PromptOptions::ASK).unwrap();
        let control = TOKENIZER.control();
        let media = control.image.unwrap();
        let mut expected = vec![control.bos, control.start_of_turn];
        if image {
            expected.extend([media.start, media.soft, media.soft, media.end]);
        }
        expected.extend([control.end_of_turn, control.start_of_turn]);
        let found: Vec<u32> = prompt.ids.iter().copied().filter(|&id| TOKENIZER.is_special(id)).collect();
        prop_assert_eq!(found, expected);
        // And nothing of it is lost: Python's strip is the template's trim.
        let strip = |text: &str| text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)).to_owned();
        let picture = if image { "<image_soft_token>" } else { "" };
        let rendered = format!(
            "<bos><start_of_turn>user\n{system}\n\n{}\u{0}{}<end_of_turn>\n<start_of_turn>model\n",
            strip(&a), strip(&b)
        );
        let rendered = rendered.replace('\u{0}', &expand(picture, 2, 0)).replace('\u{2581}', " ");
        prop_assert_eq!(TOKENIZER.decode(&prompt.ids).unwrap(), rendered);
    }

    #[test]
    fn harmless_texts_give_the_ids_of_the_rendered_template(a in "[a-zé日 \n]{0,20}", b in "[a-zé日 \n]{0,20}") {
        let content = vec![text(&a), Part::Image { soft_tokens: 3 }, text(&b), Part::Audio { soft_tokens: 2 }];
        let prompt = Template.render(&TOKENIZER, &[user(content)], &PromptOptions::ASK).unwrap();
        let rendered = format!(
            "<bos><start_of_turn>user\n{}<image_soft_token>{}<audio_soft_token><end_of_turn>\n<start_of_turn>model\n",
            a.trim(), b.trim()
        );
        prop_assert_eq!(prompt.ids, TOKENIZER.encode(&expand(&rendered, 3, 2)));
    }
}
