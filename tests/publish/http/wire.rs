//! What is wrong with the bytes on the wire: requests that two programs would read differently, several at once, clients that are slow,
//! half gone, or many.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use gemmad::report::{JobState, JobUpdate, Payload};
use serde_json::json;

use super::{Bench, hello};

const HOST: &str = "Host: pi\r\n";

/// A request that nobody sent: it stands where one reader of the request before it sees its body, and another sees the next request.
const SMUGGLED: &str =
    "POST /page/microphones/hall/mute HTTP/1.1\r\nHost: pi\r\nContent-Length: 0\r\n\r\n";

#[test]
fn requests_that_two_programs_would_read_differently_are_not_read() {
    let bench = Bench::new();
    let post = |headers: &str, body: &str| {
        format!("POST /api/show HTTP/1.1\r\n{HOST}{headers}\r\n{body}{SMUGGLED}")
    };
    let get = |headers: &str| format!("GET / HTTP/1.1\r\n{HOST}{headers}\r\n");
    let whole = "2\r\n{}\r\n0\r\n\r\n";
    for request in [
        post("Content-Length: 4\r\nContent-Length: 5\r\n", "{}xx"),
        post("Content-Length: 4, 5\r\n", "{}xx"),
        post("Content-Length: -1\r\n", ""),
        post("Content-Length: +2\r\n", "{}"),
        post("Content-Length: 0x2\r\n", "{}"),
        post("Content-Length: 1e3\r\n", ""),
        post("Content-Length: 99999999999999999999999\r\n", ""),
        post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", whole),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", whole),
        post("Transfer-Encoding: gzip\r\n", ""),
        post("Transfer-Encoding: xchunked\r\n", whole),
        post("Transfer-Encoding: chunked, identity\r\n", whole),
        post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            whole,
        ),
        post("Transfer-Encoding : chunked\r\n", whole),
        post(" Transfer-Encoding: chunked\r\n", whole),
        post("X: a\r\n Transfer-Encoding: chunked\r\n", whole),
        post("Transfer-Encoding:\x0bchunked\r\n", whole),
        post("Transfer-Encoding: chunked\r\n", "zz\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\n",
            "fffffffffffffffff\r\n\r\n",
        ),
        post("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n", "2\r\n{}xx\r\n0\r\n\r\n"),
        get("X: a\r\n b\r\n"),
        get("Content-Length : 5\r\n") + "hello",
        "GET /\r\n\r\n".to_owned(),
        "\0\x01\x02\r\n\r\n".to_owned(),
        get(&format!("X: {}\r\n", "a".repeat(40_000))),
        get(&"X: a\r\n".repeat(1000)),
    ] {
        let mut client = bench.connect();
        // It may be closed before all was sent.
        client.write_all(request.as_bytes()).ok();
        client.shutdown(Shutdown::Write).ok();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer);
        // One refusal, or none: the connection is at its end.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{request:?}: {answer}"
        );
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{request:?}: {answer}"
        );
    }
    assert!(bench.asked().is_empty(), "{:?}", bench.asked());
    // It is a request where it is one.
    bench.raw(
        SMUGGLED
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    );
    assert!(matches!(bench.asked()[..], [Payload::Set(_)]));
}

