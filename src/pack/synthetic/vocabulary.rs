//! A synthetic `tokenizer.json`, for synthetic packs, and for tests and measurements at the published size.
//!
//! As in the published files every piece can be merged from each of its splits into two tokens, the control tokens among them. In
//! Gemma 3n's, runs of newlines and of U+2581 are added tokens, and the ids of media come after the text's. Gemma 4's has no added
//! tokens but the 24 control tokens, which stand among the text's at their published ids.

use std::collections::{BTreeMap, HashMap};

/// Tokens of text; ids beyond them, where there are any, are of media.
const TEXT_TOKENS: u32 = 262_144;

/// The control tokens of Gemma 4 and their ids. Source: reference sections 1.2 and 5.3 of Gemma 4.
const GEMMA4_CONTROL: [(u32, &str); 24] = [
    (0, "<pad>"),
    (1, "<eos>"),
    (2, "<bos>"),
    (3, "<unk>"),
    (4, "<mask>"),
    (46, "<|tool>"),
    (47, "<tool|>"),
    (48, "<|tool_call>"),
    (49, "<tool_call|>"),
    (50, "<|tool_response>"),
    (51, "<tool_response|>"),
    (52, "<|\"|>"),
    (98, "<|think|>"),
    (100, "<|channel>"),
    (101, "<channel|>"),
    (105, "<|turn>"),
    (106, "<turn|>"),
    (255_999, "<|image>"),
    (256_000, "<|audio>"),
    (258_880, "<|image|>"),
    (258_881, "<|audio|>"),
    (258_882, "<image|>"),
    (258_883, "<audio|>"),
    (258_884, "<|video|>"),
];

/// Where Gemma 4's pieces of text begin and end: between its control tokens and its media tokens.
const GEMMA4_TEXT: std::ops::Range<u32> = 107..255_999;

#[derive(Default)]
struct Pieces {
    texts: Vec<String>,
    ids: HashMap<String, u32>,
    /// Tokens that have a certain id, whatever comes before them.
    placed: BTreeMap<u32, String>,
    unused: usize,
}

impl Pieces {
    fn len(&self) -> u32 {
        self.texts.len() as u32
    }

    /// Adds a piece, unless there is one of that text or no room.
    fn push(&mut self, text: String) {
        if self.len() < TEXT_TOKENS && !self.ids.contains_key(&text) {
            self.ids.insert(text.clone(), self.len());
            self.texts.push(text);
        }
    }

    /// Adds the tokens that are placed below `end`, and `<unusedN>` between them.
    fn place_until(&mut self, end: u32) {
        while self.len() < end {
            let text = self.placed.remove(&self.len()).unwrap_or_else(|| {
                self.unused += 1;
                format!("<unused{}>", self.unused - 1)
            });
            self.push(text);
        }
    }
}

/// SplitMix64, good enough to choose pieces.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 33) as usize % n
    }
}

/// An added token: its text, its id, and whether it is special.
type Added = (String, u32, bool);

/// The text of a Gemma 3n's `tokenizer.json`: 262,144 text tokens, about half a million merges. Always the same one; the ids of turns
/// are the published ones, those of media near them.
pub(super) fn gemma3n() -> String {
    let mut pieces = Pieces::default();
    let mut added: Vec<(String, bool)> = Vec::new();
    for control in ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] {
        added.push((control.into(), true));
    }
    added.extend((0..100).map(|i| (format!("<unused{i}>"), false)));
    added.extend(["<start_of_turn>", "<end_of_turn>"].map(|control| (control.into(), true)));
    added.extend((1..32).map(|n| ("\n".repeat(n), false)));
    added.extend((2..32).map(|n| ("\u{2581}".repeat(n), false)));
    added.extend(["<table>", "</table>", "<h1>", "<b>", "</b>"].map(|tag| (tag.into(), false)));
    added.extend((100..6242).map(|i| (format!("<unused{i}>"), false)));
    for (text, _) in &added {
        pieces.push(text.clone());
    }
    push_bytes(&mut pieces);
    pieces.push("<start_of_image>".into());
    pieces.push("<start_of_audio>".into());
    added.extend(["<start_of_image>", "<start_of_audio>"].map(|control| (control.into(), true)));
    push_text(&mut pieces, TEXT_TOKENS);
    let media = [
        ("<end_of_image>", TEXT_TOKENS),
        ("<image_soft_token>", TEXT_TOKENS + 1),
        ("<end_of_audio>", TEXT_TOKENS + 128),
        ("<audio_soft_token>", TEXT_TOKENS + 129),
    ];
    let known = added.into_iter().map(|(text, special)| {
        let id = pieces.ids[&text];
        (text, id, special)
    });
    let beyond = media.map(|(text, id)| (text.to_owned(), id, true));
    let added: Vec<Added> = known.chain(beyond.iter().cloned()).collect();
    render(&pieces, &added, &beyond)
}

