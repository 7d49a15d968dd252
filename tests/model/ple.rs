//! `[ple]`: the per-layer-embedding table on flash, its row cache and its copy, as a user and the system see them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Slice, Tokens, no_probe};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::weights::{Checkpoint, PleOptions, PleStore};

use crate::common::pages::{cached_bytes, home, packed, tiny_a};

fn gemmad() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gemmad"))
}

fn ids(n: usize, below: u32) -> Vec<u32> {
    // A linear congruential generator (Knuth).
    let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let random = std::iter::successors(Some(1u32), next);
    random.map(|x| (x >> 8) % below).take(n).collect()
}

#[test]
fn memory_stays_bounded_while_500_tokens_are_decoded() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let table = pack.join("ple.safetensors");
    let size = table.metadata().unwrap().len();
    // A page cache full of the table, as the writing of the pack leaves it.
    std::fs::read(&table).unwrap();
    let config = Config::load(&pack).unwrap().text;
    let checkpoint = Checkpoint::open(&pack).unwrap();
    let options = PleOptions {
        row_cache_mib: 0,
        cache_dir: None,
    };
    let ple = PleStore::open(&checkpoint, config.ple_shape(), &options, &mut |_, _| {}).unwrap();
    let page = 4096;
    let most = ple.row_bytes() as u64 + 2 * page;
    assert!(size > 20 * most, "{size} bytes are no table");
    let text = TextModel::with_ple(&checkpoint, &config, ple).unwrap();
    let pool = kernels::Pool::new(kernels::Isa::best(), 2);
    let mut cache = KvCache::new(&config.layers(), KvType::F16, 600, 64);
    let mut work = Workspace::new(&config, 64);
    let slice = Slice::full(&config.layers());
    let mut extend = |ids: &[u32]| {
        text.extend(
            &pool,
            &mut cache,
            &mut work,
            Tokens::new(ids, &slice),
            &mut no_probe,
        )
        .unwrap();
    };
    extend(&ids(64, 2048));
    let mut largest = 0;
    for (n, &id) in ids(500, 2048).iter().enumerate() {
        let before = text.ple().counts().read;
        extend(&[id]);
        // However slow the disk is, a token waits for no more than its own row.
        assert!(text.ple().counts().read - before <= 1, "token {n}");
        if n % 50 == 49 {
            largest = largest.max(cached_bytes(&table));
            assert!(text.ple().resident_bytes() <= most + page);
        }
    }
    // The header's pages were read when the pack was opened.
    assert!(
        largest <= most + 2 * page,
        "{largest} of {size} bytes in the page cache"
    );
    let counts = text.ple().counts();
    assert_eq!(counts.used, 564);
    assert!(counts.read >= 500);
}

/// Asks the demo question with a configuration; gives what was said and what was warned of.
fn ask(model: &Path, config: &Path, cache_dir: &Path) -> (String, String) {
    let text = format!("[ple]\ncache_dir = {:?}\nrow_cache_mib = 1\n", cache_dir);
    std::fs::write(config, text).unwrap();
    told(asking(model, config).output().unwrap())
}

fn asking(model: &Path, config: &Path) -> Command {
    let mut command = gemmad();
    command.args([
        "ask",
        "--seed",
        "1",
        "--temperature",
        "0",
        "--max-tokens",
        "12",
    ]);
    command
        .arg("--model")
        .arg(model)
        .arg("--config")
        .arg(config);
    command.arg("Turn on the light.");
    command
}

fn told(output: Output) -> (String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    (text(output.stdout), text(output.stderr))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn only_copy(dir: &Path) -> PathBuf {
    let names = names(dir);
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].ends_with(".copy"), "{names:?}");
    dir.join(&names[0])
}

#[test]
fn the_table_is_copied_once_and_a_damaged_copy_is_made_again() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let (config, dir) = (home.path().join("g.toml"), home.path().join("flash"));
    let (want, _) = told(
        asking(&pack, Path::new("config/gemmad.toml"))
            .output()
            .unwrap(),
    );
    let same = |expect_warning: &str| {
        let (said, warned) = ask(&pack, &config, &dir);
        assert_eq!(said, want);
        assert!(warned.contains(expect_warning), "{warned}");
        warned
    };
    assert_eq!(same(""), "");
    let copy = only_copy(&dir);
    let original = std::fs::read(pack.join("ple.safetensors")).unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), original);
    let inode = || copy.metadata().unwrap().ino();
    let first = inode();
    assert_eq!(same(""), "");
    assert_eq!(inode(), first, "the copy is used again");

    // One bit of a row; and a copy that ends too soon.
    let mut flipped = original.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [&flipped[..], &original[..middle]] {
        std::fs::write(&copy, damaged).unwrap();
        same("");
        assert_eq!(std::fs::read(only_copy(&dir)).unwrap(), original);
    }
    // The same bytes under another age are checked, not copied.
    let before = inode();
    std::fs::write(&copy, &original).unwrap();
    same("");
    assert_eq!(inode(), before);

    // A damaged pack is not copied, and says so.
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(pack.join("ple.safetensors"), &flipped).unwrap();
    let (_, warned) = ask(&pack, &config, &dir);
    assert!(warned.contains("inspect --verify"), "{warned}");
    assert!(names(&dir).is_empty(), "{:?}", names(&dir));
}

