//! What a machine is, and how it was while it was measured: only what tells how fast it is, and nothing that tells whose it is. Names of
//! hosts and users, serial numbers, addresses and paths are never read, and what is read is checked against what it may be.

use std::path::Path;

use crate::cli::procfs;
use crate::daemon::Vitals;

/// What a machine is.
pub(super) struct Machine {
    /// The board, as its firmware calls it.
    pub(super) board: Option<String>,
    /// Its cores, each kind once: `4 x Cortex-A76`.
    pub(super) cores: String,
    /// The kind of its fastest cores, as QEMU calls it: `cortex-a76`.
    pub(super) cpu: Option<String>,
    pub(super) ghz: Option<f64>,
    pub(super) governor: Option<String>,
    /// Distribution and version, kernel, size of pages.
    pub(super) system: String,
    pub(super) load_1m: f64,
    pub(super) celsius: Option<f64>,
}

/// ARM's cores by the number in their identification register (`CPU part`), the slowest first.
const ARM_PARTS: [(&str, &str); 11] = [
    ("0xd03", "Cortex-A53"),
    ("0xd05", "Cortex-A55"),
    ("0xd07", "Cortex-A57"),
    ("0xd08", "Cortex-A72"),
    ("0xd09", "Cortex-A73"),
    ("0xd0b", "Cortex-A76"),
    ("0xd0c", "Neoverse N1"),
    ("0xd0d", "Cortex-A77"),
    ("0xd41", "Cortex-A78"),
    ("0xd42", "Cortex-A78AE"),
    ("0xd4b", "Cortex-A78C"),
];

/// Longest name of a board, a CPU or a distribution.
const LONGEST_NAME: usize = 60;

impl Machine {
    /// Reads what `/proc`, `/sys` and `/etc` below `root` tell.
    pub(super) fn read(root: &Path) -> Machine {
        let text = |path: &str| read(&root.join(path));
        let cpuinfo = text("proc/cpuinfo");
        let (cores, cpu) = cores(&cpuinfo);
        let vitals = Vitals::read(root);
        let policies = policies(root);
        Machine {
            board: named(&text("sys/firmware/devicetree/base/model")),
            cores,
            cpu,
            ghz: policies
                .iter()
                .map(|policy| policy.most_ghz)
                .reduce(f64::max),
            governor: policies.first().and_then(|policy| named(&policy.governor)),
            system: system(&text("etc/os-release"), &text("proc/sys/kernel/osrelease")),
            load_1m: vitals.load_1m,
            celsius: vitals.hottest_c,
        }
    }
}

/// A file's text; nothing where it cannot be read.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A name of one line that breaks no table; `None` where nothing is left.
fn named(text: &str) -> Option<String> {
    let fits = |c: &char| c.is_ascii_alphanumeric() || " .,-+()@".contains(*c);
    let name: String = text
        .trim_end_matches(['\0', '\n'])
        .chars()
        .filter(fits)
        .take(LONGEST_NAME)
        .collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The values of a key of `/proc/cpuinfo`, one for each core.
fn of_cores<'a>(cpuinfo: &'a str, key: &str) -> Vec<&'a str> {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let own = lines.filter(|(found, _)| found.trim() == key);
    own.map(|(_, value)| value.trim()).collect()
}

/// The cores, and the kind of the fastest.
fn cores(cpuinfo: &str) -> (String, Option<String>) {
    let parts = of_cores(cpuinfo, "CPU part");
    let count = |wanted: &str| parts.iter().filter(|part| **part == wanted).count();
    let mut kinds: Vec<(usize, &str)> = ARM_PARTS
        .iter()
        .map(|(part, name)| (count(part), *name))
        .filter(|(cores, _)| *cores > 0)
        .collect();
    let known: usize = kinds.iter().map(|(cores, _)| cores).sum();
    let fastest = kinds.last();
    let cpu = fastest.map(|(_, name)| name.to_lowercase().replace(' ', "-"));
    if !parts.is_empty() {
        let unknown = parts.len() - known;
        kinds.extend((unknown > 0).then_some((unknown, "ARM core of another kind")));
        let told: Vec<String> = kinds
            .iter()
            .rev()
            .map(|(cores, name)| format!("{cores} x {name}"))
            .collect();
        return (told.join(", "), cpu);
    }
    let models = of_cores(cpuinfo, "model name");
    let name = models.first().and_then(|name| named(name));
    let name = name.unwrap_or_else(|| "a CPU that does not tell what it is".to_owned());
    (format!("{} x {name}", models.len().max(1)), None)
}

