//! How the board is: memory of this process, load, heat, and when to do less.

use std::path::Path;

use crate::config::Degrade;

/// Figures of this process and the board.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Memory of this process, MiB.
    pub rss_mib: f64,
    /// Of it what no file holds, MiB.
    pub anonymous_mib: f64,
    /// Mean number of processes that ran or waited in the last minute.
    pub load_1m: f64,
    /// The hottest thermal zone, °C.
    pub hottest_c: Option<f64>,
    /// Share of the last 10 s in which something waited for memory, percent.
    pub memory_pressure_percent: Option<f64>,
}

impl Vitals {
    /// Reads those of the board below `root`, where its `/proc` and `/sys` are. What cannot be read is left out.
    pub fn read(root: &Path) -> Vitals {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mib = |key: &str| kib_of(&status, key) / 1024.0;
        let load = text("proc/loadavg");
        Vitals {
            rss_mib: mib("VmRSS:"),
            anonymous_mib: mib("RssAnon:"),
            load_1m: load
                .split_whitespace()
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or(0.0),
            hottest_c: hottest(&root.join("sys/class/thermal")),
            memory_pressure_percent: pressure(&text("proc/pressure/memory")),
        }
    }
}

fn kib_of(status: &str, key: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0.0)
}

/// The hottest thermal zone, °C.
fn hottest(thermal: &Path) -> Option<f64> {
    let zones = std::fs::read_dir(thermal).ok()?.flatten();
    let temperatures = zones
        .filter(|zone| {
            zone.file_name()
                .to_string_lossy()
                .starts_with("thermal_zone")
        })
        .filter_map(|zone| std::fs::read_to_string(zone.path().join("temp")).ok())
        .filter_map(|text| text.trim().parse::<f64>().ok())
        .map(|millidegrees| millidegrees / 1000.0);
    temperatures.reduce(f64::max)
}

/// `some avg10=1.23 …` of a pressure file.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

/// Whether less is done, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Degraded {
    hot: bool,
    short_of_memory: bool,
}

impl Degraded {
    /// Looks again. Heat has a band between its two limits; memory counts as short until the pressure has halved.
    pub(super) fn update(&mut self, vitals: &Vitals, limits: &Degrade) {
        let above = |value: Option<f64>, limit: f32| {
            limit > 0.0 && value.is_some_and(|value| value >= f64::from(limit))
        };
        let hot_limit = if self.hot {
            limits.cool_c
        } else {
            limits.hot_c
        };
        self.hot = limits.hot_c > 0.0 && above(vitals.hottest_c, hot_limit);
        let percent = limits.memory_pressure_percent;
        let pressure_limit = if self.short_of_memory {
            percent / 2.0
        } else {
            percent
        };
        self.short_of_memory = above(vitals.memory_pressure_percent, pressure_limit);
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.hot || self.short_of_memory
    }

    /// The reasons, in words.
    pub(super) fn reasons(&self) -> Vec<String> {
        let hot = self.hot.then(|| "the board is too hot".to_owned());
        let memory = self
            .short_of_memory
            .then(|| "the board is short of memory".to_owned());
        hot.into_iter().chain(memory).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn figures_are_read_where_the_kernel_writes_them() {
        let here = Vitals::read(Path::new("/"));
        assert!(
            here.rss_mib > here.anonymous_mib && here.anonymous_mib > 0.0,
            "{here:?}"
        );
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "sys/class/thermal/thermal_zone0/temp",
            "51234\n",
        );
        write(
            dir.path(),
            "sys/class/thermal/thermal_zone1/temp",
            "83000\n",
        );
        write(
            dir.path(),
            "sys/class/thermal/cooling_device0/temp",
            "99000\n",
        );
        write(
            dir.path(),
            "proc/pressure/memory",
            "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=3.00 avg60=0 avg300=0 total=1\n",
        );
        let there = Vitals::read(dir.path());
        assert_eq!(there.hottest_c, Some(83.0));
        assert_eq!(there.memory_pressure_percent, Some(12.5));
        let nowhere = Vitals::read(Path::new("/nowhere"));
        assert_eq!(
            (nowhere.hottest_c, nowhere.memory_pressure_percent),
            (None, None)
        );
    }

    #[test]
    fn heat_and_pressure_switch_with_a_band() {
        let limits = Degrade::default();
        let mut degraded = Degraded::default();
        let mut at = |celsius: f64, percent: f64| {
            let vitals = Vitals {
                hottest_c: Some(celsius),
                memory_pressure_percent: Some(percent),
                ..Vitals::default()
            };
            degraded.update(&vitals, &limits);
            degraded.reasons().len()
        };
        assert_eq!(at(79.9, 0.0), 0);
        assert_eq!(at(80.0, 0.0), 1);
        assert_eq!(at(76.0, 0.0), 1, "it has not cooled down yet");
        assert_eq!(at(74.9, 20.0), 1, "cool, but short of memory");
        assert_eq!(at(90.0, 11.0), 2);
        assert_eq!(at(60.0, 9.0), 0);
        let off = Degrade {
            hot_c: 0.0,
            memory_pressure_percent: 0.0,
            ..limits
        };
        let vitals = Vitals {
            hottest_c: Some(120.0),
            memory_pressure_percent: Some(100.0),
            ..Vitals::default()
        };
        let mut never = Degraded::default();
        never.update(&vitals, &off);
        assert!(!never.is_degraded());
    }
}
