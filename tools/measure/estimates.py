"""What `tools/bench estimates` does, with the program that it built. Standard library only.

How far estimates can be believed: what visitors of simulated histories, or of a real log, would have been
told at twenty even moments of their wait, beside what then came. docs/estimates.md says what it means.
"""

import argparse
import json
import os
import subprocess

from program import note, run, write_figures

HEAD = f"{'':14} {'waits':>6} {'left':>6} {'error':>7} {'naive':>7} {'within':>7} {'rises':>6}   {'cut':>6} {'error':>7} {'naive':>7}"


def main():
    parser = argparse.ArgumentParser(prog="tools/bench estimates")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--seeds", default="10-39", help="from the first to the last")
    parser.add_argument("--export", metavar="FILE", help="a log that `anteroom audit export` wrote, instead")
    parser.add_argument("--queue", help="the queue that it is of")
    options = parser.parse_args()
    if options.export and not options.queue:
        parser.error("--export needs --queue")
    program = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "quick", "anteroom-measure")
    what = ["--export", options.export, "--queue", options.queue] if options.export else ["--seeds", options.seeds]
    out = json.loads(subprocess.run([program, "backtest", *what], check=True, stdout=subprocess.PIPE).stdout)
    note(HEAD)
    for history in out["histories"]:
        note(row(history))
    print(json.dumps(out))
    write_figures(out, options.json)


def row(history):
    """One kind of history. `cut` are moments after which an operator changed something."""
    clear, cut = history["foreseeable"], history["cut"]
    share = share_of(cut["moments"], clear["moments"])
    return (
        f"{history['name']:14} {history['waits']:6} {history['gone']:5.1f}% {percent(clear['error'])}"
        f" {percent(clear['naive_error'])} {percent(clear['within_range'])} {history['rises_per_wait']:6.2f}"
        f"   {share:5.1f}% {percent(cut['error'])} {percent(cut['naive_error'])}"
    )


def share_of(some, others):
    return 100 * some / max(some + others, 1)


def percent(number):
    return f"{'':>6}-" if number is None else f"{number:6.1f}%"


run(main)
