//! Instructions whose keys and values are kept on disk: the answer is the same, to the bit of every key and value, and what is
//! damaged, of another model, or too much is not used.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::common::{fixtures, fixtures_gemma4, pack_of, tiny_pack};
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::model::decoder::kv_cache::KvType;
use gemmad::model::sampler::Sampling;
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use gemmad::pipeline::{
    Answer, Engine, EngineOptions, Generation, Message, Part, PrefixCacheOptions, Request,
};

const INSTRUCTIONS: &str = "You run the house. Rooms: kitchen, hall, garden, attic. Things: lamp, fan, blind, heater. Answer shortly, and name the room first.";

fn options(dir: Option<&Path>) -> EngineOptions {
    EngineOptions {
        threads: 1,
        context: 512,
        prefill_chunk: 16,
        kv_type: KvType::F16,
        prefix_cache: PrefixCacheOptions {
            dir: dir.map(Path::to_owned),
            ..PrefixCacheOptions::default()
        },
        ..EngineOptions::default()
    }
}

fn generation() -> Generation {
    Generation {
        sampling: Sampling::GREEDY,
        seed: 0,
        max_tokens: 24,
        stop: Vec::new(),
        grammar: None,
        tools: None,
    }
}

fn ask_of(engine: &mut Engine, system: &str, text: &str) -> Answer {
    let request = Request {
        conversation: None,
        messages: Message::with_instructions(
            Some(system.to_owned()),
            vec![Part::Text(text.to_owned())],
        ),
        matformer: None,
        thinking: None,
        generation: generation(),
    };
    engine
        .answer(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn answers_are_the_same_and_a_restart_forgets_nothing() {
    for kv_type in [KvType::F16, KvType::Int8] {
        for checkpoint in [fixtures(), fixtures_gemma4()] {
            instructions_are_kept(kv_type, &checkpoint);
        }
    }
}

fn instructions_are_kept(kv_type: KvType, checkpoint: &Path) {
    let home = tempfile::tempdir().unwrap();
    let pack = pack_of(checkpoint, Recipe::Balanced, home.path());
    let kept = home.path().join("kept");
    let options = |dir| EngineOptions {
        kv_type,
        ..options(dir)
    };
    let mut plain = Engine::open(&pack, options(None)).unwrap();
    let wanted = ask_of(&mut plain, INSTRUCTIONS, "Where is the lamp?");

    let mut engine = Engine::open(&pack, options(Some(&kept))).unwrap();
    for (found, kept_files) in [(false, 0), (false, 1), (true, 1)] {
        let answer = ask_of(&mut engine, INSTRUCTIONS, "Where is the lamp?");
        assert_eq!(answer.text, wanted.text);
        assert_eq!(answer.timing.prompt_tokens, wanted.timing.prompt_tokens);
        assert_eq!(answer.timing.cached_tokens > 0, found);
        assert_eq!(files(&kept).len(), kept_files);
    }
    // Another process, another question, and instructions that begin alike.
    let mut again = Engine::open(&pack, options(Some(&kept))).unwrap();
    let other = ask_of(&mut again, INSTRUCTIONS, "And the fan?");
    assert!(other.timing.cached_tokens > 32, "{:?}", other.timing);
    assert_eq!(
        other.text,
        ask_of(&mut plain, INSTRUCTIONS, "And the fan?").text
    );
    let more = format!("{INSTRUCTIONS} Be polite.");
    let polite = ask_of(&mut again, &more, "And the fan?");
    assert_eq!(polite.timing.cached_tokens, 0);
    assert_eq!(polite.text, ask_of(&mut plain, &more, "And the fan?").text);
}

/// What stands before speech is read before anybody waits, and the second time not at all.
#[test]
fn instructions_before_speech_are_kept_too() {
    for checkpoint in [fixtures(), fixtures_gemma4()] {
        instructions_before_speech_are_kept(&checkpoint);
    }
}

fn instructions_before_speech_are_kept(checkpoint: &Path) {
    let home = tempfile::tempdir().unwrap();
    let pack = pack_of(checkpoint, Recipe::Balanced, home.path());
    let kept = home.path().join("kept");
    let file = checkpoint.join("golden/a0_5.wav");
    let samples = read_audio_file(&file, &AudioLimits::default())
        .unwrap()
        .samples;
    let mut texts = Vec::new();
    for (dir, times, found) in [
        (None, 1, false),
        (Some(&*kept), 2, false),
        (Some(&*kept), 1, true),
    ] {
        let mut engine = Engine::open(&pack, options(dir)).unwrap();
        for _ in 0..times {
            let mut speech = engine
                .start_speech(Some(INSTRUCTIONS), "Which?", None)
                .unwrap();
            engine.hear(&mut speech, &samples).unwrap();
            let answer = engine
                .finish_speech(speech, &generation(), &mut |_| ControlFlow::Continue(()))
                .unwrap();
            assert_eq!(answer.timing.cached_tokens > 32, found);
            texts.push(answer.text);
        }
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[test]
fn what_is_damaged_is_removed_and_computed_anew() {
    let home = tempfile::tempdir().unwrap();
    let pack = tiny_pack(Recipe::Balanced, home.path());
    let kept = home.path().join("kept");
    let mut engine = Engine::open(&pack, options(Some(&kept))).unwrap();
    let wanted = ask_of(&mut engine, INSTRUCTIONS, "Where?").text;
    ask_of(&mut engine, INSTRUCTIONS, "Where?");
    let file = files(&kept).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], &whole[..7], &[]] {
        std::fs::write(&file, damaged).unwrap();
        let answer = ask_of(&mut engine, INSTRUCTIONS, "Where?");
        assert_eq!((answer.timing.cached_tokens, &answer.text), (0, &wanted));
        let now = std::fs::read(&file).ok();
        assert!(now.is_none_or(|now| now == whole), "gone, or made anew");
        std::fs::write(&file, &whole).unwrap();
        let answer = ask_of(&mut engine, INSTRUCTIONS, "Where?");
        assert!(answer.timing.cached_tokens > 0 && answer.text == wanted);
    }
    // A file that a killed process left behind goes at the next start.
    let partial = kept.join("gemmad-prefix-0.partial");
    std::fs::write(&partial, "half").unwrap();
    Engine::open(&pack, options(Some(&kept))).unwrap();
    assert!(!partial.exists());
}

#[test]
fn another_model_another_type_and_another_context_have_files_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("kept");
    let packs = [Recipe::Balanced, Recipe::Small].map(|recipe| {
        let dir = home.path().join(recipe.name());
        std::fs::create_dir(&dir).unwrap();
        tiny_pack(recipe, &dir)
    });
    let base = options(Some(&kept));
    let others = [
        (&packs[0], base.clone()),
        (&packs[1], base.clone()),
        (
            &packs[0],
            EngineOptions {
                kv_type: KvType::F32,
                ..base.clone()
            },
        ),
        (
            &packs[0],
            EngineOptions {
                context: 300,
                ..base
            },
        ),
    ];
    for (n, (pack, options)) in others.into_iter().enumerate() {
        let mut engine = Engine::open(pack, options).unwrap();
        for _ in 0..2 {
            let answer = ask_of(&mut engine, INSTRUCTIONS, "Where?");
            assert_eq!(answer.timing.cached_tokens, 0, "{n}");
        }
        assert_eq!(files(&kept).len(), n + 1);
    }
}

/// A copy of a checkpoint with one thing changed in it.
fn changed(from: &Path, to: &Path, change: impl Fn(&str, &mut Vec<u8>)) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_file() {
            let mut bytes = std::fs::read(&path).unwrap();
            change(name, &mut bytes);
            std::fs::write(to.join(name), bytes).unwrap();
        }
    }
}

