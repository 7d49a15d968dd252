//! What boards are projected to do. Each figure is the longer of two times: instructions, divided by what all cores are assumed to issue,
//! and bytes of weights, divided by what the memory gives. The instructions of a whole work were counted under emulation, or are computed
//! from those of its kernels. Counts and assumptions are data (`kernels/benches/record/README.md`); docs/boards.md shows what is printed.

use std::io::{self, Write};

use crate::pack::{PackEstimate, SyntheticSize};
use crate::pipeline::{DAY_COMMANDS, DAY_TRANSCRIPTS};

const BOARDS: &str = include_str!("../../../kernels/benches/record/boards.tsv");
const WORKS: &str = include_str!("../../../kernels/benches/record/works.tsv");

/// Tokens of an answer to what was said.
const ANSWER_TOKENS: f64 = 12.0;

/// How long a person waits behind the last word, as the daemon is set: answers are begun so long after it, seconds,
const EARLY_S: f64 = 0.24;
/// and published when the silence was so long.
const HANGOVER_S: f64 = 0.7;

/// An answer to speech, with the tokens a pass that the recorded day has (`src/pipeline/guesses/tests.rs`, docs/speed.md).
struct Spoken {
    what: &'static str,
    tokens: f64,
    tokens_a_pass: f64,
}

const SPOKEN: [Spoken; 2] = [
    // As many as `{"command":"turn_on","area":"kitchen","device":"light"}` has pieces.
    Spoken {
        what: "from the last word to a command of 17 tokens, silence included",
        tokens: 17.0,
        tokens_a_pass: DAY_COMMANDS,
    },
    Spoken {
        what: "from the last word to a transcript of 12 tokens, silence included",
        tokens: ANSWER_TOKENS,
        tokens_a_pass: DAY_TRANSCRIPTS,
    },
];

/// What is projected, and measured beside it.
pub(super) const DECODE: &str = "decode, tokens/s";
pub(super) const SPEECH: &str = "encoding speech, share of real time";
pub(super) const ANSWER: &str = "from the end of speech to the last of 12 tokens";

/// The figure of a prompt.
pub(super) fn prefill(tokens: impl std::fmt::Display) -> String {
    format!("prefill of {tokens}, tokens/s")
}

/// The figure of something that takes seconds.
pub(super) fn seconds(what: &str) -> String {
    format!("{what}, s")
}

/// What is assumed of a board.
pub(super) struct Board {
    pub(super) name: &'static str,
    /// As QEMU calls it: `cortex-a76`.
    pub(super) cpu: &'static str,
    pub(super) cores: f64,
    pub(super) ghz: f64,
    /// Instructions that a core completes in a cycle.
    pub(super) per_cycle: f64,
    /// Plain reading on all cores.
    pub(super) read_gb_s: f64,
}

/// Instructions of a piece of work, and the bytes of weights that it reads.
struct Work {
    name: &'static str,
    instructions: f64,
    weight_bytes: f64,
    /// It was counted whole.
    counted: bool,
}

/// A figure that is projected.
pub(super) struct Projected {
    pub(super) name: String,
    pub(super) value: f64,
    /// Nothing of it is computed from counts of kernels.
    counted: bool,
}

impl Projected {
    /// For people; what is computed is marked.
    pub(super) fn shown(&self) -> String {
        let mark = if self.counted { "" } else { "≈ " };
        format!("{mark}{}", shown(self.value))
    }
}

/// The cells of a table's lines behind the first.
fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = table.lines().skip(1);
    lines.map(|line| line.split('\t').collect())
}

/// All boards, the slowest first.
pub(super) fn boards() -> Vec<Board> {
    let board = |cells: Vec<&'static str>| {
        let &[name, cpu, cores, ghz, per_cycle, read_gb_s] = cells.as_slice() else {
            return None;
        };
        Some(Board {
            name,
            cpu,
            cores: cores.parse().ok()?,
            ghz: ghz.parse().ok()?,
            per_cycle: per_cycle.parse().ok()?,
            read_gb_s: read_gb_s.parse().ok()?,
        })
    };
    lines(BOARDS).filter_map(board).collect()
}

/// What was counted of a model of that size, in that recipe, on that CPU.
fn works(size: &str, recipe: &str, cpu: &str) -> Vec<Work> {
    let work = |cells: Vec<&'static str>| {
        let &[
            its_size,
            its_recipe,
            its_cpu,
            name,
            instructions,
            weight_bytes,
            how,
        ] = cells.as_slice()
        else {
            return None;
        };
        let wanted = [its_size, its_recipe, its_cpu] == [size, recipe, cpu];
        wanted.then_some(Work {
            name,
            instructions: instructions.parse().ok()?,
            weight_bytes: weight_bytes.parse().ok()?,
            counted: how == "counted",
        })
    };
    lines(WORKS).filter_map(work).collect()
}

