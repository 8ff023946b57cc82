"""What `tools/bench load` does: days of sites whose load the rate follows, as a table and as a plot.

The law is the program's, the sites are modelled (tests/rules/site.rs); nothing is measured. Standard
library only."""

import argparse
import json
import os
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from html import escape

from program import run, write_figures

# The law was tuned on others: 0 to 9 and 100 to 399.
SEEDS = 10, 40
RUN_WAIT_MAX = 60
# As in src/queue/load.rs: what the load is to be between.
BAND = 0.70, 0.82

ROWS = [
    ("highest load in two hours without disturbance, the start included", "peak", 2),
    ("from the first report to 80 % of what the site bears, minutes", "start_minutes", 1),
    ("steady half hour: mean rate, of what the site bears", "used", 2),
    ("steady half hour: 95th percentile of the rate by the 5th", "swing", 2),
    ("steady half hour: changes of the rate", "changes", 0),
    ("steady half hour: changes against the one before", "turns", 0),
    ("a fifth of the capacity used by others for 2 min: highest load", "step_peak", 2),
    ("half the capacity gone: load over 1.0 though nobody is let in, s", "half_least_seconds", 0),
    ("half the capacity gone: load over 1.0 beyond that, s", "half_beyond_seconds", 0),
    ("half the capacity gone and back: to 80 % again, minutes", "half_minutes", 1),
    ("silence: to the floor, s", "floor_seconds", 0),
    ("silence: changes after that", "silent_changes", 0),
    ("silence over: to 80 % again, minutes", "silence_minutes", 1),
    ("least time between two changes, s", "gap_seconds", 0),
    ("changes in the whole day of 3.5 hours", "facts", 0),
]


def main():
    parser = argparse.ArgumentParser(prog="tools/bench load")
    parser.add_argument("--json", metavar="FILE", help="write the figures of each seed there")
    parser.add_argument("--plot", metavar="FILE", help="draw four stretches there, as SVG")
    parser.add_argument("--seeds", metavar=("FIRST", "END"), type=int, nargs=2, default=SEEDS)
    options = parser.parse_args()
    seeds = range(*options.seeds)
    if not seeds or options.plot and tuple(options.seeds) != SEEDS:
        parser.error(f"no seeds, or a plot of others than {SEEDS[0]} to {SEEDS[1] - 1}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        days = list(pool.map(day, seeds))
    show(f"seeds {seeds[0]} to {seeds[-1]}", days)
    figures = [{key: one[key] for key in ["seed", "site", "figures"]} for one in days]
    write_figures({"seeds": figures}, options.json)
    if options.plot:
        with open(options.plot, "w", encoding="utf-8") as to:
            to.write(plot({one["seed"]: one for one in days}))


def day(seed):
    built = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "quick", "anteroom-measure")
    args = [built, "load", "--seed", str(seed)]
    said = subprocess.run(args, stdout=subprocess.PIPE, check=True, timeout=RUN_WAIT_MAX)
    return json.loads(said.stdout)


def show(title, days):
    width = max(len(name) for name, _, _ in ROWS)
    print(f"{title:{width}} {'least':>8} {'median':>8} {'most':>8}")
    for name, key, digits in ROWS:
        values = [one["figures"][key] for one in days]
        cells = [min(values), statistics.median(values), max(values)]
        print(f"{name:{width}}" + "".join(f" {value:8.{digits}f}" for value in cells))


# Which seed, from and to which minute, and what the reader sees there.
PANELS = [
    (25, 0, 60, "The start of a site with sessions of ten minutes that bears a fifth of its cap"),
    (39, 118, 160, "A fifth of the capacity used by others, then half of the capacity gone"),
    (24, 162, 195, "No reports for ten minutes"),
]
DISTURBED = [
    ("step", 120, "used by others: 0.2"),
    ("half", 300, "half of the capacity"),
    ("silence", 600, "silence"),
]
WIDTH, LEFT, RIGHT, TOP = 960, 40, 30, 64
PANEL, GAP = 170, 64
HIGHEST = 2.0
LOAD, RATE, BETWEEN, INK, FAINT = "#1d4ed8", "#c2410c", "#dbeafe", "#1f2937", "#d1d5db"


