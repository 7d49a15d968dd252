#!/usr/bin/env python3
"""Draw what was measured.

    plots.py context NAME=FILE [NAME=FILE ...] > PICTURE.svg
        Decoding over the length of the context: a line for each report of `gemmad bench --context N --json`, called NAME.
    plots.py memory FILE > PICTURE.svg
        Memory of the daemon while somebody speaks and while something moves, as demo/memory.py recorded it.
    plots.py soak FILE > PICTURE.svg
        What the daemon held over hours, as `make soak` recorded it (report.json).
"""

import json
import math
import pathlib
import sys
import xml.sax.saxutils

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 120, 44, 52
# Told apart in black and white and by the colour-blind: blue, orange, green, purple of Okabe and Ito, and a dash of each.
LINES = [("#0072b2", "none"), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3")]

# What lies on what, the lowest first: its key in a recording, its name in lines, its colour.
AREAS = [
    ("text", ["text model"], "#0072b2"),
    ("rest", ["K/V cache,", "buffers, program"], "#cc79a7"),
    ("audio", ["audio tower"], "#d55e00"),
    ("vision", ["vision tower"], "#009e73"),
]
# Messages that are marked: whose they are, about what, and what they say.
MARKS = {
    ("mic", "speech", "ON"): "somebody speaks",
    ("mic", "speech", "OFF"): "speech ends",
    ("mic", "event", "transcript"): "transcript",
    ("camera", "motion", "ON"): "something moves",
    ("camera", "event", "caption"): "caption",
}
FLAG = 18  # between two labels of marks, which hang below each other


def steps(largest):
    """Round numbers from 0 to just over the largest, about five of them."""
    unit = 10 ** math.floor(math.log10(largest / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * 5 >= largest)
    return [step * i for i in range(math.ceil(largest / step) + 1)]


def text(x, y, words, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{xml.sax.saxutils.escape(words)}</text>'


def length(tokens):
    return f"{tokens // 1024} K" if tokens % 1024 == 0 else str(tokens)


def picture(title, heading, below, scale, top, drawn):
    """A picture whose vertical axis is `scale`, from the bottom up to `top`; `drawn` gives what is drawn on it, for a function from values
    to heights."""

    def up(y):
        return HEIGHT - BOTTOM - y / scale[-1] * (HEIGHT - top - BOTTOM)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">'
    yield f"<title>{title}</title>"
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    yield text(LEFT, 24, heading, "start", 'font-size="15"')
    for y in scale:
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
        yield text(LEFT - 8, up(y) + 4, f"{y:g}", "end")
    yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, below)
    yield from drawn(up)
    yield "</svg>"


def context(reports):
    """Each report is a name and its points, (tokens of context, tokens per second)."""
    tokens = sorted({x for _, points in reports for x, _ in points})
    # Doubling lengths are as far from each other as they look: the axis is logarithmic.
    first, last = math.log(tokens[0]), math.log(max(tokens[-1], tokens[0] + 1))

    def across(x):
        return LEFT + (math.log(x) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def drawn(up):
        for x in tokens:
            yield text(across(x), HEIGHT - BOTTOM + 20, length(x))
        for (name, points), (colour, dash) in zip(reports, LINES):
            path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
            for x, y in points:
                yield f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>'
            yield text(across(points[-1][0]) + 10, up(points[-1][1]) + 4, name, "start", f'style="fill:{colour}"')

    scale = steps(max(y for _, points in reports for _, y in points))
    return picture("Decoding over the length of the context", "Decoding, tokens per second", "tokens of context", scale, TOP, drawn)


def memory(samples, marks):
    """Samples are seconds and MiB of each area, marks seconds and words."""
    last = samples[-1][0]

    def across(x):
        return LEFT + x / last * (WIDTH - LEFT - RIGHT)

    def total(mib):
        return sum(mib[key] for key, _, _ in AREAS)

    def drawn(up):
        below = [0.0] * len(samples)
        for key, name, colour in AREAS:
            above = [y + mib[key] for y, (_, mib) in zip(below, samples)]
            edges = [[f"{across(x):.1f},{up(y):.1f}" for (x, _), y in zip(samples, ys)] for ys in (above, below)]
            yield f'<polygon points="{" ".join(edges[0] + edges[1][::-1])}" fill="{colour}"/>'
            most = max(mib[key] for _, mib in samples)
            there = [at for at, (_, mib) in enumerate(samples) if mib[key] > most / 2]
            # What comes and goes is named in its own middle, what stays beside its end.
            stays = there[-1] == len(samples) - 1
            named = there[-1] if stays else (there[0] + there[-1]) // 2
            x, mib = samples[named]
            label = [*name, f"{mib[key]:.0f} MiB"]
            y = up((above[named] + below[named]) / 2) + 4
            if stays:
                for at, words in enumerate(label):
                    yield text(WIDTH - RIGHT + 8, y + 16 * (at - (len(label) - 1) / 2), words, "start", f'style="fill:{colour}"')
            else:
                yield text(across(x), y, " ".join(label), extra='style="fill:#fff"')
            below = above
        for x in steps(last):
            if x <= last:
                yield text(across(x), HEIGHT - BOTTOM + 20, f"{x:g}")
        for at, (x, words) in enumerate(marks):
            y = TOP + at % 3 * FLAG
            top = up(total(min(samples, key=lambda sample: abs(sample[0] - x))[1]))
            yield f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{y - 10}" y2="{top:.1f}" stroke="#222" stroke-dasharray="3 3"/>'
            yield f'<circle cx="{across(x):.1f}" cy="{top:.1f}" r="3"/>'
            yield text(across(x) + 5, y, words, "start")

    scale = steps(max(total(mib) for _, mib in samples))
    return picture("Memory of the daemon over time", "Resident memory, MiB", "seconds", scale, TOP + 3 * FLAG, drawn)


# Strips of the soak's picture, the uppermost first: series of a sample, unit.
STRIPS = [
    ([("rss", "resident"), ("anonymous", "anonymous")], "MiB"),
    ([("descriptors", "descriptors"), ("threads", "threads")], ""),
    ([("cache_files", "cache files"), ("state_files", "state files")], ""),
    ([("spool_kib", "spool")], "KiB"),
]
STRIP, GAP = 110, 26


def soak(found):
    """What the daemon held over hours: strips below each other, on one axis of time; the broker's deaths as ticks at the top."""
    samples, growth = found["samples"], found["growth"]
    last, height = samples[-1]["at"], TOP + len(STRIPS) * (STRIP + GAP) + BOTTOM - GAP
    hours = last > 7200
    unit = 3600 if hours else 60
    kept = samples[:: max(1, len(samples) // WIDTH)]

    def across(x):
        return LEFT + x / last * (WIDTH - LEFT - RIGHT)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#222">'
    yield "<title>What the daemon holds over hours of work</title>"
    yield f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    heading = f"{found['events']} events, {found['events_per_s']:.1f} a second; the broker died {len(found['marks'])} times (ticks)"
    yield text(LEFT, 24, heading, "start", 'font-size="15"')
    for at, _ in found["marks"]:
        if at <= last:
            yield f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{TOP - 10}" y2="{TOP - 4}" stroke="#222"/>'
    for number, (series, measure) in enumerate(STRIPS):
        top = TOP + number * (STRIP + GAP)
        scale = steps(max(1.0, *(one[key] for one in samples for key, _ in series)))

        def up(y, top=top, scale=scale):
            return top + STRIP - y / scale[-1] * STRIP

        for y in scale[:: 2 if len(scale) > 4 else 1]:
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
            yield text(LEFT - 8, up(y) + 4, f"{y:g}", "end")
        for (key, name), (colour, _) in zip(series, LINES):
            path = " ".join(f"{across(one['at']):.1f},{up(one[key]):.1f}" for one in kept)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
            y = up(samples[-1][key])
            y = y + 4 if len(series) == 1 else min(max(y, top + 8), top + STRIP - 16) + (-6 if key == series[0][0] else 10)
            yield text(WIDTH - RIGHT + 6, y, name, "start", f'style="fill:{colour}"')
            if key in growth:
                row = growth[key]
                told = f"{row['per_hour']:+.2g} ± {row['per_hour_error']:.1g}"
                yield text(WIDTH - RIGHT + 6, y + 13, f"{told} {measure}/h".replace(" /h", "/h"), "start", f'font-size="10" style="fill:{colour}"')
        if measure:
            yield text(LEFT - 8, top - 6, measure, "end", 'font-size="11"')
    x = across(min(found["warm_up_s"], last))
    yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="#888" stroke-dasharray="3 3"/>'
    yield text(x + 4, height - BOTTOM + 14, "warm", "start", 'font-size="10"')
    for at in steps(last / unit):
        if at * unit <= last:
            yield text(across(at * unit), height - BOTTOM + 20, f"{at:g}")
    yield text((LEFT + WIDTH - RIGHT) / 2, height - 10, "hours" if hours else "minutes")
    yield "</svg>"


def read_contexts(named):
    reports = []
    for name, path in named:
        contexts = json.loads(pathlib.Path(path).read_text()).get("contexts")
        if not contexts:
            sys.exit(f"plots: {path} has no lengths of context; measure with --context N --json")
        reports.append((name, [(one["context_tokens"], one["decode_tok_s"]) for one in contexts]))
    return reports


def read_memory(path):
    samples, marks = [], []
    for line in map(json.loads, pathlib.Path(path).read_text().splitlines()):
        if "mib" in line:
            samples.append((line["at"], line["mib"]))
            continue
        says = line["payload"]
        says = says.get("event_type") if isinstance(says, dict) else says
        words = MARKS.get((*line["topic"].split("/")[::2], says))
        # As it starts, the daemon tells that nobody speaks.
        if words and (marks or says != "OFF"):
            marks.append((line["at"], words))
    return samples, marks


def main():
    what, arguments = sys.argv[1:2], sys.argv[2:]
    if what == ["context"]:
        named = [argument.partition("=")[::2] for argument in arguments]
        if 1 <= len(named) <= len(LINES) and all(path for _, path in named):
            print("\n".join(context(read_contexts(named))))
            return
    elif what == ["memory"] and len(arguments) == 1:
        print("\n".join(memory(*read_memory(arguments[0]))))
        return
    elif what == ["soak"] and len(arguments) == 1:
        print("\n".join(soak(json.loads(pathlib.Path(arguments[0]).read_text()))))
        return
    sys.exit(__doc__)


if __name__ == "__main__":
    main()
