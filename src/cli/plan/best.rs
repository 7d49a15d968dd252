//! What fits this machine best: a model that nobody named, and the recipe of one that somebody did.

use std::path::Path;

use kernels::{Isa, Pool};
use rustix::fs::statvfs;

use super::{Report, Row, memory_of_this_machine, memory_read_gb_s};
use crate::cli::failure::{Failure, exit};
use crate::pack::{PackEstimate, Recipe, SyntheticSize};

/// What is pulled where nobody names a model, the best first: weights that were trained for their few bits, since such lose less than
/// others that are rounded afterwards, and are a third to fetch.
const MODELS: [(&str, SyntheticSize, Recipe); 4] = [
    ("gemma-4-e4b:q4_0", SyntheticSize::Gemma4E4b, Recipe::Q4_0),
    (
        "gemma-4-e4b:mobile",
        SyntheticSize::Gemma4E4b,
        Recipe::Mobile,
    ),
    ("gemma-4-e2b:q4_0", SyntheticSize::Gemma4E2b, Recipe::Q4_0),
    (
        "gemma-4-e2b:mobile",
        SyntheticSize::Gemma4E2b,
        Recipe::Mobile,
    ),
];
/// A board reads its weights once a token and reaches some of its memory's speed: so many at most are some four in truth, which is as
/// fast as people speak.
const LEAST_TOK_S: f64 = 6.0;
/// What a pull needs besides the pack, and what is left to others.
const BESIDE_BYTES: u64 = 256 << 20;
const CONTEXT: usize = 4096;

/// A choice, and why it was made.
pub(in crate::cli) struct Best {
    pub(in crate::cli) name: &'static str,
    pub(in crate::cli) why: String,
}

/// The model that fits this machine best: its memory, how fast that is, and what is free where the pack is to be.
pub(in crate::cli) fn best_model(to: &Path) -> Result<Best, Failure> {
    let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
    let read_gb_s = memory_read_gb_s(&Pool::new(isa, kernels::recommended_threads()));
    let mut report = report(read_gb_s)?;
    for (name, size, recipe) in MODELS {
        let pack = PackEstimate::new(size, recipe)?;
        let whole = pack.slices.full().name.clone();
        report.add(&pack, name, recipe.name(), |slice| slice == whole);
    }
    Ok(best_of(&report, free_bytes(to)))
}

/// The first that fits whole and is fast enough; else the fastest that fits, whole or without its towers; else the smallest.
fn best_of(report: &Report, free_bytes: Option<u64>) -> Best {
    let has_room =
        |row: &&Row| free_bytes.is_none_or(|free| row.flash_bytes + BESIDE_BYTES <= free);
    let rows = || MODELS.iter().map(|(name, ..)| *name).zip(&report.rows);
    let speed = |row: &Row| row.projected_tok_s_at_most;
    let fits =
        |wanted: &'static str| rows().filter(move |(_, row)| row.fits == wanted && has_room(row));
    let fastest = |wanted| fits(wanted).max_by(|(_, a), (_, b)| speed(a).total_cmp(&speed(b)));
    let found = fits("all")
        .find(|(_, row)| speed(row) >= LEAST_TOK_S)
        .or_else(|| fastest("all"))
        .or_else(|| fastest("text"));
    let smallest = || rows().min_by_key(|(_, row)| row.flash_bytes);
    let Some((name, row)) = found.or_else(smallest) else {
        unreachable!("there are models");
    };
    let (memory, idle) = (gib(report.memory_bytes), gib(row.resident_idle_bytes));
    let speed = format!(
        "at most {:.0} tokens/s by the speed of its memory, a projection",
        speed(row)
    );
    let free = free_bytes.map_or(String::new(), |free| {
        format!(" of the {:.1} GB free", free as f64 / 1e9)
    });
    let flash = format!("{:.1} GB{free}", row.flash_bytes as f64 / 1e9);
    let why = match found.map(|(_, row)| row.fits) {
        Some("all") => format!(
            "the best that fits this machine: at rest {idle:.1} of {memory:.1} GiB of memory; {flash}; {speed}"
        ),
        Some(_) => format!(
            "nothing larger fits this machine: at rest {idle:.1} of {memory:.1} GiB of memory, which leaves no room to hear or see; {flash}; {speed}"
        ),
        None => format!(
            "the smallest there is, and this machine has too little for it: it takes {idle:.1} of {memory:.1} GiB of memory, and {flash}"
        ),
    };
    Best { name, why }
}

