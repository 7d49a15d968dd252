//! The page: what was found, as Markdown. All words are this program's own, and everything else is a number or was looked over by
//! `machine` and `measure`.

use super::Found;
use super::machine::Machine;
use super::measure::{Measured, Model};
use super::microphone::Heard;
use super::projection::{ANSWER, Board, DECODE, SPEECH, boards, prefill, seconds, shown};
use crate::cli::flash::Speed;

/// The columns of the table in docs/boards.md.
const COLUMNS: [&str; 12] = [
    "board",
    "model, recipe",
    "gemmad",
    "decode, tokens/s",
    "prefill of 128 / 512, tokens/s",
    "speech, share of real time",
    "pictures, s",
    "end of speech to 12 tokens, s",
    "resident, GB",
    "memory, GB/s",
    "flash, MB/s",
    "hottest, °C",
];

/// Of what was not measured.
const NOTHING: &str = "-";

/// All of it.
pub(super) fn page(found: &Found) -> String {
    let board = projected_for(&found.machine);
    let mut page = format!("# gemmad on {}\n\n", board_name(&found.machine));
    page += &format!(
        "Measured by `gemmad report` of gemmad {}, on {}, with random tokens, noise and random pictures.\n",
        crate::cli::version(),
        jiff::Timestamp::now().strftime("%Y-%m-%d")
    );
    page += &format!(
        "Each figure is the median of {} after a first one that does not count.\n\n",
        match found.runs {
            1 => "one repetition".to_owned(),
            runs => format!("{runs} repetitions"),
        }
    );
    page += &table(&["the machine", ""], &about(found));
    page += &match &board {
        Some(board) => format!(
            "\nProjections are for a {} with {} x {} at {} GHz, {} instructions a cycle and {} GB/s.\nThey are arithmetic, not measurements; ≈ is computed from the counts of kernels.\n",
            board.name, board.cores, board.cpu, board.ghz, board.per_cycle, board.read_gb_s
        ),
        None => "\nNothing was projected for this CPU.\n".to_owned(),
    };
    for (model, measured) in &found.models {
        page += &format!("\n## {}\n\n", model.name());
        page += &of_model(model, measured, board.as_ref());
    }
    page += "\n## After the last word\n\n";
    page += &heard(&found.heard);
    if !found.recordings.is_empty() {
        page += "\n## Recordings\n\n";
        page += &recordings(found);
    }
    page += "\n## For docs/boards.md\n\n";
    let rows: Vec<Vec<String>> = found
        .models
        .iter()
        .map(|(model, measured)| row(found, model, measured))
        .collect();
    page + &table(&COLUMNS, &rows)
}

/// The board that is projected with such cores; of several the one of that name.
fn projected_for(machine: &Machine) -> Option<Board> {
    let cpu = machine.cpu.as_deref()?;
    let alike = boards().into_iter().filter(|board| board.cpu == cpu);
    let named = |board: &Board| {
        let name = machine.board.as_deref();
        name.is_some_and(|name| name.starts_with(board.name))
    };
    alike.max_by_key(named)
}

fn board_name(machine: &Machine) -> &str {
    machine.board.as_deref().unwrap_or(&machine.cores)
}