/// Families, and revisions of one model, have files of their own: also where they differ in a value of config.json only, or in one
/// weight.
#[test]
fn another_family_and_another_revision_have_files_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("kept");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let gemma4 = models.join("demo-gemma4");
    let (config, weight) = (home.path().join("config"), home.path().join("weight"));
    changed(&gemma4, &config, |name, bytes| {
        if name == "config.json" {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let base = "\"rope_theta\": 10000.0";
            assert!(text.contains(base));
            *bytes = text
                .replacen(base, "\"rope_theta\": 10001.0", 1)
                .into_bytes();
        }
    });
    changed(&gemma4, &weight, |name, bytes| {
        if name == "model.safetensors" {
            let last = bytes.len() - 2;
            bytes[last] ^= 1;
        }
    });
    let pool = kernels::Pool::new(kernels::Isa::best(), 1);
    let revisions = [&models.join("demo"), &gemma4, &config, &weight];
    for (n, from) in revisions.into_iter().enumerate() {
        let pack = home.path().join(format!("{n}.pack"));
        pack_checkpoint(from, &pack, PackOptions::default(), &pool, &mut |_, _| {}).unwrap();
        let mut engine = Engine::open(&pack, options(Some(&kept))).unwrap();
        for times in 0..3 {
            let answer = ask_of(&mut engine, INSTRUCTIONS, "Where?");
            assert_eq!(answer.timing.cached_tokens > 0, times == 2, "{n}");
        }
        assert_eq!(files(&kept).len(), n + 1);
    }
}

#[test]
fn the_least_recently_used_make_room() {
    let home = tempfile::tempdir().unwrap();
    let pack = tiny_pack(Recipe::Balanced, home.path());
    let kept = home.path().join("kept");
    let mut engine = Engine::open(&pack, options(Some(&kept))).unwrap();
    let instructions = |n: usize| format!("House {n}. {}", INSTRUCTIONS.repeat(2));
    let is_kept = |engine: &mut Engine, n| {
        ask_of(engine, &instructions(n), "Where?")
            .timing
            .cached_tokens
            > 0
    };
    for n in [0, 0, 1, 1] {
        assert!(!is_kept(&mut engine, n));
    }
    let bytes = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let most = files(&kept).iter().map(bytes).max().unwrap();
    // Room for as many as fit a MiB.
    let fit = ((1 << 20) / most) as usize;
    assert!(fit >= 2, "{most} bytes each");
    let mut small = options(Some(&kept));
    small.prefix_cache.max_mib = 1;
    let mut engine = Engine::open(&pack, small).unwrap();
    for n in 2..fit + 2 {
        assert!(is_kept(&mut engine, 1), "it is used again and again");
        is_kept(&mut engine, n);
        is_kept(&mut engine, n);
    }
    let total: u64 = files(&kept).iter().map(bytes).sum();
    assert!(total <= 1 << 20, "{total} bytes");
    assert!(is_kept(&mut engine, 1) && !is_kept(&mut engine, 0));
}

