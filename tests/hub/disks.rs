//! Disks on which no pack can be made, or not to its end. They are mounted here; who may not do that sees these tests skipped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::server::Fault;
use crate::{Bench, GEMMA_4, assert_same, failed, succeeded};

/// A disk at `models`, which is let go of with it.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(bench: &Bench, arguments: &[&str]) -> Option<Disk> {
        let at = bench.path("models");
        std::fs::create_dir(&at).unwrap();
        let mount = Command::new("mount").args(arguments).arg(&at).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "skipped: mount {} is not for this user or this system",
                arguments.join(" ")
            );
            return None;
        }
        Some(Disk { at })
    }

    /// A file with this file system, of so many MiB.
    fn image(bench: &Bench, make: &str, mib: u64) -> Option<Disk> {
        let image = bench.path("disk.img");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(mib << 20))
            .unwrap();
        let mut made = Command::new(make);
        // Where only root looks for it.
        let path = format!(
            "{}:/usr/sbin:/sbin",
            std::env::var("PATH").unwrap_or_default()
        );
        let made = made.env("PATH", path).arg(&image).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: there is no {make}");
            return None;
        }
        let mut options = "loop".to_owned();
        if make.ends_with("ext4") {
            options += ",errors=remount-ro";
        }
        Disk::mount(bench, &["-o", &options, image.to_str().unwrap()])
    }

    /// What happens when the card itself fails: the system sees a fault, and takes the disk for read-only whoever writes there.
    fn breaks(&self) -> bool {
        let mut find = Command::new("findmnt");
        let found = find.args(["-no", "SOURCE"]).arg(&self.at).output();
        let device = String::from_utf8(found.unwrap().stdout).unwrap();
        let device = device.trim().trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        let is_triggered = std::fs::write(trigger, "test").is_ok();
        if !is_triggered {
            eprintln!("skipped: this system's ext4 has no trigger for faults");
        }
        is_triggered
    }

    fn is_read_only(&self) -> bool {
        let mut remount = Command::new("mount");
        let remount = remount.args(["-o", "remount,ro"]).arg(&self.at).output();
        remount.is_ok_and(|output| output.status.success())
    }

    fn fill(&self) {
        let zeros = vec![0; 1 << 16];
        let mut file = std::fs::File::create(self.at.join("others")).unwrap();
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}

/// A pull that waits for the rest of the weights until `go-on` is there.
fn halfway(bench: &Bench) -> Child {
    bench
        .hub
        .fail("blob/", 4, 1, Fault::Until(bench.path("go-on")));
    let mut run = bench.pull(&["--retries", "0"]);
    let run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !bench.path("models/demo.pack.partial").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    run
}

fn ended(bench: &Bench, run: Child) -> Output {
    std::fs::write(bench.path("go-on"), "").unwrap();
    run.wait_with_output().unwrap()
}

fn is_told(output: &Output, bench: &Bench, words: &[&str]) {
    let said = failed(output);
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!bench.pack().exists());
}

/// 5 MB.
#[test]
fn a_disk_that_is_too_small_is_told_before_anything_large_is_fetched() {
    let bench = Bench::new();
    let Some(_disk) = Disk::mount(&bench, &["-t", "tmpfs", "-o", "size=5m", "tmpfs"]) else {
        return;
    };
    is_told(&bench.pull(&[]).output().unwrap(), &bench, &["bytes free"]);
    assert!(bench.hub.sent_bytes() < 1 << 20);
}

#[test]
fn a_disk_that_others_fill_meanwhile_is_told_and_the_pull_goes_on_when_there_is_room() {
    let bench = Bench::new();
    let Some(disk) = Disk::image(&bench, "mkfs.ext4", 64) else {
        return;
    };
    let run = halfway(&bench);
    disk.fill();
    is_told(
        &ended(&bench, run),
        &bench,
        &["No space left on device", "free"],
    );
    std::fs::remove_file(disk.at.join("others")).unwrap();
    succeeded(&bench.pull(&[]).output().unwrap());
    assert_same(&bench.pack(), &bench.packed_here(GEMMA_4));
}

/// As an SD card does that has come to its end.
#[test]
fn a_card_that_goes_read_only_is_told() {
    let bench = Bench::new();
    let Some(disk) = Disk::image(&bench, "mkfs.ext4", 64) else {
        return;
    };
    let run = halfway(&bench);
    let breaks = disk.breaks();
    let output = ended(&bench, run);
    if breaks {
        // As the system has it: the first to come to it sees the fault, whoever comes later what became of it.
        is_told(&output, &bench, &["cannot", "check the disk"]);
        is_told(
            &bench.pull(&[]).output().unwrap(),
            &bench,
            &["Read-only file system"],
        );
    }
}

/// FAT keeps no holes, and no file of more than 4 GiB; neither does what lies in memory alone.
#[test]
fn a_file_system_without_holes_is_told_which_would_do() {
    let words = ["keeps no files with holes", "ext4"];
    let bench = Bench::new();
    if let Some(_disk) = Disk::mount(&bench, &["-t", "ramfs", "ramfs"]) {
        is_told(&bench.pull(&[]).output().unwrap(), &bench, &words);
        assert!(bench.hub.sent_bytes() < 1 << 20);
    }
    let bench = Bench::new();
    if let Some(_disk) = Disk::image(&bench, "mkfs.vfat", 64) {
        is_told(&bench.pull(&[]).output().unwrap(), &bench, &words);
        assert!(bench.hub.sent_bytes() < 1 << 20);
    }
}

/// A pack that is carried there on a stick is one all the same.
#[test]
fn a_pack_on_a_disk_that_cannot_be_written_to_is_verified() {
    let bench = Bench::new();
    let Some(disk) = Disk::image(&bench, "mkfs.ext4", 64) else {
        return;
    };
    succeeded(&bench.pull(&[]).output().unwrap());
    std::fs::remove_file(bench.pack().join("verified.json")).unwrap();
    assert!(disk.is_read_only());
    let dir: &Path = &disk.at;
    let models = bench.gemmad(&["models", "--verify", "--dir", dir.to_str().unwrap()]);
    let output = { models }.output().unwrap();
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("verified: never here"), "{said}");
}
