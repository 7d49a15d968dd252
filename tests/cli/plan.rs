//! `gemmad plan`: what it says of a model before it is packed is what the pack then is, and what it reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn gemmad(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    command.args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = gemmad(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

/// The board of a plan, whose memory is not measured.
const BOARD: [&str; 5] = [
    "plan",
    "--json",
    "--memory-gib=4",
    "--read-gb-s=5",
    "--context=512",
];

fn plan(more: &[&str]) -> Value {
    json(&[&BOARD, more].concat())
}

/// Rows of a model in a recipe.
fn rows<'a>(plan: &'a Value, model: &str, recipe: &str) -> Vec<&'a Value> {
    let all = plan["rows"].as_array().unwrap().iter();
    all.filter(|row| row["model"] == model && row["recipe"] == recipe)
        .collect()
}

fn number(value: &Value, key: &str) -> f64 {
    let number = value[key].as_f64();
    number.unwrap_or_else(|| panic!("{key} of {value}"))
}

/// A copy of the demo model with as many slices as E4B has: a matrix that is cut at each is more than ten tensors.
fn with_many_slices(place: &Path) -> PathBuf {
    let dir = place.join("many");
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(demo()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
    let slice = |n: usize| format!("[s{n}]\nintermediate_size = {}\nskip_layers = []\n", 32 * n);
    let slices: String = (1..=12).map(slice).collect();
    std::fs::write(dir.join("slices.toml"), slices).unwrap();
    dir
}

/// Bytes of the head's second plane, which is not loaded but read by row.
fn second_plane_bytes(pack: &Path) -> f64 {
    let file = std::fs::read(pack.join("text.safetensors")).unwrap();
    let length = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    match &header["model.language_model.embed_tokens.residual"]["data_offsets"] {
        Value::Null => 0.0,
        offsets => offsets[1].as_f64().unwrap() - offsets[0].as_f64().unwrap(),
    }
}

#[test]
fn a_checkpoint_is_planned_as_the_packs_that_are_made_of_it() {
    let home = tempfile::tempdir().unwrap();
    let many = with_many_slices(home.path());
    let trained = demo().with_file_name("demo-gemma4").join("mobile");
    let any = &["small", "q4_0", "balanced", "q8"][..];
    for (dir, name, slices, recipes) in [
        (demo(), "demo", 2, any),
        (many, "many", 13, any),
        (trained, "mobile", 1, &["mobile"]),
    ] {
        let dir = dir.to_str().unwrap();
        let planned = plan(&["--model", dir, "--flash-mb-s=100"]);
        let own = planned["rows"].as_array().unwrap().iter();
        let own = own.filter(|row| row["model"] == name);
        assert_eq!(own.count(), slices * recipes.len(), "{name}");
        for &recipe in recipes {
            let target = home.path().join(format!("{name}-{recipe}.pack"));
            let pack = target.to_str().unwrap();
            printed(&["pack", "--from", dir, "--to", pack, "--recipe", recipe]);
            let of_pack = plan(&["--model", pack, "--flash-mb-s=100"]);
            let before = rows(&planned, name, recipe);
            let after = rows(&of_pack, &format!("{name}-{recipe}.pack"), recipe);
            assert_eq!((before.len(), after.len()), (slices, slices), "{recipe}");
            for (before, after) in before.into_iter().zip(after) {
                let mut after = after.clone();
                after["model"] = name.into();
                assert_eq!(*before, after);
            }
            // The files themselves.
            let inspected = json(&["inspect", "--json", "--model", pack]);
            let groups = inspected["groups"].as_array().unwrap();
            let bytes: Vec<f64> = groups.iter().map(|group| number(group, "bytes")).collect();
            let [text, ple, audio, vision] = bytes[..] else {
                panic!("{inspected}");
            };
            let whole = rows(&planned, name, recipe)[0];
            assert_eq!(number(whole, "flash_bytes"), text + ple + audio + vision);
            let idle = number(whole, "resident_idle_bytes");
            assert!(idle > text, "keys, values and buffers come to it");
            assert_eq!(number(whole, "resident_speech_bytes"), idle + audio);
            assert_eq!(number(whole, "resident_motion_bytes"), idle + vision);
            // At 100 MB/s.
            let load = &whole["projected_load_s_at_least"];
            let text = text - second_plane_bytes(&target);
            for (group, bytes) in [("text", text), ("audio", audio), ("vision", vision)] {
                let wrong = number(load, group) * 1e8 - bytes;
                assert!(wrong.abs() < 1.0, "{group} of {whole}: {wrong} bytes");
            }
        }
    }
}

#[test]
fn a_token_reads_what_the_bench_counts() {
    let home = tempfile::tempdir().unwrap();
    let pack = home.path().join("demo.pack");
    let pack = pack.to_str().unwrap();
    printed(&["pack", "--from", demo().to_str().unwrap(), "--to", pack]);
    let planned = plan(&["--model", pack]);
    for row in rows(&planned, "demo.pack", "balanced") {
        let slice = row["matformer"].as_str().unwrap();
        let bench = [
            "bench",
            "--json",
            "--threads=1",
            "--prefill=8",
            "--decode=16",
            "--runs=1",
        ];
        let bench = json(&[&bench[..], &["--matformer", slice, "--model", pack]].concat());
        let (planned, counted) = (
            number(row, "weight_bytes_per_token"),
            number(&bench, "weight_bytes_per_token"),
        );
        // Which neurons of a sparse layer are active is chance; the plan has their mean.
        assert!(
            (planned / counted - 1.0).abs() < 0.1,
            "{slice}: {planned}, {counted}"
        );
    }
}

#[test]
fn flash_is_measured_where_the_model_lies_unless_it_is_given() {
    let demo = demo();
    let model = ["--model", demo.to_str().unwrap()];
    let measured = plan(&model);
    let flash = &measured["flash"];
    assert!(number(flash, "mb_s") > 0.0 && number(flash, "row_ms") > 0.0);
    assert_eq!(flash["measured"], true);
    let given = plan(&[&model[..], &["--flash-mb-s=90"]].concat());
    let flash = serde_json::json!({"mb_s": 90.0, "measured": false, "row_ms": null, "through_page_cache": false});
    assert_eq!(given["flash"], flash);
    // Of the published sizes too, wherever they are going to lie; without either, nobody knows.
    let unknown = plan(&[]);
    assert!(unknown["flash"].is_null());
    for (plan, known) in [(&measured, true), (&given, true), (&unknown, false)] {
        for model in ["Gemma 3n E2B", "Gemma 4 E2B"] {
            let rows = rows(plan, model, "small");
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0]["projected_load_s_at_least"].is_object(), known);
        }
    }
    assert_eq!(
        rows(&given, "Gemma 3n E4B", "q8").len(),
        2,
        "the smallest slice and the whole"
    );
    let all = plan(&["--all-slices"]);
    assert_eq!(
        rows(&all, "Gemma 3n E4B", "q8").len(),
        17,
        "the published ones, and the whole"
    );

    let text = printed(&[
        "plan",
        "--memory-gib=4",
        "--read-gb-s=5",
        "--flash-mb-s=90",
        model[0],
        model[1],
    ]);
    for words in [
        "90 MB/s from flash in one go (as given)",
        "demo          balanced  half",
        "Gemma 3n E4B  small     e2b",
        "Gemma 4 E4B   small     full",
        "load is a projection",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let text = printed(&["plan", "--memory-gib=4", "--read-gb-s=5"]);
    assert!(!text.contains("load") && !text.contains("MB/s"), "{text}");
}

