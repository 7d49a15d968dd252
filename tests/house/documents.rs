//! The rules for documents: that they name what exists, draw what is, and read well.

use crate::rules::File;
use crate::source::module;

/// Words of a sentence in a document, at most.
const LONGEST_SENTENCE: usize = 30;

/// Who may name whom, drawn as ARCHITECTURE.md has it: a line for each room, a column for each that may be named; `●` the whole of
/// it, `○` a part. Rooms stand above all that they name, so every mark is right of the diagonal; a circle has no such order.
pub(crate) fn who_names_whom(may_name: &[(&str, &[&str])]) -> Result<String, String> {
    let allowed = |room: &str| -> Vec<&str> {
        let of_room = may_name.iter().filter(|(name, _)| *name == room);
        of_room
            .flat_map(|(_, allowed)| allowed.iter().copied())
            .collect()
    };
    let named = |room: &str, other: &str| {
        let parts: Vec<&str> = allowed(room)
            .into_iter()
            .filter(|path| path.split("::").next() == Some(other))
            .collect();
        match parts.as_slice() {
            [] => None,
            parts if parts.contains(&other) => Some('●'),
            _ => Some('○'),
        }
    };
    let mut left: Vec<&str> = Vec::new();
    for (room, _) in may_name {
        if !left.contains(room) {
            left.push(room);
        }
    }
    let mut order: Vec<&str> = Vec::new();
    while !left.is_empty() {
        let free = |room: &&str| left.iter().all(|other| named(other, room).is_none());
        let at = left
            .iter()
            .position(free)
            .ok_or(format!("a circle in {left:?}"))?;
        order.push(left.remove(at));
    }
    let width = order
        .iter()
        .map(|room| room.len())
        .max()
        .unwrap_or_default();
    let columns = order.get(1..).unwrap_or_default();
    let mut drawing = format!("{:width$}  {}\n", "", columns.join(" "));
    for room in &order {
        let mut line = format!("{room:width$} ");
        for other in columns {
            let mark = named(room, other).unwrap_or(' ');
            line.push_str(&format!(" {mark:^width$}", width = other.len()));
        }
        drawing.push_str(line.trim_end());
        drawing.push('\n');
    }
    Ok(drawing)
}

/// "How to add" of ARCHITECTURE.md: a heading, and what the newest of its kind is called in the code, a word or some that follow one
/// another. Every file that says so is named below the heading, itself or by its folder, and every place named there has such a file.
pub(crate) const NEWEST: &[(&str, &[&str])] = &[
    ("An instruction set", &["I8mm", "i8mm"]),
    (
        "A block format",
        &["Q2RowScaled", "Q2LayerScaled", "mod q2", "struct Q2"],
    ),
    (
        "A model family",
        &["gemma4", "Gemma4", "Gemma4E2b", "NOT_YET"],
    ),
    ("A source of guesses", &["PromptLookup"]),
    ("A door", &["HttpServerOptions", "mod http"]),
    ("A capture source", &["HttpOptions", "Still", "mod still"]),
];

/// What "How to add" leaves out, or names in vain, of those that are called by `words`.
pub(crate) fn how_to_add(
    architecture: &str,
    (heading, words): (&str, &[&str]),
    files: &[File],
) -> Vec<String> {
    let Some((_, rest)) = architecture.split_once(&format!("### {heading}\n")) else {
        return vec![format!("ARCHITECTURE.md: no \"### {heading}\"")];
    };
    let section = rest.split("\n#").next().unwrap_or_default();
    let in_code = |path: &&str| path.starts_with("src/") || path.starts_with("kernels/src/");
    let named: Vec<&str> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(in_code)
        .collect();
    let covers =
        |place: &str, path: &str| path == place || place.ends_with('/') && path.starts_with(place);
    let says = |file: &&File| {
        let mut said = words.iter().map(|word| word.split(' ').collect::<Vec<_>>());
        said.any(|word| !file.lines_with(&word).is_empty())
    };
    let touched: Vec<&str> = files
        .iter()
        .filter(says)
        .map(|file| file.path.as_str())
        .collect();
    let unnamed = touched
        .iter()
        .filter(|path| !named.iter().any(|place| covers(place, path)))
        .map(|path| format!("ARCHITECTURE.md: \"{heading}\" does not name {path}"));
    let in_vain = named
        .iter()
        .filter(|place| !touched.iter().any(|path| covers(place, path)))
        .map(|place| {
            format!(
                "ARCHITECTURE.md: \"{heading}\" names {place}, where there is nothing of {words:?}"
            )
        });
    unnamed.chain(in_vain).collect()
}

