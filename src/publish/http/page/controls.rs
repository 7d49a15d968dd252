//! What the page's buttons do.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::state::Shown;
use crate::guard::harmless::short;
use crate::publish::http::answer::{ask, json as answered, timing};
use crate::publish::http::fault::Fault;
use crate::publish::http::key::COOKIE_NAME;
use crate::publish::http::{Shared, body};
use crate::report::{Describe, Name, Payload, Picture, Switch, Wish};

/// How long a browser stays known, seconds: a year.
const COOKIE_S: u32 = 365 * 24 * 3600;

#[derive(Deserialize)]
struct Login {
    key: String,
}

/// The key, once: then the browser has a cookie that scripts cannot read and other web sites cannot use.
pub(super) async fn login(
    State(shared): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, Fault> {
    let (login, _room) = body::json::<Login>(&shared, body).await?;
    let Some(key) = &shared.key else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    if !key.is(login.key.trim().as_bytes()) {
        return Err(Fault::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "the key is wrong",
        ));
    }
    let secure = if shared.options.has_tls() {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{COOKIE_NAME}={}; Path=/; Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict{secure}",
        key.session()
    );
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// The browser forgets it.
pub(super) async fn logout() -> Response {
    let cookie = format!("{COOKIE_NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

fn name(key: &str, id: String) -> Result<Name, Fault> {
    Name::new(key, id).map_err(|error| Fault::from(&error))
}

fn unknown(action: &str, known: &str) -> Fault {
    let message = format!("there is no button {:?}; there is {known}", short(action));
    Fault::new(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) async fn microphone(
    State(shared): State<Arc<Shared>>,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let id = name("microphone", id)?;
    let payload = match action.as_str() {
        "mute" => Payload::Set(Switch::Mute { id, muted: true }),
        "unmute" => Payload::Set(Switch::Mute { id, muted: false }),
        "press" => Payload::Listen { id },
        other => return Err(unknown(other, "mute, unmute, press")),
    };
    ask(&shared, payload)?.whole().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn camera(
    State(shared): State<Arc<Shared>>,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let id = name("camera", id)?;
    let payload = match action.as_str() {
        "enable" => Payload::Set(Switch::Enable { id, enabled: true }),
        "disable" => Payload::Set(Switch::Enable { id, enabled: false }),
        "captions-on" => Payload::Set(Switch::Captions { id, enabled: true }),
        "captions-off" => Payload::Set(Switch::Captions { id, enabled: false }),
        "describe" => Payload::Describe(Describe {
            picture: Picture::Camera(id),
            wish: Wish::default(),
            timeout_ms: None,
        }),
        other => {
            return Err(unknown(
                other,
                "enable, disable, captions-on, captions-off, describe",
            ));
        }
    };
    let reply = ask(&shared, payload)?.whole().await?;
    Ok(match &reply.text {
        Some(text) => answered(&json!({ "text": text, "timing": timing(&reply) })),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The last picture that was described and may be shown; its tag is the `image_sha256` of the event that told of it.
pub(super) async fn picture(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let picture = shared.page.picture(&id).ok_or_else(|| {
        let message = format!(
            "there is no picture of camera {:?} yet, or its publish_image is false",
            short(&id)
        );
        Fault::new(StatusCode::NOT_FOUND, "not_found", message)
    })?;
    let Shown { sha256, picture } = picture;
    let kind = match picture.starts_with(b"\x89PNG") {
        true => "image/png",
        false => "image/jpeg",
    };
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (ETAG, format!("\"{sha256}\"")),
    ];
    Ok((headers, picture.to_vec()).into_response())
}