/// Gemma 4 is one model, without slices; its keys and values grow with the context, as its specification counts (section 2.6).
#[test]
fn gemma_4_is_planned_as_its_specification_counts() {
    let [short, long, beyond] = ["1024", "131072", "32768"].map(|context| {
        let arguments = [
            "plan",
            "--json",
            "--memory-gib=8",
            "--read-gb-s=10",
            "--context",
            context,
        ];
        json(&arguments)
    });
    for (model, kib_a_token) in [("Gemma 4 E2B", 6.0), ("Gemma 4 E4B", 16.0)] {
        let [short, long] = [&short, &long].map(|plan| rows(plan, model, "balanced"));
        assert_eq!((short.len(), long.len()), (1, 1), "{model} has no slices");
        let idle = |row: &Value| number(row, "resident_idle_bytes");
        let grown = (idle(long[0]) - idle(short[0])) / 1024.0;
        assert_eq!(grown, kib_a_token * (131_072.0 - 1024.0), "{model}");
    }
    // Gemma 3n cannot have so many.
    let of = |plan| {
        number(
            rows(plan, "Gemma 3n E2B", "small")[0],
            "resident_idle_bytes",
        )
    };
    assert_eq!(of(&long), of(&beyond));
}

/// The specification of the mobile checkpoints counts 795.6 and 2230.3 MB a token (section 1.4).
#[test]
fn gemma_4_that_was_trained_in_few_bits_is_small() {
    let planned = json(&[&BOARD[..4], &["--context=4096"]].concat());
    for (model, token_mb, idle_gb, all_gb) in [
        ("Gemma 4 E2B", 800.0, 0.95, 1.5),
        ("Gemma 4 E4B", 2240.0, 2.5, 2.8),
    ] {
        let rows = rows(&planned, model, "mobile");
        assert_eq!(rows.len(), 1, "{model}");
        let of = |key: &str| number(rows[0], key);
        let token = of("weight_bytes_per_token") / 1e6;
        assert!((token_mb * 0.99..=token_mb).contains(&token), "{token} MB");
        let idle = of("resident_idle_bytes");
        let towers = of("resident_speech_bytes") + of("resident_motion_bytes") - 2.0 * idle;
        assert!(idle <= idle_gb * 1e9, "{model}: {idle}");
        assert!(idle + towers <= all_gb * 1e9, "{model}: {idle} + {towers}");
    }
    assert!(rows(&planned, "Gemma 3n E2B", "mobile").is_empty());
}

