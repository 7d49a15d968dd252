//! OpenAI's protocol, as its clients and llama.cpp's speak it.

mod audio;
mod chat;
mod languages;
mod messages;
mod responses;
mod responses_stream;
mod subtitles;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::Shared;
use super::answer::{json as answered, unix};
use super::fault::Fault;
use super::names;

pub(super) use chat::{Stop, max_tokens, seed, thinks, top_k};
pub(super) use messages::check as check_messages;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/props", get(props))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/audio/transcriptions", post(audio::transcribe))
        .route("/v1/audio/translations", post(audio::translate))
        .route("/v1/embeddings", post(embeddings))
        // Bodies have bounds of their own.
        .layer(DefaultBodyLimit::disable())
}

/// What the program is, to tell runs apart whose answers may differ.
fn fingerprint(shared: &Shared) -> String {
    let digest = shared.card.digest.get(..8).unwrap_or_default();
    format!("gemmad-{}-{digest}", env!("CARGO_PKG_VERSION"))
}

async fn health() -> Response {
    answered(&json!({ "status": "ok" }))
}

async fn embeddings() -> Fault {
    Fault::new(
        StatusCode::NOT_IMPLEMENTED,
        "not_supported",
        "Gemma 3n and Gemma 4 answer, and give no embeddings: use a model that was trained for them, such as EmbeddingGemma, with another server",
    )
}

fn entry(shared: &Shared, id: &str, aliases: &[String]) -> Value {
    let card = &shared.card;
    let modalities = [("text", true), ("image", card.sees), ("audio", card.hears)];
    let modalities = modalities
        .iter()
        .filter(|(_, can)| *can)
        .map(|(name, _)| *name);
    json!({
        "id": id,
        "object": "model",
        "created": card.modified.map_or(0, unix),
        "owned_by": "gemmad",
        "max_model_len": card.context,
        "aliases": aliases,
        "architecture": {
            "input_modalities": modalities.collect::<Vec<_>>(),
            "output_modalities": ["text"],
        },
        "meta": {
            "n_ctx": card.context,
            "n_params": card.parameters,
            "n_vocab": card.vocabulary,
            "n_embd": card.width,
            "size": card.bytes,
        },
    })
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let names = names::all(&shared.card);
    let entries = names.iter().enumerate().map(|(at, name)| {
        let aliases = if at == 0 {
            &shared.options.aliases[..]
        } else {
            &[]
        };
        entry(&shared, name, aliases)
    });
    answered(&json!({ "object": "list", "data": entries.collect::<Vec<_>>() }))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let chosen = names::choose(&shared.card, &shared.options, Some(&id))?;
    Ok(answered(&entry(
        &shared,
        &chosen.name,
        &shared.options.aliases,
    )))
}

async fn props(State(shared): State<Arc<Shared>>) -> Response {
    let card = &shared.card;
    answered(&json!({
        "default_generation_settings": { "n_ctx": card.context },
        "total_slots": 1,
        "model_alias": card.name,
        "model_path": card.name,
        "modalities": { "vision": card.sees, "audio": card.hears },
        "media_marker": "<__media__>",
        "chat_template": card.template,
        "chat_template_caps": {
            "supports_tools": card.calls,
            "supports_tool_calls": card.calls,
            "supports_parallel_tool_calls": card.calls,
            "supports_system_role": true,
        },
        "build_info": format!("gemmad {}", env!("CARGO_PKG_VERSION")),
    }))
}
