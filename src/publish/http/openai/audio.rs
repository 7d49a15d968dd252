//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`.

use std::sync::Arc;

use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::languages;
use super::subtitles::{self, Segment};
use crate::guard::harmless::short;
use crate::publish::http::Shared;
use crate::publish::http::answer::{
    Script, ask, detail, event, json as answered, streamed, timing,
};
use crate::publish::http::body::{self, Field};
use crate::publish::http::fault::{Dialect, Fault};
use crate::publish::http::names::{self, Chosen};
use crate::report::{Attachment, Name, Payload, Reply, Transcribe};

/// How the text is written.
#[derive(Clone, Copy)]
enum Format {
    Json,
    Text,
    VerboseJson,
    Srt,
    Vtt,
}

impl Format {
    fn of(name: &str) -> Result<Format, Fault> {
        Ok(match name {
            "" | "json" => Format::Json,
            "text" => Format::Text,
            "verbose_json" => Format::VerboseJson,
            "srt" => Format::Srt,
            "vtt" => Format::Vtt,
            other => {
                let message = format!(
                    "response_format is {:?}; it is one of json, text, verbose_json, srt, vtt",
                    short(other)
                );
                return Err(Fault::invalid("response_format", message));
            }
        })
    }
}

/// What a form asks.
struct Asked {
    sound: Attachment,
    chosen: Chosen,
    language: Name,
    format: Format,
    stream: bool,
}

fn text(field: Field) -> Result<String, Fault> {
    let name = field.name;
    String::from_utf8(field.bytes)
        .map_err(|_| Fault::invalid(&name, format!("{:?} is not UTF-8", short(&name))))
}

/// A format by its first bytes that no decoder here reads.
fn unread(bytes: &[u8]) -> Option<&'static str> {
    let opus = bytes.get(28..36) == Some(b"OpusHead");
    match bytes {
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("WebM"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("MP4"),
        [b'O', b'g', b'g', b'S', ..] if opus => Some("Opus"),
        _ => None,
    }
}

fn read(shared: &Shared, fields: Vec<Field>) -> Result<Asked, Fault> {
    let (mut sound, mut model, mut language) = (None, None, None);
    let (mut format, mut stream) = (Format::Json, false);
    for field in fields {
        match field.name.as_str() {
            "file" => sound = Some(field.bytes),
            "model" => model = Some(text(field)?),
            "language" => language = Some(text(field)?),
            "response_format" => format = Format::of(&text(field)?)?,
            "stream" => stream = matches!(text(field)?.as_str(), "true" | "True" | "1"),
            // A prompt and words that may occur help other models; temperature and stamps of words are theirs, too.
            _ => {}
        }
    }
    let sound = sound.ok_or_else(|| {
        Fault::invalid(
            "file",
            "file is missing: the form needs a field with the sound",
        )
    })?;
    if let Some(kind) = unread(&sound) {
        let message = format!(
            "file is {kind}, which is not read: send WAV, FLAC, Ogg Vorbis or MP3, as ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav makes it"
        );
        return Err(Fault {
            param: Some("file".to_owned()),
            ..Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_format",
                message,
            )
        });
    }
    Ok(Asked {
        sound: Attachment(sound.into()),
        chosen: names::choose(&shared.card, &shared.options, model.as_deref())?,
        language: languages::of(language.as_deref())?,
        format,
        stream,
    })
}

