//! An HTTP client that sends what it is told, and reads what comes: bytes, and nothing is mended.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::broker::PATIENCE;

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A request as bytes; the connection is closed behind it.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The answer to bytes that are sent as they are.
    pub(crate) fn to(address: SocketAddr, bytes: &[u8]) -> Response {
        let mut stream = connect(address);
        // It may be closed before all was sent.
        stream.write_all(bytes).ok();
        Response::read(&mut stream)
    }

    /// Reads one answer: to its length, to its last chunk, or to the end.
    pub(crate) fn read(stream: &mut TcpStream) -> Response {
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            if let Some(response) = Response::of(&bytes, false) {
                return response;
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        Response::of(&bytes, true).unwrap_or(Response {
            status: 0,
            head: String::new(),
            body: bytes,
        })
    }

    fn of(bytes: &[u8], ended: bool) -> Option<Response> {
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..at].to_vec())
            .unwrap()
            .to_ascii_lowercase();
        let rest = &bytes[at + 4..];
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let body = match length.map(|length| length.parse::<usize>().unwrap()) {
            Some(length) if rest.len() >= length => rest[..length].to_vec(),
            None if head.contains("transfer-encoding: chunked") && rest.ends_with(b"0\r\n\r\n") => {
                unchunked(rest)
            }
            None if status == 204 => Vec::new(),
            _ if ended => rest.to_vec(),
            _ => return None,
        };
        Some(Response { status, head, body })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
    }

    /// The data of server-sent events, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(str::to_owned).collect()
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        body.extend_from_slice(&rest[at + 2..at + 2 + length]);
        rest = &rest[at + 4 + length..];
    }
    body
}
