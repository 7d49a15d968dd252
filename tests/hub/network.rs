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

/// Runs openssl in the directory of a bench.
fn openssl(bench: &Bench, arguments: &str) {
    let mut command = Command::new("openssl");
    command
        .current_dir(bench.dir.path())
        .args(arguments.split(' '));
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server of openssl's, which is no hub, with a certificate that it signed itself; what a pull from it says that trusts it, and one that
/// does not.
fn pulled_from(bench: &Bench, certificate: &str, trusts: bool) -> String {
    let at = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut server = Command::new("openssl")
        .args(["s_server", "-www", "-accept", &port.to_string()])
        .args(["-key", &at("key.pem"), "-cert", &at(certificate)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut pull = bench.pull(&["--retries", "0"]);
    pull.env("HF_ENDPOINT", format!("https://127.0.0.1:{port}"));
    pull.env("HF_TOKEN", "hf_s3cret");
    if trusts {
        pull.env("SSL_CERT_FILE", at(certificate));
    }
    let output = pull.output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let said = failed(&output);
    assert!(!said.contains("hf_s3cret"), "{said}");
    said
}

#[test]
fn a_certificate_has_to_be_of_somebody_who_is_trusted_and_of_today() {
    let bench = Bench::new();
    openssl(
        &bench,
        "req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=hub -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out good.pem",
    );
    openssl(&bench, "req -new -key key.pem -subj /CN=hub -out hub.csr");
    let settings = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\n\
                    unique_subject = no\n[p]\ncommonName = supplied\n[v]\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(bench.path("ca.cnf"), settings).unwrap();
    std::fs::write(bench.path("index"), "").unwrap();
    std::fs::write(bench.path("serial"), "01\n").unwrap();
    for (name, from, to) in [
        ("expired", "20200101000000Z", "20200201000000Z"),
        // What every certificate is to a board whose clock says 1970.
        ("early", "20980101000000Z", "20990101000000Z"),
    ] {
        openssl(
            &bench,
            &format!(
                "ca -config ca.cnf -batch -notext -selfsign -keyfile key.pem -in hub.csr -out {name}.pem -startdate {from} -enddate {to} -extensions v"
            ),
        );
    }
    let unknown = pulled_from(&bench, "good.pem", false);
    assert!(unknown.contains("cannot be trusted"), "{unknown}");
    let known = pulled_from(&bench, "good.pem", true);
    assert!(
        known.contains("does not answer as the model hub"),
        "{known}"
    );
    let expired = pulled_from(&bench, "expired.pem", true);
    assert!(expired.contains("expired on 2020-02-01"), "{expired}");
    let early = pulled_from(&bench, "early.pem", true);
    assert!(
        early.contains("2098-01-01") && early.contains("and here it is"),
        "{early}"
    );
    for said in [unknown, expired, early] {
        assert!(
            said.contains("is the clock of this board right (timedatectl)?"),
            "{said}"
        );
    }
}