/// A table with a line for each row.
fn table<Cell: AsRef<str>>(head: &[&str], rows: &[Vec<Cell>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---"; head.len()];
    let rows = rows
        .iter()
        .map(|row| line(row.iter().map(AsRef::as_ref).collect()));
    line(head.to_vec()) + &line(rule) + &rows.collect::<String>()
}

fn about(found: &Found) -> Vec<Vec<String>> {
    let machine = &found.machine;
    let ghz = |ghz: Option<f64>| ghz.map_or(NOTHING.to_owned(), |ghz| format!("{ghz:.1} GHz"));
    let celsius = |celsius: Option<f64>| {
        celsius.map_or(NOTHING.to_owned(), |celsius| format!("{celsius:.0} °C"))
    };
    let watch = &found.watch;
    let complaints = match watch.complaints.as_slice() {
        [] => "none".to_owned(),
        found => found.join("; "),
    };
    let mut rows = vec![
        ["cores", &machine.cores].map(str::to_owned),
        [
            "clock; the lowest that was seen",
            &format!("{}; {}", ghz(machine.ghz), ghz(watch.slowest_ghz)),
        ]
        .map(str::to_owned),
        [
            "governor",
            machine.governor.as_deref().unwrap_or("not told"),
        ]
        .map(str::to_owned),
        [
            "memory",
            &format!(
                "{:.1} GB, plain reading {:.1} GB/s",
                gb(found.memory_bytes),
                found.memory_read_gb_s
            ),
        ]
        .map(str::to_owned),
        ["system", &machine.system].map(str::to_owned),
        [
            "kernels",
            &format!("{}, {} threads", found.isa, found.threads),
        ]
        .map(str::to_owned),
        [
            "temperature before; the highest that was seen",
            &format!("{}; {}", celsius(machine.celsius), celsius(watch.hottest_c)),
        ]
        .map(str::to_owned),
        ["complaints of heat and power", &complaints].map(str::to_owned),
        [
            "load before, of the last minute",
            &format!("{:.1}", machine.load_1m),
        ]
        .map(str::to_owned),
    ];
    if found.beside_daemon {
        rows.push(
            [
                "**beside a daemon**",
                "a gemmad ran meanwhile: figures are lower than the machine's",
            ]
            .map(str::to_owned),
        );
    }
    rows.into_iter().map(Vec::from).collect()
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn of_model(model: &Model, measured: &Measured, board: Option<&Board>) -> String {
    let projected = match (board, model.size) {
        (Some(board), Some(size)) => board.project(size, &model.recipe),
        _ => Vec::new(),
    };
    let mut rows = Vec::new();
    for (name, value) in &measured.figures {
        let beside = projected.iter().find(|figure| figure.name == *name);
        let (beside, ratio) = match beside {
            Some(beside) => (beside.shown(), format!("{:.2}", value / beside.value)),
            None => (NOTHING.to_owned(), NOTHING.to_owned()),
        };
        rows.push(vec![name.clone(), shown(*value), beside, ratio]);
    }
    let figures = table(
        &["what", "measured", "projected", "measured / projected"],
        &rows,
    );
    let text = &measured.text;
    let [speech, pictures] = measured.with_towers;
    let with = |bytes: Option<u64>| {
        bytes.map_or(NOTHING.to_owned(), |bytes| format!("{:.2} GB", gb(bytes)))
    };
    let memory = [
        (
            "weights read per token",
            format!("{:.1} MB", text.weight_bytes_per_token as f64 / 1e6),
        ),
        (
            "resident, text alone",
            format!("{:.2} GB", gb(text.resident_bytes)),
        ),
        (
            "the same, at most",
            format!("{:.2} GB", gb(text.peak_rss_bytes)),
        ),
        ("resident while somebody speaks", with(speech)),
        ("resident while something is seen", with(pictures)),
        ("flash", of_flash(&measured.flash)),
    ];
    let memory: Vec<Vec<String>> = memory
        .into_iter()
        .map(|(what, value)| vec![what.to_owned(), value])
        .collect();
    format!("{figures}\n{}", table(&["memory and flash", ""], &memory))
}

fn of_flash(speed: &Speed) -> String {
    let how = match speed.direct {
        true => "",
        false => ", through the page cache: the real figures may be lower",
    };
    format!(
        "{:.0} MB/s in one go, {:.2} ms for a row of the per-layer-embedding table{how}",
        speed.megabytes_s, speed.row_ms
    )
}

fn heard(heard: &Heard) -> String {
    match heard {
        Heard::Nothing(why) => format!("No microphone was measured: {why}.\n"),
        Heard::Answered {
            spoken_s,
            silence_ms,
            after_ms,
            tokens,
            command,
        } => {
            let what = match command {
                true => "a command of the configuration",
                false => "a transcript",
            };
            let all = f64::from(*silence_ms) / 1e3 + after_ms / 1e3;
            format!(
                "With a microphone of this machine, {spoken_s:.1} s of sound became {what} of {tokens} tokens.\n\
                 It was complete {all:.2} s after the last word: {silence_ms} ms of silence that end an utterance, and {after_ms:.0} ms.\n"
            )
        }
    }
}

fn recordings(found: &Found) -> String {
    let percent =
        |rate: Option<f64>| rate.map_or(NOTHING.to_owned(), |rate| format!("{:.2}", 100.0 * rate));
    let rows: Vec<Vec<String>> = found
        .recordings
        .iter()
        .map(|(place, row)| {
            let model = found.models.get(*place).map(|(model, _)| model.name());
            vec![
                model.unwrap_or_default(),
                row.candidate.encoding.told(),
                row.files.to_string(),
                row.failed.to_string(),
                percent(row.word_error_rate),
                percent(row.character_error_rate),
                row.real_time_factor.map_or(NOTHING.to_owned(), shown),
            ]
        })
        .collect();
    table(
        &[
            "model, recipe",
            "padding",
            "files",
            "failed",
            "WER %",
            "CER %",
            "of real time",
        ],
        &rows,
    )
}

/// A line of the table in docs/boards.md.
fn row(found: &Found, model: &Model, measured: &Measured) -> Vec<String> {
    let of = |name: &str| {
        let mut figures = measured.figures.iter();
        figures
            .find(|(known, _)| known == name)
            .map_or(NOTHING.to_owned(), |(_, value)| shown(*value))
    };
    let pictures = measured.figures.iter().filter_map(|(name, value)| {
        let size = name.strip_prefix("picture, ")?.strip_suffix(", s")?;
        Some(format!("{} ({size})", shown(*value)))
    });
    let pictures: Vec<String> = pictures.collect();
    let pictures = match pictures.is_empty() {
        true => NOTHING.to_owned(),
        false => pictures.join(", "),
    };
    let hottest = found.watch.hottest_c;
    vec![
        board_name(&found.machine).to_owned(),
        model.name(),
        env!("CARGO_PKG_VERSION").to_owned(),
        of(DECODE),
        format!("{} / {}", of(&prefill(128)), of(&prefill(512))),
        of(SPEECH),
        pictures,
        of(&seconds(ANSWER)),
        format!("{:.2}", gb(measured.text.resident_bytes)),
        format!("{:.1}", found.memory_read_gb_s),
        format!("{:.0}", measured.flash.megabytes_s),
        hottest.map_or(NOTHING.to_owned(), |celsius| format!("{celsius:.0}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports go into it: docs/boards.md.
    #[test]
    fn the_documents_have_the_table_that_reports_go_into() {
        let boards = include_str!("../../../docs/boards.md");
        let empty: [Vec<String>; 0] = [];
        assert!(boards.contains(&table(&COLUMNS, &empty)));
    }
}
