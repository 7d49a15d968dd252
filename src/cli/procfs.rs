//! Figures of the kernel about this machine and this process.

/// A line of a file such as `/proc/meminfo` or `/proc/self/status`, which are in KiB, in bytes; `key` has its colon. `None` where
/// the system has no such line.
pub(super) fn bytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
