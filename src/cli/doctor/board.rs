//! The board itself: instructions, memory, and who runs here.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kernels::Isa;

use super::model::Model;
use super::{Finding, mib};
use crate::cli::procfs;
use crate::pipeline::Engine;

/// Which instructions the kernels use, and how many threads.
pub(super) fn cpu(threads: usize) -> Finding {
    let isa = match Isa::from_environment() {
        Ok(isa) => isa,
        Err(error) => {
            return Finding::failing("cpu", error.to_string(), "unset the environment variable");
        }
    };
    let available: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!(
        "{}, kernels for {isa} of {}; {} of {cores} cores compute",
        std::env::consts::ARCH,
        available.join(", "),
        Engine::threads_for(threads),
    );
    if Engine::threads_for(threads) > cores {
        let advice = "more threads than cores wait for each other: set threads.count to 0";
        return Finding::warning("cpu", found, advice);
    }
    if isa != Isa::best() {
        let advice = format!(
            "{} would be faster: GEMMAD_ISA forces the other",
            Isa::best()
        );
        return Finding::warning("cpu", found, advice);
    }
    if matches!(isa.to_string().as_str(), "scalar" | "neon") {
        let advice = "this CPU has no dot products: a pack with 4 bits and a small MatFormer slice help most";
        return Finding::warning("cpu", found, advice);
    }
    Finding::ok("cpu", found)
}

/// Whether the model fits: what it needs while everything is in use, against what there is.
pub(super) fn memory(model: Option<&Model>) -> Finding {
    let of = |key| procfs::bytes("/proc/meminfo", key);
    let (Some(total), Some(available)) = (of("MemTotal:"), of("MemAvailable:")) else {
        let advice = "mount /proc; nothing else says how much memory there is";
        return Finding::warning("memory", "/proc/meminfo cannot be read", advice);
    };
    let board = format!("{} of {} available", mib(available), mib(total));
    let Some(model) = model else {
        return Finding::ok("memory", board);
    };
    let drafter = match model.drafter_bytes {
        0 => String::new(),
        bytes => format!(", drafter {}", mib(bytes)),
    };
    let found = format!(
        "{board}; the model needs {}: text {}, audio {}, vision {}{drafter}, keys and values {}",
        mib(model.needed_bytes()),
        mib(model.text_bytes),
        mib(model.audio_bytes),
        mib(model.vision_bytes),
        mib(model.cache_bytes),
    );
    let smaller = "take a pack of fewer bits (gemmad pack --recipe small), a smaller [model] context, or a board with more memory";
    if model.text_bytes + model.cache_bytes > total {
        let advice = format!("the text model alone is larger than the memory: {smaller}");
        return Finding::failing("memory", found, advice);
    }
    if model.needed_bytes() > total {
        let advice = format!("weights will be read again and again from flash: {smaller}");
        return Finding::warning("memory", found, advice);
    }
    if model.needed_bytes() > available {
        let advice =
            "other programs hold the rest, unless it is a running gemmad: end what is not needed";
        return Finding::warning("memory", found, advice);
    }
    Finding::ok("memory", found)
}

/// Who runs this, with which groups.
pub(super) fn user() -> Finding {
    let uid = std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
    let name = name_of("/etc/passwd", uid).unwrap_or_else(|| uid.to_string());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups: Vec<String> = groups
        .unwrap_or_default()
        .split_whitespace()
        .map(|gid| {
            let name = gid.parse().ok().and_then(|gid| name_of("/etc/group", gid));
            name.unwrap_or_else(|| gid.to_owned())
        })
        .collect();
    let found = match groups.as_slice() {
        [] => format!("{name}, in no further groups"),
        groups => format!("{name}, in the groups {}", groups.join(", ")),
    };
    if uid == 0 {
        let advice = "root may open everything, so this says little about the daemon's permissions: run it as its user (sudo -u gemmad gemmad doctor)";
        return Finding::warning("user", found, advice);
    }
    Finding::ok("user", found)
}

/// The name with this number in a file of the form `NAME:x:NUMBER:…`.
fn name_of(file: &str, number: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    })
}

/// Where switches are kept: it must exist, and take files.
pub(super) fn state_directory(directory: &Path) -> Finding {
    let shown = directory.display();
    match tempfile::tempfile_in(directory) {
        Ok(_) => Finding::ok("state", format!("{shown} takes what is switched")),
        Err(error) => Finding::warning(
            "state",
            format!("{shown} takes no files: {error}"),
            "mutes will not outlive a restart: the service makes it (StateDirectory=gemmad), and `gemmad run` does where its user may; or name another with --state-dir",
        ),
    }
}
