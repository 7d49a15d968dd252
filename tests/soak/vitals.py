"""What the daemon's process holds over time, and whether it grows: a line through the samples, with its error."""

import math
import pathlib
import re

# Name, unit, and how much more at the end than at the start is no matter: allocators round, caches fill.
SERIES = [
    ("rss", "MiB", 2.0),
    ("anonymous", "MiB", 2.0),
    ("pss", "MiB", 2.0),
    ("descriptors", "", 1.0),
    ("threads", "", 1.0),
    ("state_files", "", 1.0),
    ("cache_files", "", 1.0),
    ("cache_mib", "MiB", 0.5),
]
# Parts into which the time after warm-up is cut: neighbouring samples are alike, so that a line through all of them would seem more
# certain than it is; means of long stretches are nearly independent.
BLOCKS = 24


def kib(text, key):
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def files(directory):
    found = [path for path in directory.rglob("*") if path.is_file()]
    sizes = []
    for path in found:
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            pass  # it went while they were counted
    return len(sizes), sum(sizes)


def sample(pid, state, cache, spool):
    """One look at the process; raises OSError where it has gone."""
    proc = pathlib.Path(f"/proc/{pid}")
    status = (proc / "status").read_text()
    rollup = (proc / "smaps_rollup").read_text()
    times = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    cache_files, cache_bytes = files(cache)
    return {
        "rss": kib(status, "VmRSS") / 1024,
        "anonymous": kib(status, "RssAnon") / 1024,
        "pss": kib(rollup, "Pss") / 1024,
        "descriptors": len(list((proc / "fd").iterdir())),
        "threads": int(re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)[1]),
        "state_files": files(state)[0],
        "cache_files": cache_files,
        "cache_mib": cache_bytes / (1 << 20),
        "spool_kib": spool.stat().st_size / 1024 if spool.exists() else 0.0,
        "cpu_s": (int(times[11]) + int(times[12])) / 100,
    }


def line(points):
    """Slope and its standard error of a line through (x, y), by least squares; None of fewer than three."""
    n = len(points)
    if n < 3:
        return None
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return None
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (n - 2) / spread)


def blocks(points, count=BLOCKS):
    """Means of `count` equal stretches of the points, which are in order of x."""
    count = min(count, len(points))
    if not count:
        return []
    first, last = points[0][0], points[-1][0]
    width = (last - first) / count or 1.0
    found = [[] for _ in range(count)]
    for x, y in points:
        found[min(count - 1, int((x - first) / width))].append((x, y))
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in found if part]


def growth(samples, warm_up_s):
    """For each series: mean, largest, slope and error per hour and per 1000 events, and whether it grows.

    It grows where the slope is more than three of its errors above zero, and what it comes to over the time is more than what is no matter.
    """
    late = [one for one in samples if one["at"] >= warm_up_s]
    table = {}
    for name, unit, no_matter in SERIES:
        values = [one[name] for one in late]
        by_time = line(blocks([(one["at"] / 3600, one[name]) for one in late]))
        by_event = line(blocks([(one["events"] / 1000, one[name]) for one in late]))
        if by_time is None or by_event is None:
            continue
        hours = (late[-1]["at"] - late[0]["at"]) / 3600
        slope, error = by_time
        table[name] = {
            "unit": unit,
            "mean": sum(values) / len(values),
            "largest": max(values),
            "per_hour": slope,
            "per_hour_error": error,
            "per_1000_events": by_event[0],
            "per_1000_events_error": by_event[1],
            "over_the_run": slope * hours,
            "no_matter": no_matter,
            "grows": slope > 3 * error and slope * hours > no_matter,
        }
    return table
