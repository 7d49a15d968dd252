//! The unit and what stands beside it, judged by systemd's own tools. Nothing is installed: units are read from a temporary directory.

use std::fs::{self, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmad::config::Config;

/// Exposure that the sandbox stays within, in tenths, as `systemd-analyze security` counts.
const EXPOSURE: u32 = 15;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unit() -> String {
    read_to_string(top().join("systemd/gemmad.service")).unwrap()
}

fn drop_ins() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(top().join("systemd/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Values of a key, in the order of the file.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// A tool of systemd's with these arguments; `None`, and a line that says so, where there is none.
#[allow(
    clippy::print_stderr,
    reason = "a test that is skipped says so where its reader looks"
)]
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {tool} is missing (apt-get install systemd)");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `systemd-analyze verify` of a unit with drop-ins. It wants the program to be there: ours stands in for the installed one.
fn verify(unit: &str, drop_ins: &[PathBuf]) -> Option<Output> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gemmad.service");
    let unit = unit.replace(
        "/usr/bin/gemmad ",
        &format!("{} ", env!("CARGO_BIN_EXE_gemmad")),
    );
    fs::write(&path, unit).unwrap();
    let beside = dir.path().join("gemmad.service.d");
    fs::create_dir(&beside).unwrap();
    for drop_in in drop_ins {
        fs::copy(drop_in, beside.join(drop_in.file_name().unwrap())).unwrap();
    }
    // A warning is enough to fail; of other units on this machine nothing is said; manual pages are not installed.
    run(
        "systemd-analyze",
        &[
            "verify",
            "--recursive-errors=no",
            "--man=no",
            path.to_str().unwrap(),
        ],
    )
}

#[test]
fn verify_finds_nothing() {
    let Some(broken) = verify(&unit().replace("UMask=", "UMusk="), &[]) else {
        return;
    };
    assert!(
        told(&broken).contains("UMusk"),
        "verify is blind: {}",
        told(&broken)
    );

    let output = verify(&unit(), &[]).unwrap();
    assert!(
        output.status.success() && told(&output).is_empty(),
        "{}",
        told(&output)
    );
    for drop_in in drop_ins() {
        let output = verify(&unit(), std::slice::from_ref(&drop_in)).unwrap();
        let said = told(&output);
        // A systemd that is too old for it ignores the type, and has nothing else to say.
        let too_old = drop_in.ends_with("notify-reload.conf")
            && said.lines().count() == 1
            && said.contains("ignoring: notify-reload");
        assert!(
            output.status.success() && said.is_empty() || too_old,
            "{}: {said}",
            drop_in.display()
        );
    }
}

#[test]
fn the_sandbox_is_tight() {
    let security = |unit: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gemmad.service");
        fs::write(&path, unit).unwrap();
        run(
            "systemd-analyze",
            &[
                "security",
                "--offline=true",
                "--no-pager",
                &format!("--threshold={EXPOSURE}"),
                path.to_str().unwrap(),
            ],
        )
    };
    let Some(loose) = security(
        &unit()
            .replace("\nPrivateUsers=yes", "")
            .replace("\nCapabilityBoundingSet=", ""),
    ) else {
        return;
    };
    assert!(
        !loose.status.success(),
        "the threshold is blind: {}",
        told(&loose)
    );
    let output = security(&unit()).unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn the_user_and_the_directory_of_models_are_made() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let option = format!("--root={}", root.display());
    for (directory, file) in [
        ("sysusers.d", "gemmad.sysusers"),
        ("tmpfiles.d", "gemmad.tmpfile"),
    ] {
        let directory = root.join("usr/lib").join(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(
            top().join("systemd").join(file),
            directory.join("gemmad.conf"),
        )
        .unwrap();
    }
    fs::create_dir(root.join("etc")).unwrap();
    let Some(output) = run("systemd-sysusers", &[&option, "gemmad.conf"]) else {
        return;
    };
    assert!(output.status.success(), "{}", told(&output));
    let passwd = read_to_string(root.join("etc/passwd")).unwrap();
    let user: Vec<&str> = passwd.trim_end().split(':').collect();
    assert_eq!(user.len(), 7, "{passwd}");
    assert_eq!((user[0], user[5]), ("gemmad", "/var/lib/gemmad"));
    assert!(user[6].ends_with("nologin"), "{passwd}");

    // Giving a directory to another user is root's right; everybody may ask for what would be done.
    let root_user = fs::metadata(root)
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
        .unwrap()
        == 0;
    let output = run("systemd-tmpfiles", &[&option, "--create", "gemmad.conf"]).unwrap();
    if root_user {
        assert!(output.status.success(), "{}", told(&output));
    }
    assert!(
        root.join("var/lib/gemmad/models").is_dir(),
        "{}",
        told(&output)
    );
}