/// What is free where a directory is or will be made.
fn free_bytes(dir: &Path) -> Option<u64> {
    let there = dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("."));
    let disk = statvfs(there).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn report(read_gb_s: f64) -> Result<Report, Failure> {
    Ok(Report {
        memory_bytes: memory_of_this_machine()?,
        read_gb_s,
        read_measured: true,
        isa: "",
        context: CONTEXT,
        flash: None,
        rows: Vec::new(),
    })
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 30)
}

/// The recipe in which a published model fits this machine best, and why: the largest of those with which it hears and sees.
pub(in crate::cli) fn best_recipe(size: SyntheticSize) -> Result<(Recipe, String), Failure> {
    // No speed is told.
    let mut report = report(1.0)?;
    let recipes = [Recipe::Balanced, Recipe::Small];
    for recipe in recipes {
        let pack = PackEstimate::new(size, recipe)?;
        let whole = pack.slices.full().name.clone();
        report.add(&pack, size.model(), recipe.name(), |slice| slice == whole);
    }
    let memory = gib(report.memory_bytes);
    let fits = |wanted: &str| report.rows.iter().position(|row| row.fits == wanted);
    let (at, how) = match (fits("all"), fits("text")) {
        (Some(at), _) => (at, "all of it"),
        (None, Some(at)) => (at, "without hearing and seeing"),
        (None, None) => (
            recipes.len() - 1,
            "which is less than it needs, so it will be slow",
        ),
    };
    let needed = gib(report.rows[at].resident_idle_bytes);
    let why = format!("{needed:.1} GiB at rest fit the {memory:.1} GiB of this machine, {how}");
    let why = match fits("all").or(fits("text")) {
        Some(_) => why,
        None => format!("it needs {needed:.1} GiB, and this machine has {memory:.1} GiB, {how}"),
    };
    Ok((recipes[at], why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Boards as they are sold: GiB of memory, GB/s, GB free.
    #[test]
    fn boards_get_what_fits_them() {
        for (memory, speed, free, name, why) in [
            (16, 12.0, 100, "gemma-4-e2b:q4_0", "the best"),
            (16, 15.0, 100, "gemma-4-e4b:mobile", "the best"),
            (16, 60.0, 100, "gemma-4-e4b:q4_0", "the best"),
            (8, 12.0, 100, "gemma-4-e2b:q4_0", "the best"),
            (8, 12.0, 4, "gemma-4-e2b:mobile", "the best"),
            (4, 5.0, 20, "gemma-4-e2b:mobile", "the best"),
            (4, 1.0, 20, "gemma-4-e2b:mobile", "the best"),
            (2, 5.0, 20, "gemma-4-e2b:mobile", "fits this machine"),
            (1, 5.0, 20, "gemma-4-e2b:mobile", "no room to hear or see"),
            (8, 12.0, 1, "gemma-4-e2b:mobile", "too little"),
        ] {
            let mut report = report(speed).unwrap();
            report.memory_bytes = memory << 30;
            for (name, size, recipe) in MODELS {
                let pack = PackEstimate::new(size, recipe).unwrap();
                let whole = pack.slices.full().name.clone();
                report.add(&pack, name, recipe.name(), |slice| slice == whole);
            }
            let best = best_of(&report, Some(free * 1_000_000_000));
            assert_eq!(best.name, name, "{memory} GiB: {}", best.why);
            assert!(best.why.contains(why), "{memory} GiB: {}", best.why);
        }
    }
}