pub(super) async fn transcribe(
    State(shared): State<Arc<Shared>>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, Fault> {
    write_down(&shared, form, false).await
}

pub(super) async fn translate(
    State(shared): State<Arc<Shared>>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, Fault> {
    write_down(&shared, form, true).await
}

async fn write_down(
    shared: &Shared,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
    translated: bool,
) -> Result<Response, Fault> {
    let form = form.map_err(|error| {
        Fault::invalid(
            "",
            format!(
                "the request is no form (multipart/form-data): {}",
                error.body_text()
            ),
        )
    })?;
    let (fields, room) = body::form(shared, form).await?;
    let asked = read(shared, fields)?;
    if !shared.card.hears {
        let message = format!(
            "{} does not hear: its audio tower is not there",
            shared.card.name
        );
        return Err(Fault::invalid("model", message));
    }
    let english = || Name::new("language", "English".to_owned());
    let into = translated.then(english).transpose();
    let language = asked.language.to_string();
    let transcribe = Transcribe {
        audio: asked.sound,
        language: Some(asked.language),
        matformer: asked.chosen.matformer,
        max_tokens: None,
        timeout_ms: None,
        in_pieces: true,
        into: into.map_err(|error| Fault::from(&error))?,
    };
    let awaited = ask(shared, Payload::Transcribe(transcribe))?;
    drop(room);
    if asked.stream {
        return Ok(streamed(awaited.begun().await?, Events));
    }
    let reply = awaited.whole().await?;
    Ok(written(&reply, asked.format, &language, translated))
}

fn written(reply: &Reply, format: Format, language: &str, translated: bool) -> Response {
    let said = reply.text.as_deref().unwrap_or_default();
    let plain = |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
    match format {
        Format::Json => answered(&json!({ "text": said, "usage": usage(reply) })),
        Format::Text => plain("text/plain; charset=utf-8", format!("{said}\n")),
        Format::Srt => plain(
            "text/plain; charset=utf-8",
            subtitles::srt(&segments(reply)),
        ),
        Format::Vtt => plain("text/vtt; charset=utf-8", subtitles::vtt(&segments(reply))),
        Format::VerboseJson => {
            let segments = segments(reply);
            let segments = segments.iter().enumerate().map(|(id, segment)| {
                json!({
                    "id": id,
                    "seek": 0,
                    "start": segment.start_s,
                    "end": segment.end_s,
                    "text": segment.text,
                    "tokens": [],
                    "temperature": 0.0,
                    "avg_logprob": 0.0,
                    "compression_ratio": 1.0,
                    "no_speech_prob": if segment.speech { 0.0 } else { 1.0 },
                })
            });
            answered(&json!({
                "task": if translated { "translate" } else { "transcribe" },
                "language": language.to_lowercase(),
                "duration": detail(&reply.details, "duration_s"),
                "text": said,
                "segments": segments.collect::<Vec<_>>(),
                "usage": usage(reply),
            }))
        }
    }
}

fn usage(reply: &Reply) -> Value {
    let timing = timing(reply);
    json!({
        "type": "tokens",
        "input_tokens": timing.prompt_tokens,
        "output_tokens": timing.tokens,
        "total_tokens": timing.prompt_tokens + timing.tokens,
    })
}

fn segments(reply: &Reply) -> Vec<Segment> {
    let pieces = detail(&reply.details, "pieces").as_array();
    let number = |piece: &Value, key: &str| piece[key].as_f64().unwrap_or_default();
    let segment = |piece: &Value| Segment {
        start_s: number(piece, "start_s"),
        end_s: number(piece, "end_s"),
        text: piece["text"].as_str().unwrap_or_default().to_owned(),
        speech: piece["speech"] == true,
    };
    pieces.into_iter().flatten().map(segment).collect()
}

/// The text piece by piece, as events.
struct Events;

impl Script for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn begin(&mut self) -> String {
        String::new()
    }

    fn piece(&mut self, text: &str) -> String {
        event(&json!({ "type": "transcript.text.delta", "delta": text }))
    }

    fn idle(&mut self) -> String {
        ": keep-alive\n\n".to_owned()
    }

    fn end(&mut self, reply: &Reply, text: &str) -> String {
        event(&json!({ "type": "transcript.text.done", "text": text, "usage": usage(reply) }))
    }

    fn failed(&mut self, fault: &Fault) -> String {
        event(&fault.body(Dialect::OpenAi))
    }
}