/// Where the test below finds what it is to do as a process of its own: the umask is the process's.
const KEPT_BY_CHILD: &str = "GEMMAD_TEST_KEPT";

#[test]
fn instructions_on_disk_are_for_their_user_only_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    if let Some(home) = std::env::var_os(KEPT_BY_CHILD) {
        let home = Path::new(&home);
        let pack = tiny_pack(Recipe::Balanced, home);
        let mut engine = Engine::open(&pack, options(Some(&home.join("new/kept")))).unwrap();
        ask_of(&mut engine, INSTRUCTIONS, "Where?");
        ask_of(&mut engine, INSTRUCTIONS, "Where?");
        return;
    }
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for umask in ["022", "000"] {
        let home = tempfile::tempdir().unwrap();
        let script = format!("umask {umask}; exec \"$@\"");
        let status = std::process::Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "prefix_cache::instructions_on_disk_are_for_their_user_only_whatever_the_umask",
            ])
            .env(KEPT_BY_CHILD, home.path())
            .status();
        assert!(status.unwrap().success());
        let kept = home.path().join("new/kept");
        let file = files(&kept).remove(0);
        for (path, wanted) in [
            (&*kept, 0o700),
            (kept.parent().unwrap(), 0o700),
            (&*file, 0o600),
        ] {
            assert_eq!(mode(path), wanted, "{path:?}, umask {umask}");
        }
        // As an earlier version left them.
        set(&file, 0o644);
        set(&kept, 0o755);
        let pack = home.path().join("tiny.pack");
        let mut again = Engine::open(&pack, options(Some(&kept))).unwrap();
        assert_eq!((mode(&kept), mode(&file)), (0o700, 0o600));
        let answer = ask_of(&mut again, INSTRUCTIONS, "Where?");
        assert!(answer.timing.cached_tokens > 0);
    }
}

/// Without a word of who asks, or where the beginning ends: it shows where prompts part.
#[test]
fn beginnings_that_came_before_are_taken_from_memory() {
    for checkpoint in [fixtures(), fixtures_gemma4()] {
        let home = tempfile::tempdir().unwrap();
        let pack = pack_of(&checkpoint, Recipe::Balanced, home.path());
        let kept = home.path().join("kept");
        let mut plain = Engine::open(&pack, options(None)).unwrap();
        let with_memory = |prefix_bytes, dir| {
            let options = EngineOptions {
                prefix_bytes,
                ..options(dir)
            };
            Engine::open(&pack, options).unwrap()
        };
        let user = |engine: &mut Engine, text: &str| {
            let request = Request {
                conversation: None,
                messages: Message::user(vec![Part::Text(format!("{INSTRUCTIONS} {text}"))]),
                matformer: None,
                thinking: None,
                generation: generation(),
            };
            engine
                .answer(&request, &mut |_| ControlFlow::Continue(()))
                .unwrap()
        };
        let mut engine = with_memory(64 << 20, Some(&*kept));
        for (text, found) in [
            ("Where is the lamp?", false),
            ("A fan, is there one?", false), // here it shows what they have in common
            ("Is it warm?", true),
            ("No, thanks.", true),
        ] {
            let (answer, wanted) = (user(&mut engine, text), user(&mut plain, text));
            assert_eq!(answer.text, wanted.text, "{text}");
            assert_eq!(answer.timing.prompt_tokens, wanted.timing.prompt_tokens);
            assert_eq!(
                answer.timing.cached_tokens > 32,
                found,
                "{text}: {:?}",
                answer.timing
            );
        }
        // Instructions are known from the first time on.
        for (text, again) in [("Where?", false), ("When?", true)] {
            let (answer, wanted) = (
                ask_of(&mut engine, INSTRUCTIONS, text),
                ask_of(&mut plain, INSTRUCTIONS, text),
            );
            assert_eq!(answer.text, wanted.text);
            let found = answer.timing.cached_tokens > 32;
            assert!(found || !again, "{text}: {:?}", answer.timing);
        }
        // After a restart it is on disk.
        let mut again = with_memory(64 << 20, Some(&*kept));
        let (answer, wanted) = (user(&mut again, "Why?"), user(&mut plain, "Why?"));
        assert_eq!(answer.text, wanted.text);
        assert!(answer.timing.cached_tokens > 32, "{:?}", answer.timing);
        // Where there is no room nothing is kept, and nothing is lost.
        let mut small = with_memory(1, None);
        for text in ["Where?", "Where?", "Where?"] {
            let answer = user(&mut small, text);
            assert_eq!(answer.text, user(&mut plain, text).text);
            assert_eq!(answer.timing.cached_tokens, 0);
        }
    }
}
