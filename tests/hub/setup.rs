//! `gemmad setup` where the model is not there yet.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::{Bench, failed, succeeded};
use crate::server::Fault;

#[test]
fn the_model_is_pulled_and_named_and_a_pull_that_fails_leaves_the_file_as_it_was() {
    let bench = Bench::new();
    let config = bench.path("gemmad.toml");
    let before = "[dbus]\nenabled = false\n";
    std::fs::write(&config, before).unwrap();
    let models = bench.path("models");
    let setup = || {
        let mut command = bench.gemmad(&["setup", "--yes", "--model", "google/demo"]);
        command.args(["--no-microphone", "--no-camera", "--no-broker"]);
        command.arg("--output").arg(&config);
        command.arg("--models-dir").arg(&models);
        command
    };
    bench
        .hub
        .fail("/api/models", 0, 1, Fault::Status(404, Vec::new()));
    failed(&setup().output().unwrap());
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    // Root's umask may keep from others what root makes.
    let (strict, command) = ("umask 077; exec \"$@\"", setup());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", strict, "sh"]).arg(command.get_program());
    let variables = command.get_envs();
    let variables = variables.filter_map(|(name, value)| Some((name, value?)));
    shell.args(command.get_args()).env_clear().envs(variables);
    let output = shell.output().unwrap();
    succeeded(&output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("ok       model: "), "{told}");
    let pack = bench.pack().canonicalize().unwrap();
    let mode = |name: &str| pack.join(name).metadata().unwrap().mode() & 0o777;
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let modes = if is_root {
        [0o755, 0o644]
    } else {
        [0o700, 0o600]
    };
    assert_eq!([mode(""), mode("text.safetensors")], modes);
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(
        text,
        format!("{before}\n[model]\npath = {pack:?}\n\n[mqtt]\nenabled = false\n")
    );
    // It is here now: nobody is asked.
    bench.hub.asked();
    let mut again = bench.gemmad(&[
        "setup",
        "--yes",
        "--no-broker",
        "--no-microphone",
        "--no-camera",
    ]);
    again
        .arg("--output")
        .arg(&config)
        .arg("--models-dir")
        .arg(&models);
    succeeded(&again.output().unwrap());
    assert!(bench.hub.asked().is_empty());
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
}
