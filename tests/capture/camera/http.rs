//! Cameras over HTTP: who is told the password and how, where redirects may lead, whom TLS trusts, and answers that are no picture.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use gemmad::capture::try_camera;
use gemmad::config::Config;
use gemmad::features::image::ImageLimits;
use gemmad::media::DeviceState;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::Digest;

use super::{offline, ok, snapshot, start, state};

/// A server whose every answer is made by a function of the request's head; the connection is closed behind it, unless the answer has
/// no end.
struct Camera {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

/// Stands behind an answer after which the connection stays open.
const NO_END: &[u8] = b"no end";

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

fn serve(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&str) -> Vec<u8> + Send + 'static,
) -> Camera {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let camera = Camera {
        port: listener.local_addr().unwrap().port(),
        heads: Arc::default(),
    };
    let heads = camera.heads.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut stream: Box<dyn Connection> = match &tls {
                Some(config) => {
                    let session = ServerConnection::new(config.clone()).unwrap();
                    Box::new(StreamOwned::new(session, stream))
                }
                None => Box::new(stream),
            };
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            if head.is_empty() {
                // It was not trusted.
                continue;
            }
            let head = String::from_utf8(head).unwrap();
            heads.lock().unwrap().push(head.clone());
            let answer = answer(&head);
            let (answer, ends) = match answer.strip_suffix(NO_END) {
                Some(answer) => (answer.to_vec(), false),
                None => (answer, true),
            };
            // The client may have had enough.
            stream.write_all(&answer).and_then(|()| stream.flush()).ok();
            if !ends {
                open.push(stream);
            }
        }
    });
    camera
}

impl Camera {
    fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }

    /// A camera of that address, in gemmad.toml.
    fn config(&self, login: &str, more: &str) -> String {
        let port = self.port;
        format!(
            "type = \"http\"\nurl = \"http://{login}localhost:{port}/a.jpg?x=1&y=2\"\nmotion.enabled = false\nfps = 60\n{more}"
        )
    }
}

fn picture() -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/camera_420.jpg"),
    )
    .unwrap()
}

