//! Why something is refused: a status, a code for programs, and words for people, in the shape that the client's protocol gives errors.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::report::{ErrorBody, ErrorCode};

/// Seconds after which somebody who was refused for want of room may ask again.
const RETRY_AFTER_S: &str = "2";

/// Which protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Ollama's.
    Ollama,
}

impl Dialect {
    /// That of a path.
    pub(super) fn of(path: &str) -> Dialect {
        if path == "/api" || path.starts_with("/api/") {
            Dialect::Ollama
        } else {
            Dialect::OpenAi
        }
    }
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    /// For programs.
    pub(super) code: &'static str,
    /// What, where, and how to mend it.
    pub(super) message: String,
    /// The key of the request that it is about.
    pub(super) param: Option<String>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Fault {
        Fault {
            status,
            code,
            message: message.into(),
            param: None,
        }
    }

    /// A request that cannot be understood; `param` is the key that it is about.
    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Fault {
        Fault {
            param: (!param.is_empty()).then(|| param.to_owned()),
            ..Fault::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }

    /// No such model.
    pub(super) fn no_model(asked: &str, known: &[String]) -> Fault {
        let asked = crate::guard::harmless::short(asked);
        let message = format!("there is no model {asked:?}; there is {}", known.join(", "));
        Fault {
            param: Some("model".to_owned()),
            ..Fault::new(StatusCode::NOT_FOUND, "model_not_found", message)
        }
    }

    /// Too much waits.
    pub(super) fn busy(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
    }

    /// As the client's protocol has it.
    pub(super) fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::Ollama => json!({ "error": self.message }),
            Dialect::OpenAi => json!({ "error": {
                "message": self.message,
                "type": self.kind(),
                "param": self.param,
                "code": self.code,
            }}),
        }
    }

    /// The class of errors, as OpenAI names them.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn response(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, self.body(dialect).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<&ErrorBody> for Fault {
    fn from(error: &ErrorBody) -> Fault {
        let (status, code) = match error.code {
            ErrorCode::Invalid => (StatusCode::BAD_REQUEST, "invalid_value"),
            ErrorCode::TooLarge => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
            ErrorCode::InvalidAudio => (StatusCode::BAD_REQUEST, "invalid_audio"),
            ErrorCode::InvalidImage => (StatusCode::BAD_REQUEST, "invalid_image"),
            ErrorCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorCode::NotPermitted => (StatusCode::FORBIDDEN, "not_permitted"),
            ErrorCode::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            ErrorCode::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            ErrorCode::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            ErrorCode::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "cancelled"),
            ErrorCode::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            ErrorCode::Poison => (StatusCode::INTERNAL_SERVER_ERROR, "poison"),
        };
        Fault::new(status, code, error.message.clone())
    }
}

/// The fault goes along with the response, until [`shaped`] knows whose it is.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.response(Dialect::OpenAi);
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error the shape of the client's protocol: faults of our own, and refusals of the library.
pub(super) async fn shaped(request: Request<Body>, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if let Some(fault) = response.extensions().get::<Fault>() {
        return fault.response(dialect);
    }
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let path = crate::guard::harmless::short(&path);
    let message = match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} cannot be asked with {method}"),
        status => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    let mut shaped = Fault::new(status, "invalid_request", message).response(dialect);
    if let Some(allow) = response.headers().get("allow") {
        shaped.headers_mut().insert("allow", allow.clone());
    }
    shaped
}