/// docs/boards.md shows two plans in one table: 4 GiB at 5.6 GB/s, and 8 GiB at 11.
#[test]
fn the_documents_show_what_is_planned() {
    let [small, large] = [["4", "5.6"], ["8", "11"]].map(|[memory, read]| {
        json(&[
            "plan",
            "--json",
            "--memory-gib",
            memory,
            "--read-gb-s",
            read,
        ])
    });
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/boards.md");
    let document = std::fs::read_to_string(document).unwrap();
    let mut seen = 0;
    for line in document.lines().filter(|line| line.starts_with("| Gemma ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[name, flash, resident, slow, fast, ..] = &*cells else {
            continue;
        };
        // `Gemma 4 E2B `mobile``, `Gemma 3n E4B `balanced`, slice `e2b``.
        let [model, recipe, slice] = [0, 1, 3].map(|at| name.split('`').nth(at).unwrap_or(""));
        if !flash.ends_with(" GB") {
            continue;
        }
        let row = |plan| {
            let mut rows = rows(plan, model.trim(), recipe).into_iter();
            let wanted = if slice.is_empty() { "full" } else { slice };
            rows.find(|row| row["matformer"] == wanted).unwrap().clone()
        };
        let row = [row(&small), row(&large)];
        let gb = |key: &str| format!("{:.1}", number(&row[0], key) / 1e9);
        let keys = ["idle", "speech", "motion"].map(|when| gb(&format!("resident_{when}_bytes")));
        let speed = |row: &Value| format!("{:.1}", number(row, "projected_tok_s_at_most"));
        let shown = [
            format!("{} GB", gb("flash_bytes")),
            format!("{} GB", keys.join(" / ")),
            speed(&row[0]),
            speed(&row[1]),
        ];
        let bare = [slow, fast].map(|cell| cell.trim_end_matches(" tokens/s"));
        assert_eq!([flash, resident, bare[0], bare[1]], shown, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn what_cannot_be_planned_is_told() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().to_str().unwrap();
    for (arguments, code, words) in [
        (&["--model", "/no/such/model"][..], 66, "/no/such/model"),
        (&["--model", empty], 66, "model.safetensors"),
        (&["--flash-mb-s=0"], 64, "--flash-mb-s"),
        (&["--flash-mb-s=nan"], 64, "--flash-mb-s"),
        (&["--memory-gib=-1"], 64, "--memory-gib"),
    ] {
        let output = gemmad(&[&BOARD[..2], arguments].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(output.stdout.is_empty() && told.contains(words), "{told}");
    }
}