fn status(line: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

fn unauthorized(challenge: &str) -> Vec<u8> {
    status(
        "401 Unauthorized",
        &format!("WWW-Authenticate: {challenge}\r\n"),
    )
}

fn authorization(head: &str) -> Option<&str> {
    head.lines().find_map(|line| {
        line.strip_prefix("authorization: ")
            .or(line.strip_prefix("Authorization: "))
    })
}

/// The pictures of two requests, and the requests' heads; or why the camera is offline.
fn asked_twice(camera: &Camera, text: &str) -> Result<Vec<String>, String> {
    let (watched, events) = start(text, true, true);
    let pictures = [1, 2].map(|number| snapshot(&watched, &events, number));
    watched.stop();
    for frame in pictures {
        assert_eq!(frame?.encoded, picture());
    }
    Ok(camera.heads())
}

#[test]
fn a_percent_encoded_password_is_sent_decoded_where_it_is_asked_for() {
    // base64 by coreutils.
    for (login, base64) in [
        ("cam:se%40cret@", "Y2FtOnNlQGNyZXQ="),
        ("cam:se@cret@", "Y2FtOnNlQGNyZXQ="),
        ("c%3Fm:%2F%23%25@", "Yz9tOi8jJQ=="),
    ] {
        let wanted = format!("Basic {base64}");
        let camera = serve(None, move |head| match authorization(head) {
            Some(found) if found == wanted => ok("image/jpeg", &picture()),
            _ => unauthorized("Basic realm=\"cam\""),
        });
        let heads = asked_twice(&camera, &camera.config(login, "")).unwrap();
        // Before it is asked for, nothing is sent; from then on it is.
        assert_eq!(authorization(&heads[0]), None);
        assert!(
            heads[1..].iter().all(|head| authorization(head).is_some()),
            "{heads:?}"
        );
        assert!(
            heads[0].starts_with("GET /a.jpg?x=1&y=2 HTTP/1.1\r\n"),
            "{heads:?}"
        );
    }
}

/// The parameters of a digest answer.
fn parameters(answer: &str) -> BTreeMap<String, String> {
    let pairs = answer.strip_prefix("Digest ").unwrap().split(", ");
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect()
}

/// Whether `answer` is right for user `cam`, password `se@cret` (RFC 7616 3.4), by hash `H`.
fn is_right<H: Digest>(answer: &str, realm: &str) -> bool {
    let given = parameters(answer);
    let hash = |text: String| hex::encode(H::digest(text));
    let (secret, asked) = (
        hash(format!("cam:{realm}:se@cret")),
        hash(format!("GET:{}", given["uri"])),
    );
    let (nonce, nc, cnonce) = (&given["nonce"], &given["nc"], &given["cnonce"]);
    given["response"] == hash(format!("{secret}:{nonce}:{nc}:{cnonce}:auth:{asked}"))
        && given["uri"] == "/a.jpg?x=1&y=2"
        && given["realm"] == realm
}

#[test]
fn digest_is_answered_and_the_password_never_sent() {
    for algorithm in ["MD5", "SHA-256"] {
        // Each nonce is good for two requests, counted: its number, and how often it was used.
        let counter = Mutex::new((0, 0));
        let camera = serve(None, move |head| {
            let (nonce, uses) = &mut *counter.lock().unwrap();
            let right = authorization(head).is_some_and(|answer| match algorithm {
                "MD5" => is_right::<md5::Md5>(answer, "Login to ABC"),
                _ => is_right::<sha2::Sha256>(answer, "Login to ABC"),
            });
            let given = authorization(head).map(parameters).unwrap_or_default();
            let current = given.get("nonce") == Some(&format!("n{nonce}"));
            if right && current && *uses < 2 {
                *uses += 1;
                assert_eq!(given["nc"], format!("{uses:08x}"));
                assert_eq!(given["opaque"], "");
                return ok("image/jpeg", &picture());
            }
            (*nonce, *uses) = (*nonce + 1, 0);
            unauthorized(&format!(
                "Basic realm=\"x\"\r\nWWW-Authenticate: Digest realm=\"Login to ABC\", qop=\"auth\", algorithm={algorithm}, \
                 nonce=\"n{nonce}\", opaque=\"\", stale={right}"
            ))
        });
        let (watched, events) = start(&camera.config("cam:se%40cret@", ""), true, true);
        for number in 1..=5 {
            assert_eq!(
                snapshot(&watched, &events, number).unwrap().encoded,
                picture()
            );
        }
        watched.stop();
        let heads = camera.heads();
        assert!(
            heads
                .iter()
                .filter_map(|head| authorization(head))
                .all(|sent| sent.starts_with("Digest "))
        );
        // At most one request more than pictures for each nonce: one was taken to see whether the camera is there.
        assert!(heads.len() <= 6 + 4, "{} requests", heads.len());
    }
}

#[test]
fn a_wrong_password_is_refused_once_for_each_picture() {
    for (challenge, requests) in [
        (
            "Digest realm=\"x\", qop=\"auth\", nonce=\"1234abcd\", opaque=\"\", stale=\"false\"",
            2,
        ),
        ("Basic realm=\"x\"", 2),
        ("Negotiate", 1),
    ] {
        let camera = serve(None, move |_| unauthorized(challenge));
        let config = camera.config("cam:s3cret@", "");
        let (watched, events) = start(&config, true, true);
        let reason = offline(&events, "401");
        watched.stop();
        assert_eq!(camera.heads().len(), requests, "{challenge}");
        let words = match requests {
            2 => "refuses user and password",
            _ => "negotiate",
        };
        assert!(
            reason.contains(words) && !reason.contains("s3cret"),
            "{reason}"
        );
    }
    let camera = serve(None, |_| unauthorized("Digest realm=\"x\", nonce=\"1\""));
    let (watched, events) = start(&camera.config("", ""), true, true);
    offline(&events, "give user and password");
    watched.stop();
}

#[test]
fn a_token_is_read_for_every_picture_and_never_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let camera = serve(None, |head| match authorization(head) {
        Some("Bearer eyJ0.right") => ok("image/jpeg", &picture()),
        _ => unauthorized("Bearer error=\"invalid_token\""),
    });
    let config = camera.config("", &format!("bearer_token_file = {file:?}"));
    let (watched, events) = start(&config, true, true);
    offline(&events, "bearer_token_file: ");
    for (number, (token, words)) in (1..).zip([
        ("hush hush", "holds no token"),
        ("", "holds no token"),
        ("hush\n", "refuses the token"),
    ]) {
        std::fs::write(&file, token).unwrap();
        let reason = snapshot(&watched, &events, number).unwrap_err();
        assert!(
            reason.contains(words) && !reason.contains("hush"),
            "{reason}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let reason = snapshot(&watched, &events, 4).unwrap_err();
    assert!(reason.contains("it is no file"), "{reason}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "eyJ0.right\r\n").unwrap();
    snapshot(&watched, &events, 9).unwrap();
    watched.stop();
}

#[test]
fn redirects_stay_on_their_host_unless_others_are_named_and_the_password_stays_always() {
    let stranger = serve(None, |head| match head.contains("/open.jpg") {
        true => ok("image/jpeg", &picture()),
        false => unauthorized("Basic realm=\"give me\""),
    });
    for (login, path, hosts, told) in [
        (
            "cam:s3cret@",
            "open.jpg?key=hush",
            "",
            Some("redirect_hosts"),
        ),
        (
            "cam:s3cret@",
            "open.jpg?key=hush",
            "\"other.example\", \"127.0.0.1:1\"",
            Some("redirect_hosts"),
        ),
        ("cam:s3cret@", "open.jpg?key=hush", "\"127.0.0.1\"", None),
        (
            "cam:s3cret@",
            "closed.jpg?key=hush",
            "\"127.0.0.1\"",
            Some("go to the host of `url` only"),
        ),
        (
            "",
            "open.jpg?key=hush",
            &format!("\"127.0.0.1:{}\"", stranger.port),
            None,
        ),
    ] {
        let location = format!("http://127.0.0.1:{}/{path}", stranger.port);
        let camera = serve(None, move |head| match authorization(head) {
            None if head.contains("first") => unauthorized("Basic realm=\"x\""),
            _ => status("302 Found", &format!("Location: {location}\r\n")),
        });
        let config = camera
            .config(login, &format!("redirect_hosts = [{hosts}]"))
            .replace("a.jpg", "first.jpg");
        let config = if login.is_empty() {
            config.replace("first", "other")
        } else {
            config
        };
        match (asked_twice(&camera, &config), told) {
            (Ok(_), None) => assert!(!stranger.heads().is_empty()),
            (Err(reason), Some(words)) => {
                assert!(reason.contains(words), "{words}: {reason}");
                let strangers = stranger.heads();
                assert_eq!(
                    strangers.is_empty(),
                    words == "redirect_hosts",
                    "{strangers:?}"
                );
                assert!(
                    strangers.iter().all(|head| authorization(head).is_none()),
                    "{strangers:?}"
                );
                assert!(
                    !reason.contains("s3cret") && !reason.contains("hush"),
                    "{reason}"
                );
            }
            (found, _) => panic!("{path} {hosts}: {found:?}"),
        }
    }
    assert!(
        stranger
            .heads()
            .iter()
            .all(|head| authorization(head).is_none())
    );

    // On the same host the password goes along; a circle is left.
    let camera = serve(None, |head| {
        match (authorization(head), head.contains("/there/b.jpg")) {
            (None, _) => unauthorized("Basic realm=\"x\""),
            (_, true) => ok("image/jpeg", &picture()),
            (_, false) => status("307 Temporary Redirect", "Location: there/b.jpg\r\n"),
        }
    });
    asked_twice(&camera, &camera.config("cam:s3cret@", "")).unwrap();
    let camera = serve(None, |_| {
        status("301 Moved Permanently", "Location: /a.jpg\r\n")
    });
    let (watched, events) = start(&camera.config("", ""), true, true);
    offline(&events, "circle");
    watched.stop();
    assert!(camera.heads().len() <= 5);
}

/// A certificate that signed itself, for `subject`; the server's configuration with it.
fn certificate(directory: &Path, name: &str, subject: &str) -> Arc<ServerConfig> {
    let made = Command::new("openssl")
        .current_dir(directory)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
        ])
        .args([
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ])
        .args([
            "-subj",
            "/CN=camera",
            "-addext",
            &format!("subjectAltName={subject}"),
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let path = |ending: &str| directory.join(format!("{name}.{ending}"));
    let chain = CertificateDer::pem_file_iter(path("pem"))
        .unwrap()
        .map(Result::unwrap);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.collect(),
            PrivateKeyDer::from_pem_file(path("key")).unwrap(),
        );
    Arc::new(config.unwrap())
}

#[test]
fn a_camera_with_its_own_certificate_is_trusted_as_that_one() {
    let directory = tempfile::tempdir().unwrap();
    let own = certificate(directory.path(), "own", "DNS:localhost");
    certificate(directory.path(), "other", "DNS:localhost");
    let camera = serve(Some(own), |head| match head.contains("/plain") {
        true => status("302 Found", "Location: http://localhost:1/\r\n"),
        false => ok("image/jpeg", &picture()),
    });
    let config = |file: &str| {
        let trusted = format!("ca_file = {:?}", directory.path().join(file));
        camera.config("", &trusted).replace("http://", "https://")
    };
    asked_twice(&camera, &config("own.pem")).unwrap();
    for (config, words) in [
        (config("other.pem"), "ca_file"),
        (
            camera.config("", "").replace("http://", "https://"),
            "ca_file",
        ),
        (config("missing.pem"), "ca_file"),
        (
            config("own.pem").replace("/a.jpg", "/plain.jpg"),
            "not encrypted",
        ),
    ] {
        let (watched, events) = start(&config, true, true);
        let reason = offline(&events, words);
        assert!(reason.starts_with("https://localhost:"), "{reason}");
        watched.stop();
    }
}

#[test]
fn a_stream_is_named_before_it_ends() {
    let camera = serve(None, |_| {
        let part = [
            &b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"[..],
            &picture(),
        ]
        .concat();
        let head =
            &b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
                [..];
        [head, &part, NO_END].concat()
    });
    // Whoever waits for the end waits longer than the test does.
    let (watched, events) = start(&camera.config("", "timeout_ms = 120000"), true, true);
    let reason = offline(&events, "multipart/x-mixed-replace");
    assert!(reason.contains("not of a stream"), "{reason}");
    watched.stop();

    // One that does not say what it is.
    let camera = serve(None, |_| {
        let half = &picture()[..2000];
        [
            &b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"[..],
            half,
            NO_END,
        ]
        .concat()
    });
    let (watched, events) = start(&camera.config("", "timeout_ms = 300"), true, true);
    let reason = offline(&events, "in time");
    assert!(
        reason.contains("2000 bytes of image/jpeg") && reason.contains("stream"),
        "{reason}"
    );
    watched.stop();
}

/// An answer that promises `length` bytes and has `body`.
fn promising(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_whole_picture_counts_and_a_wrong_length_is_told() {
    let length = picture().len();
    let camera = serve(None, move |_| promising(length + 48, &picture()));
    asked_twice(&camera, &camera.config("", "")).unwrap();
    // It is not known that no more comes before time is up.
    let camera = serve(None, move |_| {
        [promising(length + 48, &picture()), NO_END.to_vec()].concat()
    });
    asked_twice(&camera, &camera.config("", "timeout_ms = 300")).unwrap();

    let camera = serve(None, move |_| promising(length, &picture()[..length - 200]));
    let (watched, events) = start(&camera.config("", ""), true, true);
    let reason = offline(&events, "ends early");
    assert!(
        reason.contains(&format!("{} of {length} bytes", length - 200)),
        "{reason}"
    );
    watched.stop();
    let camera = serve(None, move |_| promising(length - 200, &picture()));
    let (watched, events) = start(&camera.config("", ""), true, true);
    offline(&events, "ends early");
    watched.stop();
}

#[test]
fn the_doctor_asks_for_a_damaged_picture_a_handful_of_times() {
    let length = picture().len();
    let half = length / 2;
    for (answer, requests, words) in [
        (promising(length - 200, &picture()), 5, "ends early"),
        (ok("image/jpeg", &picture()[..half]), 5, "ends early"),
        (promising(length, &picture()[..half]), 1, "ends early"),
        (status("503 Busy", ""), 1, "503"),
        (ok("image/jpeg", &picture()), 1, ""),
    ] {
        let camera = serve(None, move |_| answer.clone());
        let text = format!("[[camera]]\nid = \"door\"\n{}", camera.config("", ""));
        let config = Config::parse(&text, Path::new("test.toml")).unwrap();
        let tried = try_camera(&config.camera[0], &ImageLimits::default());
        let tried = tried.map(|frame| [frame.width_px, frame.height_px]);
        match words {
            "" => assert_eq!(tried, Ok([150, 93])),
            words => assert!(tried.clone().unwrap_err().contains(words), "{tried:?}"),
        }
        assert_eq!(camera.heads().len(), requests, "{words}");
    }
}

#[test]
fn a_camera_that_leaves_out_tables_and_end_is_watched() {
    let mut file = picture();
    let tables = file
        .windows(2)
        .position(|pair| pair == [0xff, 0xc4])
        .unwrap();
    let scan = file
        .windows(2)
        .position(|pair| pair == [0xff, 0xdd])
        .unwrap();
    file.drain(tables..scan);
    file.truncate(file.len() - 2);
    let answered = file.clone();
    let camera = serve(None, move |_| ok("image/jpeg", &answered));
    let (watched, events) = start(&camera.config("", ""), true, true);
    state(&events, DeviceState::Online);
    assert_eq!(snapshot(&watched, &events, 1).unwrap().encoded, file);
    watched.stop();
}