#[test]
fn several_at_once_are_answered_in_their_order_and_none_behind_one_that_cannot_be_read() {
    let bench = Bench::new();
    let body = json!({ "model": "demo", "prompt": "Hi", "stream": false }).to_string();
    let chat = format!(
        "POST /api/generate HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let version = format!("GET /api/version HTTP/1.1\r\n{HOST}\r\n");
    let ask = |requests: &str| {
        let mut client = bench.connect();
        client.write_all(requests.as_bytes()).unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).ok();
        answers
    };
    let last = format!("GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    let answers = ask(&((chat.clone() + &version).repeat(50) + &last));
    let found: Vec<&str> = answers
        .split("HTTP/1.1 200 OK")
        .skip(1)
        .map(|answer| match answer {
            _ if answer.contains("Hello there.") => "chat",
            _ if answer.contains("\"version\"") => "version",
            _ => "health",
        })
        .collect();
    assert_eq!(
        found,
        [["chat", "version"].repeat(50), vec!["health"]].concat()
    );
    assert_eq!(bench.chats().len(), 50);
    let answers = ask(&(version + "rubbish\r\n\r\n" + &chat));
    let statuses: Vec<&str> = answers.matches("HTTP/1.1 ").collect();
    assert!((1..=2).contains(&statuses.len()), "{answers}");
    assert_eq!(bench.chats().len(), 50);
}

/// Sends pieces until the server has had enough, or all are sent; and gives what it said.
fn pour(mut client: TcpStream, pieces: impl Iterator<Item = Vec<u8>>) -> (usize, String) {
    let mut sent = 0;
    for piece in pieces {
        if client.write_all(&piece).is_err() {
            break;
        }
        sent += piece.len();
    }
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).ok();
    (sent, String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_hundred_megabytes_are_not_taken_whether_they_are_announced_or_not() {
    let bench = Bench::new();
    let megabyte = vec![b' '; 1_000_000];
    let post = "POST /v1/chat/completions HTTP/1.1\r\nHost: pi\r\n";
    let announced = format!("{post}Content-Length: 100000000\r\n\r\n").into_bytes();
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = [b"f4240\r\n", megabyte.as_slice(), b"\r\n"].concat();
    for (head, piece) in [(announced, megabyte), (chunked, chunk)] {
        let pieces = std::iter::once(head).chain(std::iter::repeat_n(piece, 100));
        let (sent, answer) = pour(bench.connect(), pieces);
        assert!(sent < 60_000_000, "{sent} bytes were taken");
        // Cut while it still sends, it may not see why.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
            "{answer}"
        );
    }
    assert!(bench.asked().is_empty());
    assert_eq!(bench.get("/health").status, 200);
}

#[test]
fn who_sends_or_takes_too_slowly_is_let_go() {
    let endless = |request: &gemmad::report::Request| match &request.payload {
        Payload::Chat(_) => {
            let piece = JobUpdate {
                partial: Some("word ".repeat(200_000)),
                ..JobUpdate::new(&request.header, JobState::Running)
            };
            vec![piece; 30]
        }
        _ => hello(request),
    };
    let bench = Bench::with(|options| options.patience_s = 1, endless);
    // A head, a body, a chunk and a form that never end.
    let form = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: pi\r\nContent-Type: multipart/form-data; boundary=b\r\n";
    let slow = [
        "GET /health HTTP/1.1\r\nHo".to_owned(),
        format!("POST /api/show HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\n{{"),
        format!("POST /api/show HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n9\r\n{{"),
        format!("{form}Content-Length: 100\r\n\r\n--b\r\nContent-Disp"),
    ];
    for (n, request) in slow.iter().enumerate() {
        let mut client = bench.connect();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok();
        let told = answer.starts_with("HTTP/1.1 408");
        // Of a head that is not there yet nobody knows what would be an answer to it.
        assert!(told || n == 0 && answer.is_empty(), "{request:?}: {answer}");
    }
    // One that asks and does not read the answer.
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "stream": true });
    let mut client = bench.connect();
    let asked = crate::http_client::request(
        "POST",
        "/v1/chat/completions",
        "",
        body.to_string().as_bytes(),
    );
    client.write_all(&asked).unwrap();
    bench.wait_cancelled(1);
}

#[test]
fn who_is_half_gone_is_answered_or_let_go_and_holds_nothing_up() {
    let bench = Bench::with(|options| options.max_clients = 4, hello);
    let body = json!({ "model": "demo", "prompt": "Hi", "stream": false }).to_string();
    let whole = crate::http_client::request("POST", "/api/generate", "", body.as_bytes());
    for request in [
        &b""[..],
        &whole[..20],
        &whole[..whole.len() - 5],
        &whole[..],
    ] {
        for _ in 0..8 {
            let mut client = bench.connect();
            client.write_all(request).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            match client.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
            }
            let answer = String::from_utf8_lossy(&answer);
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            let answered = request == whole && answer.contains("Hello there.");
            let full = answer.starts_with("HTTP/1.1 503");
            assert!(refused || answered || full, "{answer}");
        }
    }
    crate::broker::wait_until("others are served", || bench.get("/health").status == 200);
}

#[test]
fn a_thousand_clients_are_told_to_come_back_and_the_others_served() {
    let bench = Bench::with(
        |options| {
            options.patience_s = 1;
            options.max_clients = 8;
        },
        hello,
    );
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..1000 {
        // The system may hold some back.
        if let Ok(stream) = TcpStream::connect_timeout(&bench.address, Duration::from_secs(2)) {
            crowd.push(stream);
        }
    }
    let told = crowd.iter_mut().skip(8).take(40).filter_map(|stream| {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok().map(|_| text)
    });
    let told: Vec<String> = told.collect();
    let refused = |text: &String| {
        text.starts_with("HTTP/1.1 503")
            && text.contains("http.max_clients")
            && text.to_ascii_lowercase().contains("retry-after")
    };
    assert!(told.iter().any(refused), "{told:?}");
    drop(crowd);
    crate::broker::wait_until("others are served again", || {
        bench.get("/health").status == 200
    });
}
