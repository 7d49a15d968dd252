//! Who may ask.

use serde_json::json;

use super::{Bench, hello};

const KEY: &str = "0123456789abcdef";

#[test]
fn names_of_the_internet_that_lead_here_are_not_answered_to() {
    let bench = Bench::with(
        |options| options.hosts = vec!["pi.example.org".to_owned()],
        hello,
    );
    let ask = |host: &str| {
        bench.raw(format!("GET /v1/models HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes())
    };
    for host in [
        "localhost",
        "127.0.0.1:1",
        "homeassistant.local",
        "pi",
        "pi.example.org",
    ] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    let refused = ask("Host: evil.example\r\n");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("http.hosts"));
    for hosts in ["", "Host: pi\r\nHost: evil.example\r\n"] {
        assert_eq!(ask(hosts).status, 400, "{hosts:?}");
    }
}

#[test]
fn web_sites_may_not_ask_unless_they_are_listed() {
    let bench = Bench::with(
        |options| options.origins = vec!["https://ha.example.org".to_owned()],
        hello,
    );
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }] }).to_string();
    let ask = |origin: &str| {
        let headers = format!("Content-Type: text/plain\r\nOrigin: {origin}\r\n");
        bench.send("POST", "/v1/chat/completions", &headers, body.as_bytes())
    };
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let refused = ask(origin);
        assert_eq!(refused.status, 403, "{origin}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
    }
    assert!(bench.chats().is_empty());
    assert_eq!(ask("http://localhost").status, 200);
    let listed = ask("https://ha.example.org");
    assert_eq!(listed.status, 200);
    assert_eq!(
        listed.header("access-control-allow-origin"),
        Some("https://ha.example.org")
    );
    let preflight = bench.send(
        "OPTIONS",
        "/v1/chat/completions",
        "Origin: https://ha.example.org\r\n",
        b"",
    );
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
}

#[test]
fn the_key_opens_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let bench = Bench::with(|options| options.api_key_file = Some(file), hello);
    let ask = |path: &str, headers: &str| bench.send("GET", path, headers, b"");
    for path in ["/v1/models", "/api/tags", "/metrics", "/nowhere"] {
        for headers in [
            "",
            "Authorization: Bearer x\r\n",
            "Authorization: Basic 0123456789abcdef\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: \r\n",
        ] {
            let refused = ask(path, headers);
            assert_eq!(refused.status, 401, "{path} {headers:?}");
            assert_eq!(refused.header("www-authenticate"), Some("bearer"));
            assert!(!refused.text().contains(KEY));
        }
    }
    assert!(ask("/api/tags", "").json()["error"].is_string());
    assert_eq!(
        ask("/v1/models", "").json()["error"]["code"],
        "invalid_api_key"
    );
    for headers in [
        "Authorization: Bearer 0123456789abcdef\r\n",
        "authorization: bearer 0123456789abcdef\r\n",
    ] {
        assert_eq!(ask("/v1/models", headers).status, 200);
        assert_eq!(ask("/metrics", headers).status, 200);
    }
}

#[test]
fn connections_are_encrypted_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success());
    let bench = Bench::with(
        |options| {
            options.tls_certificate_file = Some(certificate.clone());
            options.tls_key_file = Some(key);
        },
        hello,
    );
    let url = format!("https://127.0.0.1:{}/v1/models", bench.address.port());
    let output = std::process::Command::new("curl")
        .args(["-sS", "--cacert"])
        .arg(&certificate)
        .arg(&url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("\"demo\"")
    );
    // Who speaks in the clear gets no answer.
    assert_eq!(bench.get("/v1/models").status, 0);
}
