//! The ways to run a checkpoint that was trained in few bits, and how far from the reference each may be.
//!
//! What the reference rounds to steps of 8 bits jumps by a step where sums in another order lie on the other side of a boundary. One such jump
//! in a hundred tokens moves all that come behind it, the more so as the weights are random. A set may say which of its steps, moved by a few
//! ulps, lay such values on the side on which they are in the reference (`golden/beside_a_boundary.tsv`): then everything has to be that of the
//! reference. Of another set it may be as far from the reference as it is from itself, with all steps moved at random by some ulps.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use gemmad::model::weights::mobile::ACTIVATION_SCALES;
use gemmad::pack::Recipe;
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::common::{Golden, fixtures_gemma4_mobile, pack_of};

/// Runs with moved steps.
const MOVED: u32 = 12;
/// By so many ulps at most. Those that are known took as many.
const ULPS: i32 = 4;
/// The largest of so many distances may be a little less than the largest there is.
const SLACK: f64 = 1.25;

pub(super) fn golden() -> Golden {
    Golden::of(&fixtures_gemma4_mobile(), "qat")
}

/// Steps that lay values beside a boundary where the reference has them, and by how many ulps; `None` where a set does not say.
fn beside_a_boundary() -> Option<Vec<(String, i32)>> {
    let path = fixtures_gemma4_mobile().join("golden/beside_a_boundary.tsv");
    let text = std::fs::read_to_string(path).ok()?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let steps = lines.map(|line| {
        let mut words = line.split('\t');
        let mut word = || words.next().unwrap();
        (word().to_owned(), word().parse().unwrap())
    });
    Some(steps.collect())
}

/// What the steps are.
#[derive(Clone, Copy)]
enum Steps {
    /// Those that it was trained with, but for those beside a boundary.
    Trained,
    /// Each of those moved at random.
    Moved(u32),
    /// 0: nothing is rounded.
    None,
}

impl Steps {
    fn change(self, name: &str, step: f32, known: &[(String, i32)]) -> f32 {
        let ulps = match self {
            Steps::None => return 0.0,
            Steps::Trained => known
                .iter()
                .find(|(known, _)| known == name)
                .map_or(0, |(_, ulps)| *ulps),
            Steps::Moved(seed) => {
                let mut hasher = DefaultHasher::new();
                (name, seed).hash(&mut hasher);
                (hasher.finish() % (2 * ULPS as u64 + 1)) as i32 - ULPS
            }
        };
        // An uncalibrated layer's step is 0 and stays so.
        if step == 0.0 {
            return step;
        }
        f32::from_bits(step.to_bits().wrapping_add_signed(ulps))
    }
}

/// The goldens of one of the two ways to run it, and its pack.
pub(super) struct Run {
    /// What the names of its goldens begin with.
    pub(super) prefix: &'static str,
    pub(super) rounds: bool,
    pub(super) pack: PathBuf,
    _home: TempDir,
}

impl Run {
    fn of(steps: Steps) -> Run {
        let home = tempfile::tempdir().unwrap();
        let from = home.path().join("from");
        copy(&fixtures_gemma4_mobile(), &from);
        let known = beside_a_boundary().unwrap_or_default();
        change_steps(&from, |name, step| steps.change(name, step, &known));
        let rounds = !matches!(steps, Steps::None);
        Run {
            prefix: if rounds { "" } else { "no_srq." },
            rounds,
            pack: pack_of(&from, Recipe::Mobile, home.path()),
            _home: home,
        }
    }
}

/// With the roundings that it was trained with, and with none.
pub(super) fn runs() -> [Run; 2] {
    [Steps::Trained, Steps::None].map(Run::of)
}

/// Fails where the reference is further off than it may be: than `exact`, and where the set does not know its boundaries, than the furthest of
/// the runs with moved steps; `moved` says of each how far it is.
#[track_caller]
pub(super) fn assert_as_near_as_itself(
    name: &str,
    off: f64,
    exact: f64,
    mut moved: impl FnMut(&Run) -> f64,
) {
    if off <= exact {
        return;
    }
    assert!(beside_a_boundary().is_none(), "{name}: {off} > {exact}");
    let runs = (0..MOVED).map(|seed| moved(&Run::of(Steps::Moved(seed))));
    let most = runs.fold(0.0, f64::max);
    assert!(off <= SLACK * most, "{name}: {off} > {SLACK} * {most}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Changes every step of every file of weights in a directory.
fn change_steps(dir: &Path, change: impl Fn(&str, f32) -> f32) {
    let mut steps = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "safetensors") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        for (name, info) in metadata.tensors() {
            if ACTIVATION_SCALES.iter().any(|end| name.ends_with(end)) {
                let at = 8 + header + info.data_offsets.0;
                let step = bytes[at..].first_chunk_mut().unwrap();
                *step = change(&name, f32::from_le_bytes(*step)).to_le_bytes();
                steps += 1;
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(steps > 0);
}
