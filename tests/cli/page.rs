//! `gemmad page`: the address that a browser finds the page at.

use assert_cmd::Command;

fn page(config: &str) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gemmad.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command.arg("page").arg("--config").arg(file);
    command.output().unwrap()
}

#[test]
fn the_address_is_that_of_the_configuration() {
    let output = page("[http]\nenabled = true\nlisten = \"127.0.0.1:4711\"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"http://127.0.0.1:4711/\n");
    let output = page("[http]\nenabled = true\nlisten = \"[::1]:4711\"");
    assert_eq!(output.stdout, b"http://[::1]:4711/\n");
}

#[test]
fn an_address_that_means_all_becomes_one_that_can_be_typed() {
    let output =
        page("[http]\nenabled = true\nlisten = \"0.0.0.0:4711\"\nallow_without_key = true");
    let address = String::from_utf8(output.stdout).unwrap();
    let host = address
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix(":4711/\n"))
        .unwrap();
    assert!(!host.parse::<std::net::Ipv4Addr>().unwrap().is_unspecified());
}

#[test]
fn a_door_that_is_shut_has_no_page() {
    let output = page("");
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("http.enabled is false"), "{error}");
}
