//! Ollama's protocol.

mod chat;
mod model;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get, post};
use serde_json::json;

use super::Shared;
use super::answer::json as answered;
use super::fault::Fault;

/// What Ollama's clients know this protocol by: its newest version that is spoken here. Some ask for a least one.
const PROTOCOL_VERSION: &str = "0.12.0";

pub(super) fn routes() -> Router<Arc<Shared>> {
    let mut routes = Router::new()
        .route("/api/version", get(version))
        .route("/api/tags", get(model::tags))
        .route("/api/ps", get(model::ps))
        .route("/api/show", post(model::show))
        .route("/api/pull", post(model::pull))
        .route("/api/chat", post(chat::chat))
        .route("/api/generate", post(chat::generate))
        .route("/api/embed", any(embeddings))
        .route("/api/embeddings", any(embeddings));
    for path in ["create", "copy", "push", "delete", "blobs/{digest}"] {
        routes = routes.route(&format!("/api/{path}"), any(unmanaged));
    }
    routes.layer(DefaultBodyLimit::disable())
}

async fn version() -> Response {
    answered(&json!({ "version": PROTOCOL_VERSION }))
}

async fn unmanaged() -> Fault {
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "not_allowed",
        "models are not managed over HTTP: use `gemmad pull` and `gemmad models` on the board",
    )
}

async fn embeddings() -> Fault {
    Fault::new(
        StatusCode::NOT_IMPLEMENTED,
        "not_supported",
        "Gemma 3n and Gemma 4 answer, and give no embeddings: use a model that was trained for them, such as EmbeddingGemma, with another server",
    )
}
