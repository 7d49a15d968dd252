//! Tells the program which commit it was built from: `GEMMAD_COMMIT`, empty where there is no git to ask (a source archive).

use std::process::Command;

fn main() {
    for path in [
        "build.rs",
        "src",
        "kernels",
        "config",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Every commit and every checkout is noted here; in a linked worktree too, where .git is a file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = git(&[
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty",
    ]);
    println!(
        "cargo::rustc-env=GEMMAD_COMMIT={}",
        commit.unwrap_or_default()
    );
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
