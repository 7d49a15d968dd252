//! Pictures and sound in a prompt, against the reference implementation: token ids, logits, greedy tokens.
//!
//! Logits within 2e-3 as tests/fixtures/README.md states, over the whole vocabulary. `GEMMAD_FIXTURES` may name another
//! directory made by the same script; nothing here knows its dimensions.

use std::ops::ControlFlow;

use crate::cases::{Case, Marks, Said, cases};
use crate::common::{Golden, assert_close, fixtures};
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::image::RgbImage;
use gemmad::media::AudioClip;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Shortcuts, Slice, Tokens, no_probe};
use gemmad::model::gemma3n::audio::AudioTower;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::template::Template;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::gemma3n::vision::VisionTower;
use gemmad::model::prompt::{ChatTemplate, MediaKind, Message, Part, Prompt, PromptOptions, Role};
use gemmad::model::sampler::Sampling;
use gemmad::model::special_ids::MediaIds;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::weights::Checkpoint;
use gemmad::pipeline::{
    self, AudioStream, Engine, EngineOptions, Generation, Media, PictureOptions, Request,
};
use kernels::{Isa, Pool};

const LOGITS: f32 = 2e-3;

const CASES: [Case; 3] = cases("icon");

fn said(case: &Case) -> Vec<Said> {
    let marks = Marks {
        before: "<bos><start_of_turn>user\n",
        behind: "<end_of_turn>\n<start_of_turn>model\n",
        picture: "<image_soft_token>",
        clip: "<audio_soft_token>",
    };
    marks.said(&crate::common::manifest(), case)
}

fn clip(name: &str) -> AudioClip {
    let path = fixtures().join(format!("golden/{name}.wav"));
    read_audio_file(&path, &AudioLimits::default()).unwrap()
}

struct Bench {
    config: Config,
    media: MediaIds,
    tokenizer: Tokenizer,
    text: TextModel,
    vision: VisionTower,
    audio: std::sync::Arc<AudioTower>,
    pool: Pool,
    full: Slice,
}

impl Bench {
    fn open() -> Bench {
        let dir = fixtures();
        let config = Config::load(&dir).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let pool = Pool::new(Isa::from_environment().unwrap(), 2);
        let width = config.text.hidden_size;
        let vision = VisionTower::load(&checkpoint, config.vision.as_ref().unwrap(), width);
        let audio = AudioTower::load(&checkpoint, config.audio.as_ref().unwrap(), width, &pool);
        Bench {
            media: config.ids.media.unwrap(),
            tokenizer: Tokenizer::load(&dir).unwrap(),
            text: TextModel::load(&checkpoint, &config.text).unwrap(),
            vision: vision.unwrap(),
            audio: audio.unwrap().into(),
            full: Slice::full(&config.text.layers()),
            config,
            pool,
        }
    }

    fn soft_tokens_of_picture(&self, picture: &str) -> Vec<f32> {
        // [3, side, side] as the reference resized it; [side, side, 3] here.
        let (planes, shape) = Golden::open("vision").u8(&format!("{picture}.pixel_values_u8"));
        let plane = shape[1] * shape[2];
        let pixels: Vec<u8> = (0..3 * plane)
            .map(|i| planes[i % 3 * plane + i / 3])
            .collect();
        self.vision.encode(&self.pool, &pixels, shape[1]).unwrap()
    }

    fn soft_tokens_of_clip(&self, name: &str) -> Vec<f32> {
        let mut rows = Vec::new();
        let mut stream = AudioStream::new(self.audio.clone(), 12);
        stream
            .push(&self.pool, &clip(name).samples, &mut rows)
            .unwrap();
        let places = self.config.audio_soft_tokens_per_image;
        stream.finish(&self.pool, places, &mut rows).unwrap();
        rows
    }

    fn prompt(&self, case: &Case) -> Prompt {
        let content = said(case)
            .into_iter()
            .map(|part| match part {
                Said::Text(text) => Part::Text(text),
                Said::Picture => Part::Image {
                    soft_tokens: self.vision.soft_tokens_per_image(),
                },
                Said::Clip => Part::Audio {
                    soft_tokens: self.config.audio_soft_tokens_per_image,
                },
            })
            .collect();
        let message = Message {
            role: Role::User,
            content,
        };
        Template
            .render(&self.tokenizer, &[message], &PromptOptions::ASK)
            .unwrap()
    }

    /// The rows of the ids beyond the text vocabulary: soft tokens in order of the prompt, hard embeddings between.
    fn rows(&self, ids: &[u32], soft: &[f32]) -> Vec<f32> {
        let mut soft = soft.chunks_exact(self.config.text.hidden_size).peekable();
        let mut rows = Vec::new();
        let beyond = ids
            .iter()
            .filter(|&&id| id as usize >= self.text.text_vocab_size());
        for &id in beyond {
            // A soft token's id that the model itself chose has no row of its own: the reference embeds it the hard way.
            let is_soft = id == self.media.image || id == self.media.audio;
            match soft.next_if(|_| is_soft) {
                Some(row) => rows.extend_from_slice(row),
                None => rows.extend(self.hard(id)),
            }
        }
        rows
    }

    fn hard(&self, id: u32) -> Vec<f32> {
        self.vision
            .hard_embedding(&self.pool, id)
            .or_else(|| self.audio.hard_embedding(&self.pool, id))
            .unwrap()
    }
}

