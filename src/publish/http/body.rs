//! Requests as bytes and as JSON: bounded each, together, and in time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Multipart;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::fault::Fault;

/// What a body holds of the memory that all share, KiB at a time.
const STEP_KIB: u32 = 64;

/// A request's bytes, and the room that they take while they are there.
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    room: Vec<OwnedSemaphorePermit>,
}

/// Takes bytes in, within all bounds.
struct Reader<'s> {
    shared: &'s Shared,
    limit: usize,
    key: &'static str,
    until: Instant,
    room: Vec<OwnedSemaphorePermit>,
    held: usize,
    taken: usize,
}

impl<'s> Reader<'s> {
    fn new(shared: &'s Shared, limit: usize, key: &'static str) -> Reader<'s> {
        Reader {
            shared,
            limit,
            key,
            until: Instant::now() + shared.patience(),
            room: Vec::new(),
            held: 0,
            taken: 0,
        }
    }

    fn too_late(&self) -> Fault {
        let message = format!(
            "the request did not come within http.patience_s, {} s",
            self.shared.options.patience_s
        );
        Fault::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// All of a stream, at the end of `bytes`.
    async fn read<E: std::fmt::Display>(
        &mut self,
        stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        loop {
            let next = timeout_at(self.until, stream.next()).await;
            let Some(chunk) = next.map_err(|_| self.too_late())? else {
                return Ok(());
            };
            let chunk = chunk.map_err(|error| {
                Fault::invalid(
                    "",
                    format!("the request was cut off or is malformed: {error}"),
                )
            })?;
            self.make_room(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
    }

    fn make_room(&mut self, more: usize) -> Result<(), Fault> {
        self.taken += more;
        if self.taken > self.limit {
            let message = format!(
                "the request has more than {} bytes, which {} allows",
                self.limit, self.key
            );
            return Err(Fault::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                message,
            ));
        }
        while self.held < self.taken {
            let permit = Arc::clone(&self.shared.bodies).try_acquire_many_owned(STEP_KIB);
            self.room.push(permit.map_err(|_| {
                Fault::busy(
                    "too many large requests come at once (http.max_bodies_mib): ask again later",
                )
            })?);
            self.held += (STEP_KIB << 10) as usize;
        }
        Ok(())
    }
}

/// Reads a body of up to `http.max_body_bytes`.
pub(super) async fn bytes(shared: &Shared, body: Body) -> Result<Read, Fault> {
    let mut reader = Reader::new(shared, shared.options.max_body_bytes, "http.max_body_bytes");
    let mut bytes = Vec::new();
    reader
        .read(&mut body.into_data_stream(), &mut bytes)
        .await?;
    Ok(Read {
        bytes,
        room: reader.room,
    })
}

/// Reads JSON, whatever type the client says that it is. The room that it takes is held as long as what is returned beside it.
pub(super) async fn json<T: DeserializeOwned>(
    shared: &Shared,
    body: Body,
) -> Result<(T, Room), Fault> {
    let read = bytes(shared, body).await?;
    // A list would be taken for the values of the keys, in their order.
    if !read.bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Fault::invalid("", "the request is no JSON object"));
    }
    if values(&read.bytes) > MAX_VALUES {
        let message = format!("the request has more than {MAX_VALUES} values");
        return Err(Fault::invalid("", message));
    }
    let mut json = serde_json::Deserializer::from_slice(&read.bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        Fault::invalid(&path, format!("{place}{}", error.inner()))
    })?;
    json.end()
        .map_err(|error| Fault::invalid("", format!("something follows the JSON: {error}")))?;
    Ok((value, Room(read.room)))
}

/// Values of a request at most: each takes far more memory than its text, and a schema or a list of tools has some thousands.
const MAX_VALUES: usize = 100_000;

/// How many values JSON has at most: one, and one behind each comma, bracket and brace.
fn values(json: &[u8]) -> usize {
    let (mut found, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => found += 1,
            _ => {}
        }
    }
    found
}

/// Memory that a request takes.
pub(super) struct Room(
    #[allow(dead_code, reason = "held until it is dropped")] Vec<OwnedSemaphorePermit>,
);

/// A part of a form.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Reads a form of up to `http.max_audio_bytes`.
pub(super) async fn form(
    shared: &Shared,
    mut form: Multipart,
) -> Result<(Vec<Field>, Room), Fault> {
    /// More than any client sends.
    const MAX_FIELDS: usize = 64;
    let mut reader = Reader::new(
        shared,
        shared.options.max_audio_bytes,
        "http.max_audio_bytes",
    );
    let mut fields = Vec::new();
    loop {
        let next = timeout_at(reader.until, form.next_field()).await;
        let next = next.map_err(|_| reader.too_late())?;
        let malformed = |error: axum::extract::multipart::MultipartError| {
            Fault::invalid("", format!("the form is malformed: {}", error.body_text()))
        };
        let Some(mut field) = next.map_err(malformed)? else {
            return Ok((fields, Room(reader.room)));
        };
        if fields.len() == MAX_FIELDS {
            return Err(Fault::invalid(
                "",
                format!("the form has more than {MAX_FIELDS} fields"),
            ));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        reader.read(&mut field, &mut bytes).await?;
        fields.push(Field { name, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, found) in [
            ("7", 1),
            ("[]", 2),
            ("[1,2,[3]]", 5),
            ("{\"a\":\"[,{\\\",[\",\"b\":1}", 3),
        ] {
            assert_eq!(values(json.as_bytes()), found, "{json}");
        }
    }
}
