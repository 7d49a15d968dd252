//! Pictures and sound in a prompt, from pixels and samples to text: token ids, embeddings, logits, greedy tokens.
//!
//! Tolerances are those of tests/fixtures/tiny-g4a/README.md. The reference's audio attention sees one key less than the file says
//! (reference section 4.4), and so does it here.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::manifest;
use crate::cases::{Case, Marks, Said, cases};
use crate::common::{Golden, assert_close, fixtures_gemma4};
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::architecture::Architecture;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Decoder, Exact, Probe, Shortcuts, Slice, Tokens, no_probe};
use gemmad::model::encoder::{AudioEncoder, PictureOptions, VisionEncoder};
use gemmad::model::family;
use gemmad::model::prompt::{MediaKind, Message, Part, Prompt, PromptOptions, Role};
use gemmad::model::sampler::Sampling;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::weights::{Checkpoint, PleOptions};
use gemmad::pipeline::{self, AudioStream, Engine, EngineOptions, Generation, Media, Request};
use kernels::{Isa, Pool};
use serde_json::{Value, json};
use tempfile::TempDir;

const HIDDEN: f32 = 1e-3;
const LOGITS: f32 = 2e-3;

const CASES: [Case; 3] = cases("tall");

fn said(case: &Case) -> Vec<Said> {
    let marks = Marks {
        before: "<bos><|turn>user\n",
        behind: "<turn|>\n<|turn>model\n",
        picture: "<|image|>",
        clip: "<|audio|>",
    };
    marks.said(&manifest(), case)
}

fn clip(name: &str) -> AudioClip {
    let path = fixtures_gemma4().join(format!("golden/{name}.wav"));
    read_audio_file(&path, &AudioLimits::default()).unwrap()
}

/// A picture of the goldens, and its width and height.
fn pixels(tensor: &str) -> (Vec<u8>, [usize; 2]) {
    let (pixels, shape) = Golden::of(&fixtures_gemma4(), "vision").u8(tensor);
    (pixels, [shape[1], shape[0]])
}

/// The checkpoint, with the reference's window of audio attention.
fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures_gemma4()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let keys = &mut config["audio_config"]["attention_context_left"];
    *keys = json!(keys.as_u64().unwrap() - 1);
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

struct Bench {
    architecture: Arc<dyn Architecture>,
    tokenizer: Tokenizer,
    decoder: Box<dyn Decoder>,
    vision: Arc<dyn VisionEncoder>,
    audio: Arc<dyn AudioEncoder>,
    pool: Pool,
    full: Slice,
    _dir: TempDir,
}

impl Bench {
    fn open() -> Bench {
        let dir = checkpoint();
        let architecture = family::load(dir.path()).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let pool = Pool::new(Isa::from_environment().unwrap(), 2);
        let decoder = architecture.decoder(&checkpoint, &PleOptions::default(), 1, &mut |_, _| {});
        Bench {
            tokenizer: Tokenizer::load(dir.path()).unwrap(),
            decoder: decoder.unwrap(),
            vision: architecture.vision_encoder(&checkpoint).unwrap().unwrap(),
            audio: architecture
                .audio_encoder(&checkpoint, &pool)
                .unwrap()
                .unwrap(),
            full: Slice::full(&architecture.spec().layers),
            architecture,
            pool,
            _dir: dir,
        }
    }

    /// Rows of the text model's width for the media of a prompt, in order.
    fn soft_tokens(&self, case: &Case) -> Vec<Vec<f32>> {
        let rows = said(case).into_iter().filter_map(|part| match part {
            Said::Text(_) => None,
            Said::Picture => {
                let (pixels, size) = pixels(&format!("{}.resized_u8_hwc", case.picture));
                Some(
                    self.vision
                        .encode(&self.pool, &pixels, size, &mut || {})
                        .unwrap(),
                )
            }
            Said::Clip => {
                let mut rows = Vec::new();
                let mut stream = AudioStream::new(Arc::clone(&self.audio), 12);
                stream
                    .push(&self.pool, &clip(case.clip).samples, &mut rows)
                    .unwrap();
                stream.finish(&self.pool, 0, &mut rows).unwrap();
                Some(rows)
            }
        });
        rows.collect()
    }

    fn prompt(&self, case: &Case, media: &[Vec<f32>]) -> Prompt {
        let width = self.architecture.spec().hidden_size;
        let mut counts = media.iter().map(|rows| rows.len() / width);
        let content = said(case).into_iter().map(|part| match part {
            Said::Text(text) => Part::Text(text),
            Said::Picture => Part::Image {
                soft_tokens: counts.next().unwrap(),
            },
            Said::Clip => Part::Audio {
                soft_tokens: counts.next().unwrap(),
            },
        });
        let message = Message {
            role: Role::User,
            content: content.collect(),
        };
        self.architecture
            .template()
            .render(&self.tokenizer, &[message], &PromptOptions::ASK)
            .unwrap()
    }

    fn take(
        &mut self,
        cache: &mut KvCache,
        ids: &[u32],
        rows: &[f32],
        shortcuts: Shortcuts,
        probe: Probe<'_>,
    ) {
        self.decoder.resize(ids.len());
        let tokens = Tokens {
            media_rows: rows,
            shortcuts,
            ..Tokens::new(ids, &self.full)
        };
        self.decoder
            .extend(&self.pool, cache, tokens, probe)
            .unwrap();
    }

    fn logits(&mut self, token: usize) -> Vec<f32> {
        let mut logits = vec![0.0; self.architecture.spec().vocab_size];
        self.decoder
            .logits(&self.pool, token, Exact::All, &mut logits)
            .unwrap();
        logits
    }
}

