//! Events on the wire: a line of JSON, then the rest of its data as JSON, then bytes (sound).
//!
//! Source: the protocol's description in the repository of the Python package `wyoming`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};

/// Longest header, and longest data, bytes: both are read as JSON, which takes many times their size.
const TEXT_BYTES: usize = 65_536;
/// For how long a client that was let go may go on sending before its connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// Version of the protocol as it is spoken here, which every event says: that of the package `wyoming` which has it.
const VERSION: &str = "1.10.0";

/// A version of the protocol: its first two numbers, 0.0 where a client says none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    /// From here on, transcripts may come in pieces.
    pub(super) const STREAMS: Version = Version(1, 7);
    /// From here on, a sentence may be several intents.
    pub(super) const SEVERAL_INTENTS: Version = Version(1, 9);
    /// From here on, the service may say itself when speech is over.
    pub(super) const ENDS_SPEECH: Version = Version(1, 10);

    fn read(text: &str) -> Version {
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Version(next(), next())
    }
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Event {
    /// Such as `audio-chunk`.
    pub(super) kind: String,
    pub(super) data: Map<String, Value>,
    pub(super) payload: Vec<u8>,
    /// Of whoever sent it.
    pub(super) version: Version,
}

impl Event {
    pub(super) fn new(kind: &str, data: Value) -> Event {
        Event {
            kind: kind.to_owned(),
            data: match data {
                Value::Object(data) => data,
                _ => Map::new(),
            },
            payload: Vec::new(),
            version: Version::default(),
        }
    }

    /// A text of the data; nothing where there is none.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(Value::as_str)
    }

    /// A whole number of the data; some clients write 16000.0.
    ///
    /// # Errors
    /// There is none, in words.
    pub(super) fn number(&self, key: &str) -> Result<u64, String> {
        let value = self.data.get(key).unwrap_or(&Value::Null);
        whole_number(value).ok_or_else(|| format!("`{key}` is {value}; send a whole number"))
    }
}

/// A number without a fraction, however it is written: 16000 or 16000.0.
fn whole_number(value: &Value) -> Option<u64> {
    let float = |x: f64| (x >= 0.0 && x.fract() == 0.0 && x <= MAX_EXACT).then_some(x as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(float))
}

/// From here on, f64 has not every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A length of the header; absent or null for none.
fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => whole_number(&value)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("{value} is no length: send a whole number"))),
    }
}

/// The line before everything else.
#[derive(Deserialize, Serialize)]
struct Header {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Map<String, Value>>,
    #[serde(
        default,
        deserialize_with = "length",
        skip_serializing_if = "Option::is_none"
    )]
    data_length: Option<u64>,
    #[serde(
        default,
        deserialize_with = "length",
        skip_serializing_if = "Option::is_none"
    )]
    payload_length: Option<u64>,
}

/// What came is no event, or did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// It ended within an event.
    #[error("the connection ended within an event")]
    CutOff,
    /// Longer than is accepted.
    #[error("{what} of an event is longer than {limit} bytes")]
    TooLong { what: &'static str, limit: usize },
    /// More sound at once than is accepted.
    #[error(
        "the sound of an event is longer than wyoming.max_event_bytes, {length} of {limit} bytes: send it in smaller chunks, or raise that"
    )]
    TooMuchSound { length: u64, limit: usize },
    /// Not what the protocol says.
    #[error("{what} of an event is no JSON of its form: {error}")]
    NotJson {
        what: &'static str,
        error: serde_json::Error,
    },
}

/// The next event; `None` where the client has gone.
///
/// # Errors
/// The connection broke, or what came is no event, or its sound is longer than `limit` bytes, or its text than [`TEXT_BYTES`].
pub(super) async fn read(
    input: &mut (impl AsyncBufRead + Unpin),
    limit: usize,
) -> Result<Option<Event>, Fault> {
    let mut line = Vec::new();
    let most = TEXT_BYTES as u64 + 1;
    (&mut *input)
        .take(most)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(match line.len() > TEXT_BYTES {
            true => Fault::TooLong {
                what: "the header",
                limit: TEXT_BYTES,
            },
            false => Fault::CutOff,
        });
    }
    let not_json = |what| move |error| Fault::NotJson { what, error };
    let header: Header = serde_json::from_slice(&line).map_err(not_json("the header"))?;
    let mut data = header.data.unwrap_or_default();
    if let Some(length) = header.data_length.filter(|length| *length > 0) {
        if length > TEXT_BYTES as u64 {
            return Err(Fault::TooLong {
                what: "the data",
                limit: TEXT_BYTES,
            });
        }
        let bytes = part(input, length).await?;
        let more: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(not_json("the data"))?;
        data.extend(more);
    }
    let length = header.payload_length.unwrap_or(0);
    if length > limit as u64 {
        return Err(Fault::TooMuchSound { length, limit });
    }
    let payload = part(input, length).await?;
    Ok(Some(Event {
        kind: header.kind,
        data,
        payload,
        version: Version::read(header.version.as_deref().unwrap_or_default()),
    }))
}

/// Exactly `length` bytes; memory is taken as they come, not as they are promised.
async fn part(input: &mut (impl AsyncRead + Unpin), length: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    (&mut *input).take(length).read_to_end(&mut bytes).await?;
    if (bytes.len() as u64) < length {
        return Err(Fault::CutOff);
    }
    Ok(bytes)
}

