//! Manual pages and completions: every subcommand has a page, and groff and bash find nothing wrong with them.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

fn pages() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert_cmd::Command::cargo_bin("gemmad")
        .unwrap()
        .arg("pages")
        .arg(dir.path())
        .assert()
        .success()
        .stdout("")
        .stderr("");
    dir
}

/// A page as `man` shows it, 80 characters wide, without its bold; `None` where there is no groff.
#[allow(
    clippy::print_stderr,
    reason = "a test that is skipped says so where its reader looks"
)]
fn shown(page: &Path) -> Option<String> {
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-Kutf8", "-P-c", "-P-b", "-P-u"])
        .arg(page)
        .output();
    let output = match groff {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: groff is missing (apt-get install groff-base)");
            return None;
        }
        Err(error) => panic!("groff: {error}"),
    };
    let warnings = String::from_utf8_lossy(&output.stderr);
    // Lines of the configuration are wider than a terminal and cannot be broken.
    let serious: Vec<&str> = warnings
        .lines()
        .filter(|line| !line.contains("can't break line"))
        .collect();
    assert!(
        output.status.success() && serious.is_empty(),
        "{}: {serious:?}",
        page.display()
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_subcommand_has_a_page() {
    let dir = pages();
    let man = dir.path().join("man");
    let mut expected = vec!["gemmad.toml.5".to_owned()];
    let mut commands = vec![("gemmad".to_owned(), gemmad::cli::command())];
    while let Some((name, command)) = commands.pop() {
        expected.push(format!("{name}.1"));
        let visible = command.get_subcommands();
        let visible = visible.filter(|command| !command.is_hide_set());
        commands.extend(visible.map(|part| (format!("{name}-{}", part.get_name()), part.clone())));
    }
    expected.sort();
    let mut found: Vec<String> = std::fs::read_dir(&man)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected);
    for page in &found {
        let Some(text) = shown(&man.join(page)) else {
            return;
        };
        assert!(
            text.contains("NAME") && text.contains("gemmad"),
            "{page}: {text}"
        );
    }
}

#[test]
fn the_page_of_the_configuration_shows_the_reference() {
    let dir = pages();
    let Some(text) = shown(&dir.path().join("man/gemmad.toml.5")) else {
        return;
    };
    let reference =
        read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gemmad.toml")).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = words(&text);
    for line in reference.lines() {
        assert!(
            shown.contains(&words(line)),
            "not shown as it stands: {line}"
        );
    }
}

#[test]
fn bash_completes_subcommands() {
    let dir = pages();
    let script = dir.path().join("completions/gemmad.bash");
    assert!(
        dir.path().join("completions/_gemmad").is_file()
            && dir.path().join("completions/gemmad.fish").is_file()
    );
    let ask = "source \"$0\"; COMP_WORDS=(gemmad che); COMP_CWORD=1; _gemmad gemmad che gemmad; echo \"${COMPREPLY[*]}\"";
    let output = Command::new("bash")
        .arg("-c")
        .arg(ask)
        .arg(&script)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "check-config",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
