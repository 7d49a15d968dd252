//! The way to the hub: proxies, and whom its certificate makes it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{Bench, GEMMA_4, assert_same, failed, succeeded};

/// A proxy that opens tunnels; gives its address, and how many it has opened.
fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://user:s3cret@{}", listener.local_addr().unwrap());
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || tunnel(&stream, &count).ok());
        }
    });
    (address, opened)
}

fn tunnel(mut client: &TcpStream, opened: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut authorized = false;
    for line in lines {
        let line = line?;
        // user:s3cret
        authorized |= line.contains("Basic dXNlcjpzM2NyZXQ=");
        if line.is_empty() {
            break;
        }
    }
    let target = first
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let (Some(target), true) = (target, authorized) else {
        return client.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n");
    };
    let server = TcpStream::connect(target)?;
    opened.fetch_add(1, Ordering::SeqCst);
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut up, &mut down).ok());
    std::io::copy(&mut { server }, &mut client.try_clone()?)?;
    client.shutdown(std::net::Shutdown::Both)
}

#[test]
fn a_proxy_is_gone_through_where_one_is_named() {
    let bench = Bench::new();
    let (proxy, opened) = proxy();
    succeeded(&bench.pull(&[]).env("https_proxy", &proxy).output().unwrap());
    assert!(opened.swap(0, Ordering::SeqCst) > 5);
    assert_same(&bench.pack(), &bench.packed_here(GEMMA_4));
    let mut past = bench.pull(&["--force"]);
    past.env("https_proxy", &proxy)
        .env("no_proxy", "127.0.0.1,localhost");
    succeeded(&past.output().unwrap());
    assert_eq!(opened.load(Ordering::SeqCst), 0);
    let wrong = proxy.replace("s3cret", "s3cretToo");
    let mut refused = bench.pull(&["--force", "--retries", "0"]);
    let said = failed(&refused.env("https_proxy", &wrong).output().unwrap());
    assert!(said.contains("proxy") && !said.contains("s3cret"), "{said}");
}

/// A server of openssl's, which is no hub, with a certificate that it signed itself.
#[test]
fn a_certificate_has_to_be_of_somebody_who_is_trusted() {
    let bench = Bench::new();
    let at = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (key, certificate) = (at("key.pem"), at("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9",
        ])
        .args(["-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success());
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-www", "-accept", &port.to_string()])
        .args(["-key", &key, "-cert", &certificate])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pull = |trusted: Option<&str>| {
        let mut pull = bench.pull(&["--retries", "0"]);
        pull.env("HF_ENDPOINT", format!("https://127.0.0.1:{port}"));
        pull.env("HF_TOKEN", "hf_s3cret");
        if let Some(file) = trusted {
            pull.env("SSL_CERT_FILE", file);
        }
        failed(&pull.output().unwrap())
    };
    let (unknown, known) = (pull(None), pull(Some(&certificate)));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(unknown.contains("cannot be trusted"), "{unknown}");
    assert!(unknown.contains("timedatectl"), "{unknown}");
    assert!(
        known.contains("does not answer as the model hub"),
        "{known}"
    );
    assert!(!unknown.contains("hf_s3cret") && !known.contains("hf_s3cret"));
}
