//! A pack on a disk, and how much of a file the page cache holds.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// On a disk: what lies in a tmpfs never leaves memory.
pub fn home() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn tiny_a() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a")
}

/// Packs the fixture into `to`, in a process of its own: this one has mapped nothing of it then.
pub fn pack_tiny_a(to: &Path, recipe: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["pack", "--force", "--recipe", recipe, "--from"])
        .arg(tiny_a())
        .arg("--to")
        .arg(to)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The fixture as a pack, which has one file for each group.
pub fn packed(home: &Path, recipe: &str) -> PathBuf {
    let pack = home.join("tiny.pack");
    pack_tiny_a(&pack, recipe);
    pack
}

/// What util-linux says of the file's pages.
pub fn cached_bytes(path: &Path) -> u64 {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}