/// Every room and every part of a room is named in ARCHITECTURE.md; what lies deeper, its own door tells.
pub(crate) fn on_the_map(path: &str, architecture: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let named = |name: &str| architecture.split(|c| !word(c)).any(|found| found == name);
    let parts = module(path);
    let unnamed = parts.iter().take(2).filter(|name| !named(name));
    unnamed
        .map(|name| format!("{path}: ARCHITECTURE.md does not name `{name}`"))
        .collect()
}

/// What the map of ARCHITECTURE.md calls a room or a part of one, and is none: `exists` answers for a path from the top of the
/// repository. Two columns in stand the rooms of `src/`, four columns in the parts of the room above; what is told of them begins
/// further right.
pub(crate) fn off_the_map(architecture: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let map = architecture.split("```text\n").find_map(|block| {
        let (block, _) = block.split_once("```")?;
        block.split_once("\nsrc/\n")
    });
    let Some((_, map)) = map else {
        return vec!["ARCHITECTURE.md: no map of src/".to_owned()];
    };
    let mut found = Vec::new();
    let mut room = "";
    for line in map.lines() {
        let names = line.trim_start();
        let indent = line.len() - names.len();
        let names = names.split("  ").next().unwrap_or_default();
        if indent > 4 {
            continue;
        }
        for name in names.split(' ') {
            let name = name.trim_end_matches('/').trim_end_matches(".rs");
            let path = match indent {
                2 => {
                    room = name;
                    format!("src/{name}")
                }
                _ => format!("src/{room}/{name}"),
            };
            if !exists(&path) && !exists(&format!("{path}.rs")) {
                found.push(format!(
                    "ARCHITECTURE.md: the map names {path}, which does not exist"
                ));
            }
        }
    }
    found
}

/// Whatever a document calls by its path exists: `exists` answers for a path from the top of the repository.
pub(crate) fn dead_paths(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let tops = [
        "src/",
        "kernels/",
        "wake/",
        "tests/",
        "packaging/",
        "tools/",
        "demo/",
        "benches/",
        "docs/",
        "models/",
        "config/",
        "systemd/",
        "fuzz/",
        ".ci/",
        ".cargo/",
    ];
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter(|word| {
        tops.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '*', '{', '<', '…'])
    });
    named
        .filter(|word| !exists(word))
        .map(|word| format!("{document}: `{word}` does not exist"))
        .collect()
}

/// Whatever a document links to exists: `exists` answers for a path from the top of the repository.
pub(crate) fn dead_links(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let linked = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let inside = linked.filter(|link| !link.contains("://") && !link.starts_with('#'));
    inside
        .filter(|link| {
            let mut path: Vec<&str> = document.split('/').collect();
            path.pop();
            for part in link.split('#').next().unwrap_or_default().split('/') {
                match part {
                    ".." => drop(path.pop()),
                    part => path.push(part),
                }
            }
            !exists(&path.join("/"))
        })
        .map(|link| format!("{document}: the link {link} leads nowhere"))
        .collect()
}

/// The documents, by their paths from the top, that the index in `docs/` does not link to.
pub(crate) fn unlisted(index: &str, documents: &[String]) -> Vec<String> {
    let link = |document: &str| match document.strip_prefix("docs/") {
        Some(name) => format!("]({name})"),
        None => format!("](../{document})"),
    };
    let missing = documents
        .iter()
        .filter(|document| *document != "docs/README.md" && !index.contains(&link(document)));
    missing
        .map(|document| format!("docs/README.md does not link to {document}"))
        .collect()
}

/// A sentence of a document is short, and has a line of its own.
pub(crate) fn sentences(document: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut fenced, mut block, mut after_blank) = (false, false, true);
    for (number, line) in text.lines().enumerate() {
        let begins = line.trim_start();
        if begins.starts_with("```") {
            fenced = !fenced;
        }
        let blank = begins.is_empty();
        block = line.starts_with("    ") && (block || after_blank) || blank && block;
        after_blank = blank;
        if fenced
            || block
            || ["```", "|", "#", "!["]
                .iter()
                .any(|mark| begins.starts_with(mark))
        {
            continue;
        }
        // What is quoted counts as one word, and an address as none.
        let mut words: Vec<&str> = Vec::new();
        let mut ended = 0;
        for (i, plain) in begins.split('`').enumerate() {
            match i % 2 {
                0 => words.extend(plain.split_whitespace()),
                _ => words.push("code"),
            }
        }
        for pair in words.windows(2) {
            let ends = pair[0].ends_with(['.', '?', '!']) && !pair[0].starts_with(char::is_numeric);
            ended += usize::from(ends && pair[1].starts_with(char::is_uppercase));
        }
        if ended > 0 || words.len() > LONGEST_SENTENCE + 1 {
            found.push(format!("{document}:{}: {} words, {} sentences: one sentence a line, of {LONGEST_SENTENCE} words at most", number + 1, words.len(), ended + 1));
        }
    }
    found
}