#[test]
fn a_checkpoint_as_published_is_copied_too() {
    let home = home();
    let (config, dir) = (home.path().join("g.toml"), home.path().join("flash"));
    let (want, _) = told(
        asking(&tiny_a(), Path::new("config/gemmad.toml"))
            .output()
            .unwrap(),
    );
    assert_eq!(ask(&tiny_a(), &config, &dir), (want.clone(), String::new()));
    let copy = only_copy(&dir);
    let inode = copy.metadata().unwrap().ino();
    assert_eq!(
        copy.metadata().unwrap().len(),
        2048 * 240 * 2,
        "the table alone"
    );
    assert_eq!(ask(&tiny_a(), &config, &dir), (want.clone(), String::new()));
    assert_eq!(copy.metadata().unwrap().ino(), inode);
    // Without a stored hash a copy that somebody touched is not trusted.
    std::fs::write(&copy, vec![0; 2048 * 240 * 2]).unwrap();
    assert_eq!(ask(&tiny_a(), &config, &dir).0, want);
    assert_ne!(std::fs::read(only_copy(&dir)).unwrap()[..480], [0; 480]);
}

#[test]
fn where_nothing_can_be_copied_the_table_is_read_where_it_is() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let config = home.path().join("g.toml");
    let (want, _) = told(
        asking(&pack, Path::new("config/gemmad.toml"))
            .output()
            .unwrap(),
    );
    // Below a file there are no directories, for root neither.
    let (said, warned) = ask(&pack, &config, &config.join("flash"));
    assert_eq!(said, want);
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert!(
        warned.contains("g.toml/flash") && warned.contains("ple.safetensors instead"),
        "{warned}"
    );

    // The disk takes no more, in the middle of the copy.
    let dir = home.path().join("flash");
    std::fs::write(&config, format!("[ple]\ncache_dir = {dir:?}\n")).unwrap();
    let inner = asking(&pack, &config);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""]);
    limited.arg(inner.get_program()).args(inner.get_args());
    let (said, warned) = told(limited.output().unwrap());
    assert_eq!(said, want);
    assert!(warned.contains(".partial"), "{warned}");
    assert!(names(&dir).is_empty(), "{:?}", names(&dir));
}

#[test]
fn a_copy_that_was_interrupted_is_never_used() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let (config, dir) = (home.path().join("g.toml"), home.path().join("flash"));
    let (want, _) = ask(&pack, &config, &dir);
    let copy = only_copy(&dir);
    let original = std::fs::read(&copy).unwrap();
    for delay_ms in 0..40 {
        std::fs::remove_file(&copy).ok();
        let mut child = asking(&pack, &config)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if copy.exists() {
            assert_eq!(
                std::fs::read(&copy).unwrap(),
                original,
                "killed after {delay_ms} ms"
            );
        }
    }
    // What such processes leave, of this table and of others, and a copy of another pack, for which there is room.
    std::fs::remove_file(&copy).ok();
    std::fs::write(copy.with_extension("partial"), &original[..1000]).unwrap();
    std::fs::write(dir.join("gemmad-ple-0123.partial"), "half").unwrap();
    std::fs::write(dir.join("gemmad-ple-0123.copy"), "of another").unwrap();
    std::fs::write(dir.join("notes.partial"), "mine").unwrap();
    assert_eq!(ask(&pack, &config, &dir), (want, String::new()));
    assert_eq!(std::fs::read(&copy).unwrap(), original);
    let copy = copy.file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected = [
        "gemmad-ple-0123.copy".to_owned(),
        copy,
        "notes.partial".to_owned(),
    ];
    expected.sort();
    assert_eq!(names(&dir), expected);
}

/// Runs `ask` with the copy on a file system of `size` in a name space of its own, where `prepare` was run before; what it said,
/// what it warned of, and the names that are left. `None` where nobody may mount.
fn ask_on_small_disk(
    pack: &Path,
    home: &Path,
    size: &str,
    prepare: &str,
) -> Option<(String, String)> {
    let dir = home.join("small");
    std::fs::create_dir_all(&dir).unwrap();
    let config = home.join("small.toml");
    std::fs::write(&config, format!("[ple]\ncache_dir = {dir:?}\n")).unwrap();
    let script = r#"mount -t tmpfs -o "size=$1" none "$2" || exit 99
        cd "$2"; eval "$3"; shift 3
        cd "$OLDPWD"; "$0" "$@"; code=$?
        ls "$DIR" >&2; exit $code"#;
    let inner = asking(pack, &config);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command
        .arg(inner.get_program())
        .arg(size)
        .arg(&dir)
        .arg(prepare);
    command.args(inner.get_args()).env("DIR", &dir);
    let output = command.output().ok()?;
    let refused = output.status.code() == Some(99)
        || String::from_utf8_lossy(&output.stderr).starts_with("unshare:");
    (!refused).then(|| told(output))
}

#[test]
fn an_older_copy_makes_room_and_a_disk_too_small_is_not_filled() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let (want, _) = told(
        asking(&pack, Path::new("config/gemmad.toml"))
            .output()
            .unwrap(),
    );
    // The table has half a MB; 16 MiB are to be left free.
    let other = "head -c 3000000 /dev/zero > gemmad-ple-0123.copy; echo mine > notes";
    let Some((said, told)) = ask_on_small_disk(&pack, home.path(), "18m", other) else {
        return;
    };
    assert_eq!(said, want);
    assert!(
        told.contains("notes") && told.contains(".copy") && !told.contains("gemmad-ple-0123"),
        "{told}"
    );
    let (said, told) = ask_on_small_disk(&pack, home.path(), "16m", other).unwrap();
    assert_eq!(said, want);
    assert!(
        told.contains("bytes free") && told.contains("ple.safetensors instead"),
        "{told}"
    );
}
