//! Figures of the kernel about this machine and this process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the daemon looks for its configuration unless it is told.
pub(super) const DEFAULT_CONFIG: &str = "/etc/gemmad/gemmad.toml";

/// A line of a file such as `/proc/meminfo` or `/proc/self/status`, which are in KiB, in bytes; `key` has its colon. `None` where
/// the system has no such line.
pub(super) fn bytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Whether this is root, who works for others.
pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Whether a `gemmad run` with this configuration is among the processes of this machine, as far as its command line can be seen.
pub(super) fn runs_with(config: &Path) -> bool {
    let Ok(wanted) = config.canonicalize() else {
        return false;
    };
    daemons().any(|(process, named)| {
        // A relative path is relative to where that process stands.
        let path = process.join("cwd").join(named).canonicalize();
        path.is_ok_and(|path| path == wanted)
    })
}

/// Whether any `gemmad run` is.
pub(super) fn runs() -> bool {
    daemons().next().is_some()
}

/// The directories in `/proc` of all `gemmad run`, each with its configuration as it was told.
fn daemons() -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    processes
        .filter(move |process| is_process(&process.file_name()))
        .filter_map(|process| {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            Some((process.path(), configuration_of(&command)?))
        })
}

/// The configuration of a `gemmad run`, of the arguments as the kernel gives them.
fn configuration_of(command: &[u8]) -> Option<PathBuf> {
    let mut arguments = command.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let program = Path::new(arguments.next()?);
    if program.file_name()? != "gemmad" || arguments.next()? != "run" {
        return None;
    }
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            config = PathBuf::from(arguments.next()?);
        } else if let Some(path) = argument.as_bytes().strip_prefix(b"--config=") {
            config = PathBuf::from(OsStr::from_bytes(path));
        }
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_command_line() {
        let of = |line: &str| configuration_of(line.replace(' ', "\0").as_bytes());
        let config = |path: &str| Some(PathBuf::from(path));
        assert_eq!(of("/usr/bin/gemmad run"), config(DEFAULT_CONFIG));
        assert_eq!(of("gemmad run --config a.toml"), config("a.toml"));
        assert_eq!(
            of("gemmad run --state-dir b --config=a.toml"),
            config("a.toml")
        );
        for other in [
            "gemmad doctor",
            "/usr/bin/vi run",
            "",
            "gemmad",
            "gemmad run --config",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