/// The text of a Gemma 4's: as many tokens, at their published ids all that are not of text. Always the same one.
pub(super) fn gemma4() -> String {
    let control = GEMMA4_CONTROL.map(|(id, text)| (id, text.to_owned()));
    let mut pieces = Pieces {
        placed: BTreeMap::from(control),
        ..Pieces::default()
    };
    pieces.place_until(GEMMA4_TEXT.start);
    (1..32).for_each(|n| pieces.push("\n".repeat(n)));
    (2..32).for_each(|n| pieces.push("\u{2581}".repeat(n)));
    push_bytes(&mut pieces);
    push_text(&mut pieces, GEMMA4_TEXT.end);
    pieces.place_until(TEXT_TOKENS);
    let added = GEMMA4_CONTROL.map(|(id, text)| (text.to_owned(), id, true));
    render(&pieces, &added, &[])
}

/// A byte that is in no other piece.
fn push_bytes(pieces: &mut Pieces) {
    (0..=255).for_each(|byte: u8| pieces.push(format!("<0x{byte:02X}>")));
}

/// Letters of some scripts, and words of them, until there are `end` tokens.
fn push_text(pieces: &mut Pieces, end: u32) {
    let mut random = Random(7);
    let letters: Vec<char> = std::iter::once('\u{2581}').chain('a'..='z').collect();
    let cyrillic: Vec<char> = ('а'..='я').collect();
    let arabic: Vec<char> = ('\u{621}'..='\u{64a}').collect();
    let kana: Vec<char> = ('ぁ'..='ヺ').collect();
    let cjk: Vec<char> = ('\u{4e00}'..='\u{6fff}').collect();
    let scripts = [&letters, &cyrillic, &arabic, &kana, &cjk];
    for script in scripts {
        script
            .iter()
            .for_each(|letter| pieces.push(letter.to_string()));
    }
    ('!'..='~')
        .chain('à'..='ÿ')
        .chain("¿¡€—“”…😀🎉👍".chars())
        .for_each(|c| pieces.push(c.to_string()));
    for script in [&letters, &cyrillic] {
        for (a, b) in pairs(script) {
            pieces.push(format!("{a}{b}"));
        }
    }
    for (a, b) in pairs(&letters) {
        letters
            .iter()
            .for_each(|c| pieces.push(format!("{a}{b}{c}")));
    }
    // "os>" and "pad>" are why a merge can spell a control token out.
    for piece in [
        "os>", "ad>", "pad>", "e>", "<b", "<p", "<e", "th", "the", "ing",
    ] {
        pieces.push(piece.into());
    }
    while pieces.texts.len() < 130_000 {
        pieces.push(
            (0..4)
                .map(|_| letters[random.below(letters.len())])
                .collect(),
        );
    }
    while pieces.len() < end {
        let script = scripts[random.below(5)];
        let from = pieces.ids[&script[0].to_string()] as usize;
        let mut text = pieces.texts[from + random.below(pieces.texts.len() - from)].clone();
        if text.chars().count() < 12 {
            text.push(script[random.below(script.len())]);
            pieces.push(text);
        }
    }
}

fn pairs(letters: &[char]) -> impl Iterator<Item = (char, char)> {
    letters
        .iter()
        .flat_map(move |&a| letters.iter().map(move |&b| (a, b)))
}

/// The file in the published layout: one item a line. `beyond` are tokens whose ids come after the pieces'.
fn render(pieces: &Pieces, added: &[Added], beyond: &[Added]) -> String {
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("{\n  \"version\": \"1.0\",\n  \"added_tokens\": [\n");
    let entries: Vec<String> = added
        .iter()
        .map(|(text, id, special)| {
            format!(
                "    {{\n      \"id\": {id},\n      \"content\": {},\n      \"single_word\": false,\n      \"lstrip\": false,\n      \
                 \"rstrip\": false,\n      \"normalized\": false,\n      \"special\": {special}\n    }}",
                json(text)
            )
        })
        .collect();
    out += &entries.join(",\n");
    out += "\n  ],\n  \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u{2581}\"},\n";
    out += "  \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \
            \"behavior\": \"MergedWithPrevious\", \"invert\": false},\n  \"post_processor\": null,\n";
    out += "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u{2581}\"}, \
            \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]},\n";
    out += "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": \"<unk>\",\n    \
            \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": true,\n    \
            \"byte_fallback\": true,\n    \"ignore_merges\": false,\n    \"vocab\": {\n";
    let entries: Vec<String> = pieces
        .texts
        .iter()
        .enumerate()
        .map(|(id, text)| format!("      {}: {id}", json(text)))
        .chain(
            beyond
                .iter()
                .map(|(text, id, _)| format!("      {}: {id}", json(text))),
        )
        .collect();
    out += &entries.join(",\n");
    out += "\n    },\n    \"merges\": [\n";
    let mut separator = "";
    for text in &pieces.texts {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if pieces.ids.contains_key(left) && pieces.ids.contains_key(right) {
                out += &format!(
                    "{separator}      [\n        {},\n        {}\n      ]",
                    json(left),
                    json(right)
                );
                separator = ",\n";
            }
        }
    }
    out += "\n    ]\n  }\n}\n";
    out
}