#[test]
fn prompts_have_the_ids_of_the_reference() {
    let (bench, golden) = (Bench::open(), Golden::open("multimodal"));
    for case in CASES {
        let want = golden.i32(&format!("{}.input_ids", case.name)).0;
        let got: Vec<i32> = bench
            .prompt(&case)
            .ids
            .iter()
            .map(|&id| id as i32)
            .collect();
        assert_eq!(got, want, "{}", case.name);
    }
}

#[test]
fn logits_and_greedy_tokens_are_those_of_the_reference() {
    let (bench, golden) = (Bench::open(), Golden::open("multimodal"));
    for case in CASES {
        let prompt = bench.prompt(&case);
        let mut soft = Vec::new();
        for span in &prompt.media {
            let rows = match span.kind {
                MediaKind::Image => bench.soft_tokens_of_picture(case.picture),
                MediaKind::Audio => bench.soft_tokens_of_clip(case.clip),
            };
            assert_eq!(
                rows.len(),
                span.soft_tokens.len() * bench.config.text.hidden_size
            );
            soft.extend(rows);
        }
        let rows = bench.rows(&prompt.ids, &soft);
        let vocabulary = bench.config.text.vocab_size;
        let argmax = golden.i32(&format!("{}.argmax", case.name)).0;
        let (last, shape) = golden.f32(&format!("{}.logits_last8", case.name));
        assert_eq!(shape[1], vocabulary);

        // Every position, without shortcuts.
        let shortcuts = Shortcuts {
            kv_cut: false,
            sparse_ffn: false,
        };
        let ids = &prompt.ids;
        let mut cache = KvCache::new(bench.text.layers(), KvType::F32, ids.len(), ids.len());
        let mut work = Workspace::new(&bench.config.text, ids.len());
        bench
            .text
            .extend(
                &bench.pool,
                &mut cache,
                &mut work,
                Tokens {
                    media_rows: &rows,
                    shortcuts,
                    ..Tokens::new(ids, &bench.full)
                },
                &mut no_probe,
            )
            .unwrap();
        let mut logits = vec![0.0; vocabulary];
        for (at, &want) in argmax.iter().enumerate() {
            bench
                .text
                .logits(&bench.pool, &mut work, at, Exact::All, &mut logits)
                .unwrap();
            assert_eq!(best(&logits), want, "{}: argmax at {at}", case.name);
            if let Some(row) = (at + shape[0]).checked_sub(ids.len()) {
                let want = &last[row * vocabulary..(row + 1) * vocabulary];
                assert_close(&format!("{} {at}", case.name), &logits, want, LOGITS);
            }
        }

        // Greedy, with them, in chunks that cut the media.
        let want = golden.i32(&format!("{}.greedy16", case.name)).0;
        let mut cache = KvCache::new(bench.text.layers(), KvType::F32, ids.len() + want.len(), 7);
        let mut work = Workspace::new(&bench.config.text, 7);
        let (mut next, mut rows) = (ids.clone(), rows);
        let mut got = Vec::new();
        while got.len() < want.len() {
            bench
                .text
                .extend(
                    &bench.pool,
                    &mut cache,
                    &mut work,
                    Tokens {
                        media_rows: &rows,
                        ..Tokens::new(&next, &bench.full)
                    },
                    &mut no_probe,
                )
                .unwrap();
            let last = work.ready() - 1;
            bench
                .text
                .logits(&bench.pool, &mut work, last, Exact::All, &mut logits)
                .unwrap();
            let id = best(&logits);
            got.push(id);
            next = vec![id as u32];
            rows = bench.rows(&next, &[]);
        }
        assert_eq!(got, want, "{}: greedy tokens", case.name);
    }
}

fn best(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as i32
}

/// The whole line: from a picture's pixels and a clip's samples to text, in the order in which they stand.
#[test]
fn the_engine_says_what_the_reference_says() {
    let golden = Golden::open("multimodal");
    let pictures = Golden::open("vision");
    let mut engine = Engine::open(
        &fixtures(),
        EngineOptions {
            threads: 2,
            ..EngineOptions::default()
        },
    )
    .unwrap();
    for case in CASES {
        let user = said(&case)
            .into_iter()
            .map(|part| match part {
                Said::Text(text) => pipeline::Part::Text(text),
                Said::Clip => pipeline::Part::Media(Media::Clip(clip(case.clip))),
                Said::Picture => {
                    let (pixels, shape) = pictures.u8(&format!("{}.image_u8_hwc", case.picture));
                    let image = RgbImage {
                        width_px: shape[1],
                        height_px: shape[0],
                        pixels,
                    };
                    pipeline::Part::Media(Media::Image(image, PictureOptions::default()))
                }
            })
            .collect();
        // The reference went on behind stop tokens and chose ids that no answer holds; up to there the texts are equal.
        let want: Vec<u32> = golden
            .i32(&format!("{}.greedy16", case.name))
            .0
            .into_iter()
            .map(|id| id as u32)
            .take_while(|&id| {
                let spec = engine.spec();
                (id as usize) < spec.text_vocab_size
                    && !spec.ids.eos.contains(&id)
                    && !engine.tokenizer().is_special(id)
            })
            .collect();
        assert!(!want.is_empty(), "{}: nothing to compare", case.name);
        let request = Request {
            conversation: None,
            messages: pipeline::Message::user(user),
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
        assert_eq!(
            answer.timing.prompt_tokens,
            golden.i32(&format!("{}.input_ids", case.name)).0.len()
        );
        let text = engine.tokenizer().decode(&want).unwrap();
        assert_eq!(answer.text, text, "{}", case.name);
    }
}
