//! A synthetic `tokenizer.json`, for synthetic packs, and for tests and measurements at the published size.
//!
//! As in the published file every piece can be merged from each of its splits into two tokens, the control tokens
//! among them, runs of newlines and of U+2581 are added tokens, and the ids of media come after the text's.

use std::collections::HashMap;

/// Text tokens; the ids of media follow.
const TEXT_TOKENS: u32 = 262_144;

struct Pieces {
    texts: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Pieces {
    fn push(&mut self, text: String) {
        if (self.texts.len() as u32) < TEXT_TOKENS && !self.ids.contains_key(&text) {
            self.ids.insert(text.clone(), self.texts.len() as u32);
            self.texts.push(text);
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

/// The text of a `tokenizer.json` of the published size and structure: 262,144 text tokens, about half a million merges.
///
/// Always the same one; the ids of turns and media are near the published ones.
pub fn synthetic_tokenizer_json() -> String {
    let mut random = Random(7);
    let mut pieces = Pieces {
        texts: Vec::new(),
        ids: HashMap::new(),
    };
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
    (0..=255).for_each(|byte: u8| pieces.push(format!("<0x{byte:02X}>")));
    pieces.push("<start_of_image>".into());
    pieces.push("<start_of_audio>".into());
    added.extend(["<start_of_image>", "<start_of_audio>"].map(|control| (control.into(), true)));

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
    while (pieces.texts.len() as u32) < TEXT_TOKENS {
        let script = scripts[random.below(5)];
        let from = pieces.ids[&script[0].to_string()] as usize;
        let mut text = pieces.texts[from + random.below(pieces.texts.len() - from)].clone();
        if text.chars().count() < 12 {
            text.push(script[random.below(script.len())]);
            pieces.push(text);
        }
    }
    render(&pieces, &added)
}

fn pairs(letters: &[char]) -> impl Iterator<Item = (char, char)> {
    letters
        .iter()
        .flat_map(move |&a| letters.iter().map(move |&b| (a, b)))
}

/// The file in the published layout: one item a line.
fn render(pieces: &Pieces, added: &[(String, bool)]) -> String {
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("{\n  \"version\": \"1.0\",\n  \"added_tokens\": [\n");
    let media = [
        ("<end_of_image>", TEXT_TOKENS),
        ("<image_soft_token>", TEXT_TOKENS + 1),
        ("<end_of_audio>", TEXT_TOKENS + 128),
        ("<audio_soft_token>", TEXT_TOKENS + 129),
    ];
    let known = added
        .iter()
        .map(|(text, special)| (text.as_str(), pieces.ids[text], *special));
    let entries: Vec<String> = known
        .chain(media.map(|(text, id)| (text, id, true)))
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
        .chain(media.map(|(text, id)| format!("      {}: {id}", json(text))))
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