def plot(days):
    worst = max(days.values(), key=lambda one: one["figures"]["swing"])
    noise, every = worst["site"]["noise"], worst["site"]["report_every_seconds"]
    words = f"The steady state that swings most of all: noise of {noise:.0%}, a report each {every} s"
    panels = [*PANELS, (worst["seed"], 90, 119, words)]
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        "<title>How the rate of admissions follows the load</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    keys = [
        (LEFT, LOAD, 2.5, "load of the site (1.0 is full)"),
        (LEFT + 220, RATE, 2.5, "rate in force, as a part of the rate that brings the load to 1.0 in the long run"),
        (LEFT + 730, BETWEEN, 12, f"from {BAND[0]:.2f} to {BAND[1]:.2f}"),
    ]
    for at, colour, wide, words in keys:
        parts.append(f'<path d="M{at} 24h24" stroke="{colour}" stroke-width="{wide}"/>')
        parts.append(text(at + 32, 28, words))
    for number, panel in enumerate(panels):
        parts += drawn(days[panel[0]], *panel, TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>", ""])


def drawn(one, seed, begin, end, words, top):
    """One panel: its frame, what disturbs, and the two lines."""

    def x(minute):
        return LEFT + (WIDTH - LEFT - RIGHT) * (minute - begin) / (end - begin)

    def y(value):
        return top + PANEL * (1 - min(max(value, 0), HIGHEST) / HIGHEST)

    right = WIDTH - RIGHT
    yield f'<text x="{LEFT}" y="{top - 10}" fill="{INK}" font-weight="600">{escape(words)} (seed {seed})</text>'
    low, high = BAND
    yield f'<rect x="{LEFT}" y="{y(high):.1f}" width="{right - LEFT}" height="{y(low) - y(high):.1f}" fill="{BETWEEN}"/>'
    for key, seconds, name in DISTURBED:
        first = one["begins"][key] / 60
        if begin <= first < end:
            wide = x(first + seconds / 60) - x(first)
            yield f'<rect x="{x(first):.1f}" y="{top}" width="{wide:.1f}" height="{PANEL}" fill="#6b7280" opacity="0.16"/>'
            yield text(x(first) + 4, top + 14, name)
    for value in [0, 0.5, 1, 1.5, 2]:
        dashes = ' stroke-dasharray="4 3"' if value == 1 else ""
        colour = INK if value in (0, 1) else FAINT
        yield f'<path d="M{LEFT} {y(value):.1f}H{right}" stroke="{colour}"{dashes}/>'
        yield text(LEFT - 8, y(value) + 4, f"{value:g}", "end")
    for minute in range(begin, end + 1):
        if minute % 10 == 0:
            yield f'<path d="M{x(minute):.1f} {top + PANEL}v5" stroke="{INK}"/>'
            yield text(x(minute), top + PANEL + 18, f"{minute} min", "middle")
    every = one["point_every_seconds"] / 60
    points = range(round(begin / every), min(round(end / every) + 1, len(one["load"])))
    full = one["site"]["cap"] * one["site"]["sustainable"]
    rates = [(x(at * every), y(one["per_minute"][at] / full)) for at in points]
    steps = "".join(f"H{across:.1f}V{up:.1f}" for across, up in rates[1:])
    yield line(f"M{rates[0][0]:.1f} {rates[0][1]:.1f}{steps}", RATE)
    loads = " ".join(f"{x(at * every):.1f} {y(one['load'][at]):.1f}" for at in points)
    yield line(f"M{loads}", LOAD)


def line(path, colour):
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{INK}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    run(main)