/// Distribution, kernel and pages. The numbers of a version alone: what is built at home carries names.
fn system(os_release: &str, kernel: &str) -> String {
    let of = |key: &str| {
        let mut lines = os_release.lines().filter_map(|line| line.split_once('='));
        let value = lines.find(|(found, _)| *found == key);
        value
            .and_then(|(_, value)| named(value))
            .unwrap_or_default()
    };
    let numbers = |c: char| c.is_ascii_digit() || c == '.';
    let kernel: String = kernel.chars().take_while(|c| numbers(*c)).collect();
    let name = format!("{} {}", of("ID"), of("VERSION_ID"));
    let pages = procfs::bytes("/proc/self/smaps", "KernelPageSize:");
    let pages = pages.map_or_else(String::new, |bytes| {
        format!(", pages of {} KiB", bytes >> 10)
    });
    format!("{}, kernel {kernel}{pages}", name.trim())
}

/// Cores whose clock changes together.
struct Policy {
    governor: String,
    most_ghz: f64,
    ghz: f64,
}

fn policies(root: &Path) -> Vec<Policy> {
    let entries = std::fs::read_dir(root.join("sys/devices/system/cpu/cpufreq"));
    let entries = entries.into_iter().flatten().flatten();
    let policy = |dir: &Path| {
        let ghz = |name: &str| Some(read(&dir.join(name)).trim().parse::<f64>().ok()? / 1e6);
        Some(Policy {
            governor: read(&dir.join("scaling_governor")),
            most_ghz: ghz("cpuinfo_max_freq")?,
            ghz: ghz("scaling_cur_freq")?,
        })
    };
    entries.filter_map(|entry| policy(&entry.path())).collect()
}

/// How the machine was at the worst, looked at behind each measurement.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) hottest_c: Option<f64>,
    /// The lowest clock of the fastest cores.
    pub(super) slowest_ghz: Option<f64>,
    /// What the kernel or the firmware says of heat and power.
    pub(super) complaints: Vec<&'static str>,
}

impl Watch {
    /// Looks below `root`.
    pub(super) fn look(&mut self, root: &Path) {
        let vitals = Vitals::read(root);
        self.hottest_c = self
            .hottest_c
            .into_iter()
            .chain(vitals.hottest_c)
            .reduce(f64::max);
        let policies = policies(root);
        let most = policies
            .iter()
            .map(|policy| policy.most_ghz)
            .reduce(f64::max);
        let fastest = policies
            .iter()
            .filter(|policy| Some(policy.most_ghz) == most);
        let clock = fastest.map(|policy| policy.ghz).reduce(f64::min);
        self.slowest_ghz = self.slowest_ghz.into_iter().chain(clock).reduce(f64::min);
        for complaint in complaints(root) {
            if !self.complaints.contains(&complaint) {
                self.complaints.push(complaint);
            }
        }
    }
}

