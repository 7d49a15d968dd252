//! Which CPUs of a big.LITTLE board to compute on.

use std::path::Path;

/// Where Linux describes its CPUs.
pub(crate) const SYSFS: &str = "/sys/devices/system/cpu";

/// How many threads make sense here when nobody says otherwise: the big cores where cores differ, else all of them.
///
/// A little core in the team finishes its rows late and eats the memory bandwidth of the big ones.
pub fn recommended_threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let capacities = capacities(Path::new(SYSFS));
    let largest = capacities.iter().map(|&(_, capacity)| capacity).max();
    let big = capacities
        .iter()
        // RK3588 and alike rate equal cores a few per cent apart.
        .filter(|&&(_, capacity)| largest.is_some_and(|largest| capacity * 4 >= largest * 3))
        .count();
    if big == 0 {
        available
    } else {
        big.min(available)
    }
}

/// The `count` most capable CPUs, or none when all CPUs are alike (or Linux does not say): then there is nothing to choose.
pub(crate) fn biggest(count: usize, sysfs: &Path) -> Option<Vec<usize>> {
    let mut capacities = capacities(sysfs);
    let first = capacities.first()?.1;
    if count >= capacities.len() || capacities.iter().all(|&(_, capacity)| capacity == first) {
        return None;
    }
    // Stable: among equals the lower number first.
    capacities.sort_by_key(|&(_, capacity)| std::cmp::Reverse(capacity));
    Some(capacities[..count].iter().map(|&(cpu, _)| cpu).collect())
}

/// `(cpu number, cpu_capacity)` of every CPU that has one, by number.
fn capacities(sysfs: &Path) -> Vec<(usize, u64)> {
    let Ok(entries) = std::fs::read_dir(sysfs) else {
        return Vec::new();
    };
    let mut found: Vec<(usize, u64)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let cpu = entry
                .file_name()
                .to_str()?
                .strip_prefix("cpu")?
                .parse()
                .ok()?;
            let capacity = std::fs::read_to_string(entry.path().join("cpu_capacity")).ok()?;
            Some((cpu, capacity.trim().parse::<u32>().ok()?.into()))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(capacities: &[u32]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (cpu, capacity) in capacities.iter().enumerate() {
            let directory = sysfs.path().join(format!("cpu{cpu}"));
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("cpu_capacity"), format!("{capacity}\n")).unwrap();
        }
        std::fs::create_dir(sysfs.path().join("cpufreq")).unwrap();
        sysfs
    }

    #[test]
    fn rk3588_computes_on_its_big_cores() {
        let sysfs = board(&[414, 414, 414, 414, 1024, 1024, 1024, 1024]);
        assert_eq!(biggest(4, sysfs.path()), Some(vec![4, 5, 6, 7]));
        assert_eq!(biggest(5, sysfs.path()), Some(vec![4, 5, 6, 7, 0]));
        assert_eq!(biggest(8, sysfs.path()), None);
    }

    #[test]
    fn equal_cores_are_left_to_the_scheduler() {
        assert_eq!(biggest(2, board(&[1024; 4]).path()), None);
        assert_eq!(biggest(2, Path::new("/nonexistent")), None);
    }
}
