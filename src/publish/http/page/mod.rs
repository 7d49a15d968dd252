//! The page: three files in the program, and what they ask and hear.
//!
//! | part | what |
//! | --- | --- |
//! | `files` | the page itself |
//! | `events` | what happens, as it happens |
//! | `state` | how everything is, for a page that has just been opened |
//! | `controls` | buttons |

mod controls;
mod events;
mod files;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{get, post};

use super::Shared;

pub(super) use state::State;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(files::index))
        .route("/page.js", get(files::script))
        .route("/page.css", get(files::style))
        .route("/events", get(events::events))
        .route("/page/state", get(state::state))
        .route("/page/login", post(controls::login))
        .route("/page/logout", post(controls::logout))
        .route(
            "/page/microphones/{id}/{action}",
            post(controls::microphone),
        )
        .route("/page/cameras/{id}/{action}", post(controls::camera))
        .route("/page/cameras/{id}/picture", get(controls::picture))
}

/// What is answered without a key: that somebody is there, and the page that asks for it.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/" | "/page.js" | "/page.css" | "/health" | "/v1/health" => reads,
        "/page/login" => *method == Method::POST,
        _ => false,
    }
}