/// What is wrong with heat and power.
fn complaints(root: &Path) -> Vec<&'static str> {
    let below = |path: &str, prefix: &str| {
        let entries = std::fs::read_dir(root.join(path)).into_iter().flatten();
        let named = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(prefix);
        let entries = entries.flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.file_name().is_some_and(named))
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let slows = |device: &Path| {
        let kind = read(&device.join("type")).to_lowercase();
        let state = read(&device.join("cur_state"));
        kind.contains("cpu") && state.trim().parse().is_ok_and(|state: u32| state > 0)
    };
    let cooling = below("sys/class/thermal", "cooling_device");
    if cooling.iter().any(|device| slows(device)) {
        found.push("the kernel slowed the cores because of heat");
    }
    // The firmware of a Raspberry Pi: what is so in the lowest bits, what was since the start 16 bits above.
    let mut throttled = 0;
    for soc in below("sys/devices/platform", "soc") {
        for entry in std::fs::read_dir(soc).into_iter().flatten().flatten() {
            let bits = read(&entry.path().join("get_throttled"));
            throttled |= u32::from_str_radix(bits.trim(), 16).unwrap_or(0);
        }
    }
    let low = |monitor: &Path| {
        read(&monitor.join("name")).trim() == "rpi_volt"
            && read(&monitor.join("in0_lcrit_alarm")).trim() == "1"
    };
    let monitors = below("sys/class/hwmon", "hwmon");
    if throttled & 0x1_0001 != 0 || monitors.iter().any(|monitor| low(monitor)) {
        found.push("the power supply was too weak since the start");
    }
    if throttled & 0xe_000e != 0 {
        found.push("the firmware slowed the cores since the start");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A Raspberry Pi 5 as its kernel shows it, with all that tells it from others.
    fn board(root: &Path) {
        let core = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n";
        let cpuinfo = format!(
            "{}Revision\t: d04170\nSerial\t\t: 10000000deadbeef\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
            core.repeat(4)
        );
        write(root, "proc/cpuinfo", &cpuinfo);
        write(
            root,
            "proc/sys/kernel/osrelease",
            "6.6.31+rpt-deadbeef-rpi-2712\n",
        );
        write(root, "proc/sys/kernel/hostname", "deadbeef\n");
        write(root, "proc/loadavg", "0.25 0.10 0.01 1/200 999\n");
        write(
            root,
            "etc/os-release",
            "PRETTY_NAME=\"deadbeef's Debian\"\nID=debian\nVERSION_ID=\"12\"\n",
        );
        let tree = "sys/firmware/devicetree/base";
        write(
            root,
            &format!("{tree}/model"),
            "Raspberry Pi 5 Model B Rev 1.0\0",
        );
        write(root, &format!("{tree}/serial-number"), "10000000deadbeef\0");
        let policy = "sys/devices/system/cpu/cpufreq/policy0";
        write(root, &format!("{policy}/scaling_governor"), "ondemand\n");
        write(root, &format!("{policy}/cpuinfo_max_freq"), "2400000\n");
        write(root, &format!("{policy}/scaling_cur_freq"), "1500000\n");
        write(root, "sys/class/thermal/thermal_zone0/temp", "61000\n");
    }

    #[test]
    fn a_board_is_told_by_its_kind_and_by_nothing_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        board(root.path());
        let machine = Machine::read(root.path());
        assert_eq!(
            machine.board.as_deref(),
            Some("Raspberry Pi 5 Model B Rev 1.0")
        );
        assert_eq!(machine.cores, "4 x Cortex-A76");
        assert_eq!(machine.cpu.as_deref(), Some("cortex-a76"));
        assert_eq!((machine.ghz, machine.load_1m), (Some(2.4), 0.25));
        assert_eq!(machine.governor.as_deref(), Some("ondemand"));
        assert!(
            machine
                .system
                .starts_with("debian 12, kernel 6.6.31, pages of "),
            "{}",
            machine.system
        );
        let told = format!("{} {} {:?}", machine.system, machine.cores, machine.board);
        assert!(!told.contains("deadbeef"), "{told}");
    }

    #[test]
    fn cores_of_several_kinds_are_told_the_fastest_first() {
        let core = |part: &str| format!("processor : 0\nCPU part : {part}\n\n");
        let rk3588 = core("0xd05").repeat(4) + &core("0xd0b").repeat(4);
        let (told, cpu) = cores(&rk3588);
        assert_eq!(told, "4 x Cortex-A76, 4 x Cortex-A55");
        assert_eq!(cpu.as_deref(), Some("cortex-a76"));
        let (told, cpu) = cores(&core("0xfff").repeat(2));
        assert_eq!(told, "2 x ARM core of another kind");
        assert_eq!(cpu, None);
        let pc = "model name\t: A CPU (R) | with marks\nmodel name\t: A CPU (R) | with marks\n";
        assert_eq!(cores(pc).0, "2 x A CPU (R)  with marks");
        assert_eq!(cores("").0, "1 x a CPU that does not tell what it is");
    }

    #[test]
    fn the_worst_of_heat_clock_and_power_is_kept() {
        let root = tempfile::tempdir().unwrap();
        board(root.path());
        let mut watch = Watch::default();
        watch.look(root.path());
        assert_eq!(
            (watch.hottest_c, watch.slowest_ghz),
            (Some(61.0), Some(1.5))
        );
        assert!(watch.complaints.is_empty());
        let policy = "sys/devices/system/cpu/cpufreq/policy0";
        write(
            root.path(),
            &format!("{policy}/scaling_cur_freq"),
            "2400000\n",
        );
        write(
            root.path(),
            "sys/class/thermal/thermal_zone0/temp",
            "84500\n",
        );
        write(
            root.path(),
            "sys/class/thermal/cooling_device0/type",
            "cpufreq-cpu0\n",
        );
        write(
            root.path(),
            "sys/class/thermal/cooling_device0/cur_state",
            "2\n",
        );
        write(
            root.path(),
            "sys/devices/platform/soc/soc:firmware/get_throttled",
            "50005\n",
        );
        watch.look(root.path());
        watch.look(root.path());
        assert_eq!(
            (watch.hottest_c, watch.slowest_ghz),
            (Some(84.5), Some(1.5))
        );
        assert_eq!(watch.complaints.len(), 3, "{:?}", watch.complaints);
        write(
            root.path(),
            "sys/class/thermal/thermal_zone0/temp",
            "40000\n",
        );
        watch.look(root.path());
        assert_eq!(watch.hottest_c, Some(84.5));
    }
}
