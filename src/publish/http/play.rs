//! `POST /v1/audio/play`, `/v1/audio/ask` and `/v1/audio/stop`: what the board says, what it is asked to say the answer to, and that it
//! be silent.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{ask, json as answered, timing};
use super::body;
use super::fault::Fault;
use crate::report::{Ask, AskFields, Attachment, Payload, Say, SayFields};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/audio/play", post(play))
        .route("/v1/audio/ask", post(answer_aloud))
        .route("/v1/audio/stop", post(stop))
        // Bodies have bounds of their own.
        .layer(DefaultBodyLimit::disable())
}

/// A JSON object, or the bytes of an audio file whose type says so; answered once it has been heard.
async fn play(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |it| it.as_bytes());
    let is_file = kind.starts_with(b"audio/") || kind == b"application/octet-stream";
    let fields = match is_file {
        true => SayFields {
            audio: Some(Attachment(body::bytes(&shared, body).await?.bytes.into())),
            ..SayFields::default()
        },
        false => body::json(&shared, body).await?.0,
    };
    let say = Say::try_from(fields).map_err(|error| Fault::from(&error))?;
    let reply = ask(&shared, Payload::Say(say))?.whole().await?;
    Ok(answered(&Value::Object(reply.details)))
}

/// A question, as over MQTT; its answer is said while it comes, and told once it is whole.
async fn answer_aloud(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Fault> {
    let (fields, _room) = body::json::<AskFields>(&shared, body).await?;
    let asked = Ask::try_from(AskFields {
        speak: true,
        ..fields
    });
    let asked = asked.map_err(|error| Fault::from(&error))?;
    let reply = ask(&shared, Payload::Ask(asked))?.whole().await?;
    let told = json!({ "text": reply.text, "timing": timing(&reply) });
    Ok(answered(&told))
}

async fn stop(State(shared): State<Arc<Shared>>) -> Result<Response, Fault> {
    ask(&shared, Payload::Silence)?.whole().await?;
    Ok(answered(&json!({})))
}
