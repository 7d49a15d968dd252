#!/usr/bin/env python3
"""Draw what `gemmad bench --context N --json` measured: decoding, in tokens per second, over the length of the context.

    plots.py NAME=FILE [NAME=FILE ...] > PICTURE.svg      a line for each file, called NAME
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


def steps(largest):
    """Round numbers from 0 to just over the largest, about five of them."""
    unit = 10 ** math.floor(math.log10(largest / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * 5 >= largest)
    return [step * i for i in range(math.ceil(largest / step) + 1)]


def text(x, y, words, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{xml.sax.saxutils.escape(words)}</text>'


def length(tokens):
    return f"{tokens // 1024} K" if tokens % 1024 == 0 else str(tokens)


def plot(reports):
    """Each report is a name and its points, (tokens of context, tokens per second)."""
    tokens = sorted({x for _, points in reports for x, _ in points})
    scale = steps(max(y for _, points in reports for _, y in points))
    # Doubling lengths are as far from each other as they look: the axis is logarithmic.
    first, last = math.log(tokens[0]), math.log(max(tokens[-1], tokens[0] + 1))

    def across(x):
        return LEFT + (math.log(x) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def up(y):
        return HEIGHT - BOTTOM - y / scale[-1] * (HEIGHT - TOP - BOTTOM)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">'
    yield "<title>Decoding over the length of the context</title>"
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    yield text(LEFT, 24, "Decoding, tokens per second", "start", 'font-size="15"')
    for y in scale:
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
        yield text(LEFT - 8, up(y) + 4, f"{y:g}", "end")
    for x in tokens:
        yield text(across(x), HEIGHT - BOTTOM + 20, length(x))
    yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "tokens of context")
    for (name, points), (colour, dash) in zip(reports, LINES):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        for x, y in points:
            yield f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>'
        yield text(across(points[-1][0]) + 10, up(points[-1][1]) + 4, name, "start", f'style="fill:{colour}"')
    yield "</svg>"


def main():
    named = [argument.partition("=")[::2] for argument in sys.argv[1:]]
    if not 1 <= len(named) <= len(LINES) or not all(path for _, path in named):
        sys.exit(__doc__)
    reports = []
    for name, path in named:
        contexts = json.loads(pathlib.Path(path).read_text()).get("contexts")
        if not contexts:
            sys.exit(f"plots: {path} has no lengths of context; measure with --context N --json")
        reports.append((name, [(one["context_tokens"], one["decode_tok_s"]) for one in contexts]))
    print("\n".join(plot(reports)))


if __name__ == "__main__":
    main()