fn best(logits: &[f32]) -> i32 {
    // The first of equals.
    let best = logits
        .iter()
        .enumerate()
        .rev()
        .max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as i32
}

#[test]
fn merged_embeddings_logits_and_greedy_tokens_are_those_of_the_reference() {
    let mut bench = Bench::open();
    let golden = Golden::of(&fixtures_gemma4(), "multimodal");
    for case in CASES {
        let of_case = |tensor: &str| format!("{}.{tensor}", case.name);
        let media = bench.soft_tokens(&case);
        let prompt = bench.prompt(&case, &media);
        let kinds: Vec<MediaKind> = prompt.media.iter().map(|span| span.kind).collect();
        assert_eq!(kinds.contains(&MediaKind::Image), !case.picture.is_empty());
        assert_eq!(kinds.contains(&MediaKind::Audio), !case.clip.is_empty());
        let ids: Vec<i32> = prompt.ids.iter().map(|&id| id as i32).collect();
        assert_eq!(ids, golden.i32(&of_case("input_ids")).0, "{}", case.name);

        // Every position, without shortcuts.
        let all = Shortcuts {
            kv_cut: false,
            sparse_ffn: false,
        };
        let rows = media.concat();
        let mut seen = 0;
        let mut probe = |name: &'static str, _: usize, got: &[f32]| {
            let tensor = match name {
                "embeds" => "inputs_embeds",
                "per_layer_inputs" => "per_layer_inputs",
                _ => return,
            };
            seen += 1;
            let name = of_case(tensor);
            assert_close(&name, got, &golden.f32(&name).0, HIDDEN);
        };
        let layers = bench.decoder.layers().to_vec();
        let mut cache = KvCache::new(&layers, KvType::F32, prompt.ids.len(), prompt.ids.len());
        bench.take(&mut cache, &prompt.ids, &rows, all, &mut probe);
        assert_eq!(seen, 2, "embeddings and per-layer inputs");
        let (last, shape) = golden.f32(&of_case("logits_last8"));
        let (argmax, _) = golden.i32(&of_case("argmax"));
        let first_exact = argmax.len() - shape[0];
        for (at, &want) in argmax.iter().enumerate() {
            let logits = bench.logits(at);
            let name = format!("{}: logits at {at}", case.name);
            if at >= first_exact {
                let want = &last[(at - first_exact) * shape[1]..][..shape[1]];
                assert_close(&name, &logits, want, LOGITS);
            }
            assert_eq!(best(&logits), want, "{name}");
        }

        // And as prompts are taken: only the last token passes all layers.
        let want = golden.i32(&of_case("greedy16")).0;
        let context = prompt.ids.len() + want.len();
        let mut cache = KvCache::new(&layers, KvType::F32, context, prompt.ids.len());
        bench.take(
            &mut cache,
            &prompt.ids,
            &rows,
            Shortcuts::default(),
            &mut no_probe,
        );
        let mut got = Vec::new();
        while got.len() < want.len() {
            let last = bench.decoder.ready() - 1;
            let id = best(&bench.logits(last));
            got.push(id);
            // Where a random model says the place of a medium, there is none: the reference takes the pad id.
            let next = if bench.architecture.spec().takes_row(id as u32) {
                0
            } else {
                id as u32
            };
            bench.take(
                &mut cache,
                &[next],
                &[],
                Shortcuts::default(),
                &mut no_probe,
            );
        }
        assert_eq!(got, want, "{}: greedy tokens", case.name);
    }
}

/// The whole line: from a picture's pixels and a clip's samples to text, in the order in which they stand.
#[test]
fn the_engine_says_what_the_reference_says() {
    let golden = Golden::of(&fixtures_gemma4(), "multimodal");
    let dir = checkpoint();
    // Every token of text that the reference chose may be chosen here, too.
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    let options = EngineOptions {
        threads: 2,
        ..EngineOptions::default()
    };
    let mut engine = Engine::open(dir.path(), options).unwrap();
    for case in CASES {
        let user = said(&case).into_iter().map(|part| match part {
            Said::Text(text) => pipeline::Part::Text(text),
            Said::Clip => pipeline::Part::Media(Media::Clip(clip(case.clip))),
            Said::Picture => {
                let (pixels, [width_px, height_px]) =
                    pixels(&format!("{}.image_u8_hwc", case.picture));
                let picture = RgbImage {
                    width_px,
                    height_px,
                    pixels,
                };
                pipeline::Part::Media(Media::Image(picture, PictureOptions::default()))
            }
        });
        // The reference went on behind stop tokens and chose ids that no answer holds; up to there the texts are equal.
        let chosen = golden.i32(&format!("{}.greedy16", case.name)).0;
        let chosen = chosen.into_iter().map(|id| id as u32);
        let want: Vec<u32> = chosen
            .take_while(|&id| !engine.tokenizer().is_special(id))
            .collect();
        assert!(!want.is_empty(), "{}: nothing to compare", case.name);
        let request = Request {
            conversation: None,
            messages: pipeline::Message::user(user.collect()),
            matformer: None,
            thinking: None,
            generation: Generation {
                sampling: Sampling::GREEDY,
                seed: 0,
                max_tokens: want.len(),
                stop: Vec::new(),
                grammar: None,
                tools: None,
            },
        };
        let answer = engine
            .answer(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let prompt = golden.i32(&format!("{}.input_ids", case.name)).0;
        assert_eq!(answer.timing.prompt_tokens, prompt.len(), "{}", case.name);
        let text = engine.tokenizer().decode(&want).unwrap();
        assert_eq!(answer.text, text, "{}", case.name);
    }
}
