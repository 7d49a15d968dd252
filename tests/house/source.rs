//! Enough of Rust's grammar to find the names that a file uses: tokens, test code left out, and paths with `use` trees spread out.

/// A word, a number, a string (as `"`) or one mark, and the line where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Splits a source file into tokens; comments vanish and the inside of strings is not kept.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let start = i;
        let mut text = None;
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string_end(&chars, i) {
            (text, i) = (Some("\"".to_owned()), end);
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            (text, i) = (Some("\"".to_owned()), i + 1);
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // A character; else the quote begins a lifetime.
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            (text, i) = (Some("\"".to_owned()), i + 1);
        } else if word(at(i)) {
            while word(at(i)) {
                i += 1;
            }
            text = Some(chars[start..i].iter().collect());
        } else {
            i += 1;
            if !chars[start].is_whitespace() {
                text = Some(chars[start].to_string());
            }
        }
        if let Some(text) = text {
            found.push(Token { text, line });
        }
        line += chars[start..i.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    found
}

/// The end of a raw string (`r"…"`, `br#"…"#`, …) that begins at `i`, if one does.
fn raw_string_end(chars: &[char], mut i: usize) -> Option<usize> {
    if i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') {
        return None;
    }
    if matches!(chars.get(i), Some('b' | 'c')) {
        i += 1;
    }
    if chars.get(i) != Some(&'r') {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    i += 1 + hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let length = chars[i + 1..]
        .windows(close.len())
        .position(|w| w == close)?;
    Some(i + 1 + length + close.len())
}

/// Leaves out the items marked `#[cfg(test)]`.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        let Some(end) = attribute_end(tokens, i) else {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        };
        let has = |name: &str| tokens[i..end].iter().any(|t| t.text == name);
        if !(has("cfg") && has("test") && !has("not")) {
            kept.extend_from_slice(&tokens[i..end]);
            i = end;
            continue;
        }
        i = end;
        while let Some(next) = attribute_end(tokens, i) {
            i = next;
        }
        i = item_end(tokens, i);
    }
    kept
}

fn attribute_end(tokens: &[Token], i: usize) -> Option<usize> {
    let text = |k: usize| tokens.get(k).map_or("", |t| t.text.as_str());
    (text(i) == "#" && text(i + 1) == "[").then(|| closing(tokens, i + 1))
}

/// One past the mark that closes the bracket at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (k, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return k + 1;
        }
    }
    tokens.len()
}

/// One past the `;` or the block that ends the item at `i`.
fn item_end(tokens: &[Token], mut i: usize) -> usize {
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            ";" => return i + 1,
            "{" => return closing(tokens, i),
            "(" | "[" => i = closing(tokens, i),
            _ => i += 1,
        }
    }
    i
}

/// Every path of a file, from its first segment, `use` trees spread out; paths inside this crate begin with `crate`.
///
/// `module` is the module that the file is: `["model", "text"]` for src/model/text/mod.rs.
pub(crate) fn paths(tokens: &[Token], module: &[String]) -> Vec<(Vec<String>, usize)> {
    let all = found_paths(tokens, module).into_iter();
    all.map(|(path, line, _)| (path, line)).collect()
}

/// Those of [`paths`] that a `use` names.
pub(crate) fn imports(tokens: &[Token], module: &[String]) -> Vec<(Vec<String>, usize)> {
    let all = found_paths(tokens, module).into_iter();
    let imported = all.filter(|(_, _, imported)| *imported);
    imported.map(|(path, line, _)| (path, line)).collect()
}

/// Paths, the line of each, and whether a `use` names it.
fn found_paths(tokens: &[Token], module: &[String]) -> Vec<(Vec<String>, usize, bool)> {
    let text = |k: usize| tokens.get(k).map_or("", |t| t.text.as_str());
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let begins = is_name(&token.text)
            && token.text != "use"
            && !(i >= 2 && text(i - 1) == ":" && text(i - 2) == ":");
        let in_use = i > 0 && text(i - 1) == "use";
        if begins && (in_use || (text(i + 1) == ":" && text(i + 2) == ":")) {
            let mut spread = Vec::new();
            tree(tokens, i, Vec::new(), &mut spread);
            found.extend(
                spread
                    .into_iter()
                    .map(|path| (resolve(path, module), token.line, in_use)),
            );
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Follows `a::b`, `a::{b, c::d}` and `a::*` from `i`; returns the place after it.
fn tree(
    tokens: &[Token],
    mut i: usize,
    mut path: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let text = |k: usize| tokens.get(k).map_or("", |t| t.text.as_str());
    loop {
        if text(i) == "{" {
            i += 1;
            while i < tokens.len() && text(i) != "}" {
                let next = tree(tokens, i, path.clone(), found);
                // Whatever is no path (`as name`, a comma) is stepped over.
                i = next.max(i + 1);
                while i < tokens.len() && text(i) != "," && text(i) != "}" {
                    i += 1;
                }
                i += usize::from(text(i) == ",");
            }
            return i + 1;
        }
        if !is_name(text(i)) {
            found.push(path);
            return i;
        }
        path.push(text(i).to_owned());
        i += 1;
        if !(text(i) == ":" && text(i + 1) == ":") {
            found.push(path);
            return i;
        }
        i += 2;
    }
}

/// Writes `self::`, `super::` and the crate's own name as `crate::`.
fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let supers = path
        .iter()
        .take_while(|s| *s == "super" || *s == "self")
        .count();
    let ups = path[..supers].iter().filter(|s| *s == "super").count();
    let inside = |here: &[String], rest: &[String]| [&["crate".to_owned()], here, rest].concat();
    match path[0].as_str() {
        "self" | "super" => inside(&module[..module.len().saturating_sub(ups)], &path[supers..]),
        "gemmad" => inside(&[], &path[1..]),
        _ => path,
    }
}

/// The module that a file under `src/` is: `["model", "text"]` for src/model/text/mod.rs, nothing for lib.rs and main.rs.
pub(crate) fn module(path: &str) -> Vec<String> {
    let inside = path
        .split_once("src/")
        .map_or(path, |(_, rest)| rest)
        .trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts
        .last()
        .is_some_and(|name| matches!(name.as_str(), "mod" | "lib" | "main"))
    {
        parts.pop();
    }
    parts
}