/// The unit, the bus's files, the package and the program name the same things.
#[test]
fn the_files_of_the_package_fit_each_other() {
    let unit = unit();
    let activation = read_to_string(top().join("packaging/dbus/org.gemmad1.service")).unwrap();
    assert_eq!(values(&activation, "SystemdService"), ["gemmad.service"]);
    assert_eq!(values(&unit, "BusName"), values(&activation, "Name"));
    let user = values(&unit, "User")[0];
    assert_eq!(values(&activation, "User"), [user]);
    let policy = read_to_string(top().join("packaging/dbus/gemmad.conf")).unwrap();
    assert!(policy.contains(&format!("<policy user=\"{user}\">")));
    let sysusers = read_to_string(top().join("systemd/gemmad.sysusers")).unwrap();
    assert!(
        sysusers
            .lines()
            .any(|line| line.starts_with(&format!("u {user} ")))
    );

    let manifest: toml::Table = read_to_string(top().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .unwrap();
    let installed: Vec<String> = assets
        .iter()
        .map(|asset| {
            let (from, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
            let file = from.rsplit('/').next().unwrap();
            if to.ends_with('/') {
                format!("/{to}{file}")
            } else {
                format!("/{to}")
            }
        })
        .collect();
    let command: Vec<&str> = values(&unit, "ExecStart")[0].split(' ').collect();
    let [program, "run", "--config", config] = command[..] else {
        panic!("{command:?}")
    };
    for path in [program, config] {
        assert!(
            installed.iter().any(|i| i == path),
            "{path} is not in the package: {installed:?}"
        );
    }

    // The configuration that is installed starts at once: a demo model, and no device or broker that may be missing.
    let path = top().join("packaging/gemmad.toml");
    let config = Config::load(&path).unwrap();
    assert!(config.dbus.enabled && !config.mqtt.enabled);
    assert!(config.microphone.is_empty() && config.camera.is_empty());
    let demos = ["demo-gemma4", "demo"].map(|name| format!("/usr/share/gemmad/models/{name}"));
    assert_eq!(config.model.path.to_str().unwrap(), demos[0]);
    for demo in demos {
        let here = demo.strip_prefix("/usr/share/gemmad/").unwrap();
        for file in fs::read_dir(top().join(here)).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let is_model = file.file_type().unwrap().is_file() && name != "README.md";
            let packed = installed.contains(&format!("{demo}/{name}"))
                || name.ends_with(".json") && installed.contains(&format!("{demo}/*.json"));
            assert_eq!(packed, is_model, "{demo}/{name}");
        }
    }
}

/// What the unit lets through suffices for the credential's drop-in and the program's key.
#[test]
fn the_password_example_names_what_the_reference_names() {
    let drop_in = read_to_string(top().join("systemd/examples/mqtt-password.conf")).unwrap();
    let credential = values(&drop_in, "LoadCredential")[0];
    let (name, _) = credential.split_once(':').unwrap();
    let reference = read_to_string(top().join("config/gemmad.toml")).unwrap();
    assert!(
        reference.contains(&format!("password_credential = \"{name}\"")),
        "{name}"
    );
}