/// Sizes and recipes that were counted, as they stand in the record.
fn counted() -> Vec<[&'static str; 2]> {
    let mut all: Vec<[&'static str; 2]> = Vec::new();
    for cells in lines(WORKS) {
        if let &[size, recipe, ..] = cells.as_slice()
            && !all.contains(&[size, recipe])
        {
            all.push([size, recipe]);
        }
    }
    all
}

impl Board {
    fn seconds(&self, work: &Work) -> f64 {
        self.pass_seconds(work, 1.0)
    }

    /// So many times the work, whose weights are read once.
    fn pass_seconds(&self, work: &Work, times: f64) -> f64 {
        let computing = times * work.instructions / (self.cores * self.ghz * 1e9 * self.per_cycle);
        let reading = work.weight_bytes / (self.read_gb_s * 1e9);
        computing.max(reading)
    }

    /// What somebody waits for an answer to speech: `end` is what is left of the ears and the prompt.
    fn waited_s(&self, end: &Work, token: &Work, spoken: &Spoken) -> f64 {
        let passes = (spoken.tokens / spoken.tokens_a_pass).ceil();
        let pass_s = self.pass_seconds(token, spoken.tokens / passes);
        HANGOVER_S.max(EARLY_S + self.seconds(end) + passes * pass_s)
    }

    /// What is projected for a model of that size (as `gemmad pack --synthetic` calls it) in that recipe; nothing where it was not counted.
    pub(super) fn project(&self, size: &str, recipe: &str) -> Vec<Projected> {
        let works = works(size, recipe, self.cpu);
        let token = works.iter().find(|work| work.name == "token");
        let token_s = token.map_or(0.0, |token| self.seconds(token));
        let figure = |work: &Work| {
            let s = self.seconds(work);
            let (rank, name, value) = match work.name {
                "token" => (0, DECODE.to_owned(), 1.0 / s),
                "second of speech" => (2, SPEECH.to_owned(), s),
                name => match (
                    name.strip_prefix("prompt of "),
                    name.strip_prefix("end of speech"),
                ) {
                    (Some(tokens), _) => {
                        let tokens: f64 = tokens.strip_suffix(" tokens")?.parse().ok()?;
                        (1, prefill(tokens), tokens / s)
                    }
                    (_, Some(how)) => {
                        let name = seconds(&format!("{ANSWER}{how}"));
                        (4, name, s + ANSWER_TOKENS * token_s)
                    }
                    _ => (3, seconds(name), s),
                },
            };
            let answers = rank == 4;
            let counted = work.counted && !(answers && token.is_some_and(|token| !token.counted));
            Some((
                rank,
                Projected {
                    name,
                    value,
                    counted,
                },
            ))
        };
        let mut figures: Vec<(u8, Projected)> = works.iter().filter_map(figure).collect();
        let end = works.iter().find(|work| work.name == "end of speech");
        if let (Some(end), Some(token)) = (end, token) {
            figures.extend(SPOKEN.iter().map(|spoken| {
                let waited = Projected {
                    name: seconds(spoken.what),
                    value: self.waited_s(end, token, spoken),
                    counted: false,
                };
                (5, waited)
            }));
        }
        figures.sort_by_key(|&(rank, _)| rank);
        figures.into_iter().map(|(_, figure)| figure).collect()
    }
}

/// A figure with as many digits as it is worth.
pub(super) fn shown(value: f64) -> String {
    let digits = match value {
        20.0.. => 0,
        1.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// The name of a published model for people, by its size's: `Gemma 4 E2B`.
pub(super) fn label(size: SyntheticSize) -> Option<String> {
    let recipe = size.recipes().first().copied().unwrap_or_default();
    let estimate = PackEstimate::new(size, recipe).ok()?;
    let family = estimate.architecture.spec().family;
    Some(format!("{family} {}", size.model()))
}

/// Prints all that is projected, a table for each model.
pub(super) fn print(out: &mut dyn Write) -> io::Result<()> {
    let mut sizes: Vec<&str> = counted().into_iter().map(|[size, _]| size).collect();
    sizes.dedup();
    for size in sizes {
        let recipes = counted()
            .into_iter()
            .filter(|[its_size, _]| *its_size == size);
        let recipes: Vec<&str> = recipes.map(|[_, recipe]| recipe).collect();
        let mut head = SyntheticSize::named(size)
            .and_then(label)
            .unwrap_or_default();
        let mut rule = "---".to_owned();
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        for (column, (board, recipe)) in boards()
            .iter()
            .flat_map(|board| recipes.iter().map(move |recipe| (board, recipe)))
            .enumerate()
        {
            head += &format!(" | {}, `{recipe}`", board.name);
            rule += " | ---";
            for figure in board.project(size, recipe) {
                let at = rows.iter().position(|(known, _)| *known == figure.name);
                let at = at.unwrap_or_else(|| {
                    rows.push((figure.name.clone(), Vec::new()));
                    rows.len() - 1
                });
                // What another recipe has alone leaves a gap.
                rows[at].1.resize(column, String::new());
                rows[at].1.push(figure.shown());
            }
        }
        writeln!(out, "| {head} |\n| {rule} |")?;
        for (name, cells) in rows {
            writeln!(out, "| {name} | {} |", cells.join(" | "))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_record_is_read() {
        assert_eq!(boards().len(), lines(BOARDS).count());
        let mut read = 0;
        for [size, recipe] in counted() {
            for board in boards() {
                let works = works(size, recipe, board.cpu);
                let spoken = works.iter().filter(|work| work.name == "end of speech");
                let spoken = spoken.count() * SPOKEN.len();
                assert_eq!(board.project(size, recipe).len(), works.len() + spoken);
                read += works.len();
            }
        }
        assert_eq!(read, lines(WORKS).count());
    }

    /// By hand, from the record of Gemma 3n E2B on the Cortex-A76: 15.04 G instructions of a prompt at 14.4 a nanosecond, and 1.368 GB of a
    /// token at 11 GB/s.
    #[test]
    fn the_longer_time_counts() {
        let boards = boards();
        let pi = boards.iter().find(|board| board.cpu == "cortex-a76");
        let figures = pi.unwrap().project("e2b", "balanced");
        let of = |name: &str| {
            let mut figures = figures.iter();
            figures.find(|figure| figure.name == name).unwrap().value
        };
        assert!((of("prefill of 128, tokens/s") - 128.0 / (15.036_480_729 / 14.4)).abs() < 1e-6);
        assert!((of(DECODE) - 11.0 / 1.368_362_560).abs() < 1e-6);
        assert!(pi.unwrap().project("e2b", "unknown").is_empty());
    }
}