/// Sends an event.
///
/// # Errors
/// The connection broke.
pub(super) async fn write(
    output: &mut (impl AsyncWrite + Unpin),
    event: &Event,
) -> Result<(), Fault> {
    let not_json = |error| Fault::NotJson {
        what: "the answer",
        error,
    };
    let data = match event.data.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&event.data).map_err(not_json)?,
    };
    let header = Header {
        kind: event.kind.clone(),
        version: Some(VERSION.to_owned()),
        data: None,
        data_length: (!data.is_empty()).then_some(data.len() as u64),
        payload_length: (!event.payload.is_empty()).then_some(event.payload.len() as u64),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(not_json)?;
    bytes.push(b'\n');
    bytes.extend(data);
    bytes.extend(&event.payload);
    output.write_all(&bytes).await?;
    output.flush().await?;
    Ok(())
}

/// Ends a connection so that its last words arrive: closed over what a client still sends, it would be reset, and what the client has
/// not read yet be lost. What comes is thrown away until the client closes, too, or [`LINGER`] is over.
pub(super) async fn let_go(
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) {
    let rest = async {
        output.shutdown().await?;
        tokio::io::copy(input, &mut tokio::io::sink()).await
    };
    tokio::time::timeout(LINGER, rest).await.ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(bytes: &[u8], limit: usize) -> Result<Vec<Event>, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut input = bytes;
            let mut events = Vec::new();
            while let Some(event) = read(&mut input, limit).await? {
                events.push(event);
            }
            Ok(events)
        })
    }

    #[test]
    fn data_stands_in_the_header_or_behind_it_and_sound_behind_that() {
        let bytes = b"{\"type\":\"ping\",\"data\":{\"text\":\"a\"}}\n\
            {\"type\":\"audio-chunk\",\"version\":\"1.5\",\"data\":{\"rate\":8000},\"data_length\":11,\"payload_length\":3}\n\
            {\"width\":2}\n\x00{{\"type\":\"audio-stop\",\"data_length\":0}\n";
        let events = read_all(bytes, 200).unwrap();
        assert_eq!(events[0], Event::new("ping", json!({"text": "a"})));
        let chunk = Event::new("audio-chunk", json!({"rate": 8000, "width": 2}));
        assert_eq!(
            events[1],
            Event {
                payload: b"\n\x00{".to_vec(),
                version: Version(1, 5),
                ..chunk
            }
        );
        assert_eq!(events[2..], [Event::new("audio-stop", json!({}))]);
    }

    #[test]
    fn what_is_no_event_is_told() {
        for (bytes, words) in [
            (&b"{\"type\":\"ping\""[..], "within an event"),
            (b"ping\n", "the header of an event is no JSON"),
            (b"{\"kind\":\"ping\"}\n", "missing field `type`"),
            (
                b"{\"type\":\"a\",\"data_length\":3}\n[1]",
                "the data of an event is no JSON",
            ),
            (
                b"{\"type\":\"a\",\"payload_length\":4}\nabc",
                "within an event",
            ),
            (
                b"{\"type\":\"a\",\"payload_length\":18446744073709551615}\nabc",
                "the sound of an event is longer",
            ),
            (
                b"{\"type\":\"a\",\"payload_length\":101}\n",
                "longer than wyoming.max_event_bytes, 101 of 100 bytes",
            ),
            (
                b"{\"type\":\"a\",\"data_length\":65537}\n",
                "the data of an event is longer than 65536",
            ),
            (
                b"{\"type\":\"a\",\"payload_length\":-5}\n",
                "-5 is no length: send a whole number",
            ),
            (
                b"{\"type\":\"a\",\"data_length\":1.5}\n",
                "1.5 is no length: send a whole number",
            ),
            (&[b'x'; 65_600], "the header of an event is longer"),
        ] {
            let error = read_all(bytes, 100).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let bytes = b"{\"type\":\"audio-chunk\",\"data_length\":34.0,\"payload_length\":2e0}\n\
            {\"rate\":16000.0,\"width\":2,\"x\":1.5}ab{\"type\":\"ping\",\"data_length\":null}\n";
        let events = read_all(bytes, 200).unwrap();
        assert_eq!(events[0].payload, b"ab");
        assert_eq!(events[1].kind, "ping");
        assert_eq!(events[0].number("rate"), Ok(16_000));
        assert_eq!(events[0].number("width"), Ok(2));
        for (key, value) in [("x", "1.5"), ("channels", "null")] {
            let error = events[0].number(key).unwrap_err();
            assert_eq!(error, format!("`{key}` is {value}; send a whole number"));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let event = Event {
            payload: vec![0, 10, 255],
            ..Event::new("audio-chunk", json!({"rate": 16000, "text": "ä\n"}))
        };
        let mut bytes = Vec::new();
        runtime.block_on(write(&mut bytes, &event)).unwrap();
        let version = Version::ENDS_SPEECH;
        assert_eq!(
            read_all(&bytes, 1000).unwrap(),
            [Event { version, ..event }]
        );
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (text, version) in [
            ("1.5.4", Version(1, 5)),
            ("1.10.2", Version(1, 10)),
            ("2", Version(2, 0)),
            ("", Version(0, 0)),
            ("new", Version(0, 0)),
            ("99999999999.1", Version(0, 1)),
        ] {
            assert_eq!(Version::read(text), version, "{text}");
        }
        assert!(Version::read("1.10") > Version::read("1.9.9"));
    }
}
