//! The table of what is truly said and seen: a line a file, `file<TAB>text`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::read_text;
use crate::cli::failure::{Failure, exit, note};

/// What a file holds, as somebody wrote it down.
pub(super) struct Truth {
    /// As it stands in the table.
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A table longer than this is a mistake.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// Reads the table, or the only one of the directory that the files lie in.
pub(super) fn read(
    directory: &Path,
    table: Option<&Path>,
    column: Option<&str>,
) -> Result<Vec<Truth>, Failure> {
    let table = match table {
        Some(table) => table.to_owned(),
        None => find(directory)?,
    };
    let text = read_text(&table, MAX_TABLE_BYTES)?;
    let wrong =
        |what: String| Failure::new(exit::DATA, format_args!("{}: {what}", table.display()));
    let Table { rows, repeated } = parse(&text, column).map_err(wrong)?;
    if rows.is_empty() {
        return Err(wrong(
            "it names no file; write a line `file<TAB>text` for each".to_owned(),
        ));
    }
    if repeated > 0 {
        let path = table.display();
        note(&format!(
            "{path}: lines that say what another said, and count no more: {repeated}"
        ));
    }
    Ok(rows
        .into_iter()
        .map(|(file, text)| Truth {
            path: directory.join(file),
            file: file.to_owned(),
            text: text.to_owned(),
        })
        .collect())
}

fn find(directory: &Path) -> Result<PathBuf, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            exit::NO_INPUT,
            format_args!("cannot read {}: {error}", directory.display()),
        )
    };
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "tsv") {
            tables.push(path);
        }
    }
    match tables.as_slice() {
        [table] => Ok(table.clone()),
        _ => Err(Failure::new(
            exit::NO_INPUT,
            format_args!(
                "{}: {} files end in .tsv and one is wanted, with lines `file<TAB>text`; name it with --table",
                directory.display(),
                tables.len()
            ),
        )),
    }
}

#[derive(Debug, PartialEq)]
struct Table<'a> {
    /// Files and texts, in order.
    rows: Vec<(&'a str, &'a str)>,
    /// Lines that say once more what another said.
    repeated: usize,
}

/// Reads `file<TAB>text`; quotes are quotes. A first line with a field `file` names columns, of which `column` or else `text` is taken.
/// Empty lines, and those that begin with `#`, say nothing.
fn parse<'a>(text: &'a str, column: Option<&str>) -> Result<Table<'a>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate();
    let mut lines = lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(i, line)| (i + 1, line.split('\t').collect::<Vec<_>>()))
        .peekable();
    let header = lines.next_if(|(_, fields)| fields.contains(&"file"));
    let columns = match (&header, column) {
        (Some((line, names)), _) => {
            let wanted = column.unwrap_or("text");
            let place = |name: &str| names.iter().position(|found| *found == name);
            let (Some(file), Some(text)) = (place("file"), place(wanted)) else {
                return Err(format!(
                    "line {line}: no column is called {wanted:?}; there are {}: name one with --column",
                    names.join(", ")
                ));
            };
            Some((file, text))
        }
        (None, Some(wanted)) => {
            return Err(format!(
                "its first line does not name the columns, so none is called {wanted:?}: begin with `file<TAB>{wanted}`, or leave --column out"
            ));
        }
        (None, None) => None,
    };
    let mut table = Table {
        rows: Vec::new(),
        repeated: 0,
    };
    let mut first = HashMap::new();
    for (line, fields) in lines {
        let pair = match columns {
            Some((file, text)) => fields.get(file).zip(fields.get(text)),
            None if fields.len() == 2 => fields.first().zip(fields.last()),
            None => None,
        };
        let Some((&file, &text)) = pair else {
            let wanted = match columns {
                Some((file, text)) => format!("at least {}", file.max(text) + 1),
                None => "file<TAB>text, 2".to_owned(),
            };
            return Err(format!(
                "line {line}: {} fields between tabs; expected {wanted}",
                fields.len()
            ));
        };
        if file.is_empty() {
            return Err(format!("line {line}: it names no file"));
        }
        match first.insert(file, (line, text)) {
            None => table.rows.push((file, text)),
            Some((_, before)) if before == text => table.repeated += 1,
            Some((before, _)) => {
                return Err(format!(
                    "lines {before} and {line}: two texts for {file}; keep the true one"
                ));
            }
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn rows(text: &str, column: Option<&str>) -> Vec<(String, String)> {
        let table = parse(text, column).unwrap();
        let rows = table.rows.into_iter();
        rows.map(|(file, text)| (file.to_owned(), text.to_owned()))
            .collect()
    }

    #[test]
    fn lines_with_and_without_a_header() {
        let wanted = [
            ("a.wav".to_owned(), "He said \"no\".".to_owned()),
            ("ü b.wav".to_owned(), String::new()),
        ];
        for text in [
            "a.wav\tHe said \"no\".\nü b.wav\t\n",
            "\u{feff}file\ttext\r\na.wav\tHe said \"no\".\r\nü b.wav\t",
            "# mine\n\ntext\tnote\tfile\nHe said \"no\".\tquiet\ta.wav\n#x\n\t\tü b.wav\n",
        ] {
            assert_eq!(rows(text, None), wanted, "{text:?}");
        }
        assert_eq!(
            rows("file\ttext\tcaption\na\tb\tc\n", Some("caption")),
            [("a".to_owned(), "c".to_owned())]
        );
    }

    #[test]
    fn what_is_said_twice_counts_once_and_a_contradiction_is_told() {
        let table = parse("a\tx\nb\ty\na\tx\n", None).unwrap();
        assert_eq!((table.rows.len(), table.repeated), (2, 1));
        for (text, column, told) in [
            ("a\tx\nb\ty\na\tz\n", None, "lines 1 and 3"),
            ("a\tx\nb y\n", None, "line 2: 1 fields"),
            ("a\tx\tz\n", None, "line 1: 3 fields"),
            ("file\tnote\na\tx\n", None, "\"text\"; there are file, note"),
            (
                "file\tx\ttext\na\tx\n",
                None,
                "line 2: 2 fields between tabs; expected at least 3",
            ),
            ("a\tx\n", Some("caption"), "`file<TAB>caption`"),
            ("\tx\n", None, "line 1: it names no file"),
        ] {
            let error = parse(text, column).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
