//! What the model is, and the one that can be pulled: the one that is there.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::publish::http::answer::json as answered;
use crate::publish::http::fault::Fault;
use crate::publish::http::{Shared, body, names};
use crate::report::ModelCard;

/// What names a model; older clients say `name`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    model: Option<String>,
    name: Option<String>,
    stream: Option<bool>,
}

impl Named {
    fn chosen(&self, shared: &Shared) -> Result<names::Chosen, Fault> {
        let named = self.model.as_deref().filter(|name| !name.is_empty());
        let named = named
            .or(self.name.as_deref())
            .filter(|name| !name.is_empty());
        let Some(named) = named else {
            return Err(Fault::invalid("model", "model is missing"));
        };
        names::choose(&shared.card, &shared.options, Some(named))
    }
}

/// As Ollama writes times.
pub(super) fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .unwrap_or_default()
        .to_string()
}

/// What people call the number of parameters: 5.1B.
fn size(parameters: u64) -> String {
    match parameters as f64 {
        few if few < 1e6 => format!("{:.1}K", few / 1e3),
        few if few < 1e9 => format!("{:.1}M", few / 1e6),
        many => format!("{:.1}B", many / 1e9),
    }
}

fn details(card: &ModelCard) -> Value {
    json!({
        "parent_model": "",
        "format": "safetensors",
        "family": card.architecture(),
        "families": [card.architecture()],
        "parameter_size": size(card.parameters),
        "quantization_level": card.quantisation,
        "context_length": card.context,
    })
}

/// What it can do, and nothing else: clients believe it.
fn capabilities(card: &ModelCard) -> Vec<&'static str> {
    let all = [
        ("completion", true),
        ("vision", card.sees),
        ("audio", card.hears),
        ("tools", card.calls),
        ("thinking", card.thinks.can()),
    ];
    all.iter()
        .filter(|(_, can)| *can)
        .map(|(name, _)| *name)
        .collect()
}

pub(super) async fn tags(State(shared): State<Arc<Shared>>) -> Response {
    let card = &shared.card;
    let modified = time(card.modified.unwrap_or(SystemTime::UNIX_EPOCH));
    let aliases = shared
        .options
        .aliases
        .iter()
        .map(|alias| match alias.contains(':') {
            true => alias.clone(),
            false => format!("{alias}:latest"),
        });
    let models = names::tagged(card).into_iter().chain(aliases).map(|name| {
        json!({
            "name": name,
            "model": name,
            "modified_at": modified,
            "size": card.bytes,
            "digest": card.digest,
            "details": details(card),
            "capabilities": capabilities(card),
        })
    });
    answered(&json!({ "models": models.collect::<Vec<_>>() }))
}

pub(super) async fn ps(State(shared): State<Arc<Shared>>) -> Response {
    /// It is never unloaded.
    const FAR: &str = "2318-01-01T00:00:00Z";
    let card = &shared.card;
    let name = format!("{}:latest", card.name);
    answered(&json!({ "models": [{
        "name": name,
        "model": name,
        "size": card.bytes,
        "size_vram": 0,
        "digest": card.digest,
        "details": details(card),
        "expires_at": FAR,
        "context_length": card.context,
    }]}))
}

pub(super) async fn show(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Fault> {
    let (named, _room) = body::json::<Named>(&shared, body).await?;
    named.chosen(&shared)?;
    let card = &shared.card;
    let architecture = card.architecture();
    let info = [
        ("general.architecture".to_owned(), json!(architecture)),
        ("general.basename".to_owned(), json!(card.name)),
        ("general.parameter_count".to_owned(), json!(card.parameters)),
        (
            format!("{architecture}.context_length"),
            json!(card.context),
        ),
        (
            format!("{architecture}.embedding_length"),
            json!(card.width),
        ),
        (format!("{architecture}.block_count"), json!(card.layers)),
        (format!("{architecture}.vocab_size"), json!(card.vocabulary)),
    ];
    Ok(answered(&json!({
        "license": "",
        "modelfile": format!("FROM {}\n", card.name),
        "parameters": format!("num_ctx {}", card.context),
        "template": card.template,
        "details": details(card),
        "model_info": serde_json::Map::from_iter(info),
        "capabilities": capabilities(card),
        "modified_at": time(card.modified.unwrap_or(SystemTime::UNIX_EPOCH)),
    })))
}

pub(super) async fn pull(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Fault> {
    let (named, _room) = body::json::<Named>(&shared, body).await?;
    named.chosen(&shared).map_err(|fault| match fault.status {
        StatusCode::NOT_FOUND => Fault {
            message: format!(
                "{}; others are pulled on the board: gemmad pull",
                fault.message
            ),
            ..fault
        },
        _ => fault,
    })?;
    let done = json!({ "status": "success" });
    Ok(match named.stream {
        Some(false) => answered(&done),
        _ => (
            [(CONTENT_TYPE, "application/x-ndjson")],
            format!("{done}\n"),
        )
            .into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_say_them() {
        assert_eq!(size(5_123_178_979), "5.1B");
        assert_eq!(size(270_000_000), "270.0M");
        assert_eq!(size(1234), "1.2K");
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
