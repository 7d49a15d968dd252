use std::os::unix::fs::PermissionsExt;

use super::*;

/// One microphone, one camera, answers of up to 100 tokens.
fn config() -> Config {
    toml::from_str(
        "[[microphone]]\nid = \"kitchen\"\ndevice = \"x\"\n[[microphone]]\nid = \"hall\"\ndevice = \"y\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = \"/x\"\n[queue]\nmax_tokens = 100\n",
    )
    .unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What is read of this text, and what is said to be left out.
fn kept(text: &str) -> (Switches, String) {
    let kept = Kept::read(text.as_bytes(), &config()).unwrap();
    (kept.switches, kept.left_out.join("\n"))
}

#[test]
fn switches_survive_and_a_write_that_was_cut_off_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, mut switches) = StateFile::open(dir.path(), &config());
    assert!(!switches.is_muted("kitchen") && switches.is_enabled("porch"));
    assert_eq!(entries(dir.path()).len(), 0, "nothing is written unasked");
    switches.muted.insert("kitchen".to_owned(), true);
    switches.captions.insert("porch".to_owned(), false);
    switches.matformer = Some("half".to_owned());
    switches.max_tokens = Some(100);
    file.save(&switches);
    let mode = std::fs::metadata(dir.path().join(FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (_, read) = StateFile::open(dir.path(), &config());
    assert_eq!(read, switches);
    assert!(read.is_muted("kitchen") && !read.is_muted("hall") && !read.has_captions("porch"));

    std::fs::write(dir.path().join(PARTIAL), b"{\"muted\":{}").unwrap();
    let (_, read) = StateFile::open(dir.path(), &config());
    assert_eq!(read, switches);
    assert_eq!(entries(dir.path()), [FILE]);
}

#[test]
fn what_no_longer_fits_is_left_out_key_by_key_and_the_rest_is_kept() {
    let (switches, told) = kept(
        r#"{"muted": {"kitchen": true, "attic": false, "cellar": true}, "enabled": {"porch": false, "gate": true, "yard": false},
            "captions": {"porch": false}, "matformer": "half", "max_tokens": 101, "colour": 1}"#,
    );
    assert!(switches.is_muted("kitchen") && !switches.is_muted("hall"));
    assert!(!switches.is_enabled("porch") && !switches.has_captions("porch"));
    assert_eq!(switches.matformer.as_deref(), Some("half"));
    assert_eq!(switches.max_tokens, None);
    for words in [
        "\"attic\"",
        "\"gate\"",
        "`max_tokens` is 101",
        "1 to 100",
        "colour",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // What was shut stays so if it comes back.
    assert!(switches.is_muted("cellar") && !switches.is_enabled("yard"));
    assert!(!switches.muted.contains_key("attic") && !switches.enabled.contains_key("gate"));

    for tokens in [
        "0",
        "-1",
        "1.5",
        "\"17\"",
        "1e300",
        "[]",
        "true",
        "18446744073709551616",
    ] {
        let (switches, told) = kept(&format!(
            r#"{{"max_tokens": {tokens}, "matformer": "half"}}"#
        ));
        assert_eq!(switches.max_tokens, None, "{tokens}");
        assert!(told.contains("`max_tokens`"), "{tokens}: {told}");
        assert_eq!(switches.matformer.as_deref(), Some("half"));
    }
    for name in ["\"\"", "1", "{}", "[\"half\"]", "false"] {
        let (switches, told) = kept(&format!(r#"{{"max_tokens": 17, "matformer": {name}}}"#));
        assert_eq!((switches.matformer, switches.max_tokens), (None, Some(17)));
        assert!(told.contains("`matformer`"), "{name}: {told}");
    }
    let (switches, told) = kept(r#"{"max_tokens": 100, "matformer": null, "closed": false}"#);
    assert_eq!((switches.max_tokens, told.as_str()), (Some(100), ""));
    // However many there are, a warning has an end.
    let many: Vec<String> = (0..5000)
        .map(|n| format!("\"{n}{}\": false", "x".repeat(9)))
        .collect();
    let (_, told) = kept(&format!("{{\"muted\": {{{}}}}}", many.join(",")));
    assert!(
        told.contains("and 4992 more") && told.len() < 1000,
        "{told}"
    );
}

#[test]
fn a_slice_that_the_model_lacks_is_forgotten() {
    let slices = ["whole".to_owned(), "half".to_owned()];
    let (mut switches, _) = kept(r#"{"matformer": "third"}"#);
    assert!(switches.fit_model(&slices));
    assert_eq!(switches.matformer, None);
    let (mut switches, _) = kept(r#"{"matformer": "half"}"#);
    assert!(!switches.fit_model(&slices));
    assert_eq!(switches.matformer.as_deref(), Some("half"));
}

#[test]
fn what_a_damaged_key_said_is_taken_as_closed() {
    for value in ["null", "true", "[]", "\"kitchen\"", "1"] {
        let (switches, told) = kept(&format!(
            r#"{{"muted": {value}, "enabled": {{"porch": true}}}}"#
        ));
        assert!(
            switches.is_muted("kitchen") && switches.is_muted("hall"),
            "{value}"
        );
        assert!(switches.is_enabled("porch") && switches.has_captions("porch"));
        assert!(told.contains("`muted`"), "{told}");
        let (switches, _) = kept(&format!(
            r#"{{"enabled": {value}, "muted": {{"kitchen": true}}}}"#
        ));
        assert!(
            !switches.is_enabled("porch") && !switches.is_muted("hall"),
            "{value}"
        );
        let (switches, _) = kept(&format!(r#"{{"captions": {value}}}"#));
        assert!(
            !switches.has_captions("porch") && switches.is_enabled("porch"),
            "{value}"
        );
    }
    for value in ["null", "0", "\"false\"", "{}"] {
        let text = format!(
            r#"{{"muted": {{"kitchen": {value}}}, "enabled": {{"porch": {value}}}, "captions": {{"porch": {value}}}}}"#
        );
        let (switches, told) = kept(&text);
        assert!(
            switches.is_muted("kitchen") && !switches.is_muted("hall"),
            "{value}"
        );
        assert!(
            !switches.is_enabled("porch") && !switches.has_captions("porch"),
            "{value}"
        );
        assert_eq!(told.matches("neither true nor false").count(), 3, "{told}");
    }
    for closed in ["true", "{}", "null", "{\"microphones\": 1}"] {
        let (switches, _) = kept(&format!(
            r#"{{"closed": {closed}, "muted": {{"hall": false}}}}"#
        ));
        assert!(
            switches.is_muted("kitchen") && !switches.is_muted("hall"),
            "{closed}"
        );
        assert!(!switches.is_enabled("porch"), "{closed}");
    }
}

#[test]
fn whatever_stands_in_the_files_place_closes_everything_and_is_kept_beside() {
    let deep = format!(
        "{{\"muted\": {}{}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let huge = format!(
        "{{\"muted\": {{\"kitchen\": true}}}}{}",
        " ".repeat(300_000)
    );
    let files: [&[u8]; 9] = [
        b"",
        b"[]",
        b"\"muted\"",
        b"null",
        b"17",
        b"{\"muted\":{\"kitchen\":tr",
        b"\xff\xfe",
        deep.as_bytes(),
        huge.as_bytes(),
    ];
    let made: [&dyn Fn(&Path); 4] = [
        &|path| std::fs::create_dir(path).unwrap(),
        &|path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        },
        &|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        &|path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
    ];
    let all = files.len() + made.len();
    for case in 0..all {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        match files.get(case) {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => made[case - files.len()](&path),
        }
        let kind = path.symlink_metadata().unwrap().file_type();
        // Once, and again after a restart.
        for _ in 0..2 {
            let (_, switches) = StateFile::open(dir.path(), &config());
            assert!(
                switches.is_muted("kitchen") && switches.is_muted("hall"),
                "{case}"
            );
            assert!(!switches.is_enabled("porch") && !switches.has_captions("porch"));
            assert_eq!(entries(dir.path()), [FILE, DAMAGED], "{case}");
            let aside = dir.path().join(DAMAGED).symlink_metadata().unwrap();
            assert_eq!(aside.file_type(), kind, "{case}");
            assert!(path.symlink_metadata().unwrap().is_file());
        }
        if let Some(bytes) = files.get(case) {
            assert_eq!(std::fs::read(dir.path().join(DAMAGED)).unwrap(), *bytes);
        }
        // What somebody switches is open again, and stays so.
        let (file, mut switches) = StateFile::open(dir.path(), &config());
        switches.muted.insert("hall".to_owned(), false);
        file.save(&switches);
        let (_, switches) = StateFile::open(dir.path(), &config());
        assert!(switches.is_muted("kitchen") && !switches.is_muted("hall"));
        // A crash between the two steps of a directory's way: the damage is still known.
        std::fs::remove_file(&path).unwrap();
        let (_, switches) = StateFile::open(dir.path(), &config());
        assert!(switches.is_muted("hall"), "{case}");
        let aside = dir.path().join(DAMAGED).symlink_metadata().unwrap();
        assert_eq!(aside.file_type(), kind, "{case}");
    }
}
