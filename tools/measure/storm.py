"""What `tools/bench storm` does, with the programs that it built. Standard library only.

Three nodes, two projectors. All visitors are on one node; it is killed, or asked to stop. They come back
to the other two, on which others join meanwhile.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics

from children import Child
from program import built, note, run, write_figures
from servers import as_batch
from system import System, memory_kib

QUEUE = "storm"
NODES, PROJECTORS = 3, 2
# Visitors of the node that is killed, of the one that is asked to stop, and others who join meanwhile.
KILLED, ASKED, OTHERS = 15_000, 5_000, 2_500
# Everyone is in line, or back, within this, or the load has failed.
LOAD_WAIT_MAX = 120
# The node that goes.
VICTIM = 1
# A quick run has so much less of everything.
QUICK = 10


def main():
    parser = argparse.ArgumentParser(prog="tools/bench storm")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the visitors")
    parser.add_argument("--rounds", type=int, help="3, or 1 when quick")
    options = parser.parse_args()
    share = QUICK if options.quick else 1
    load_average = [os.getloadavg()[0]]
    killed, asked = [], []
    for _ in range(options.rounds or (1 if options.quick else 3)):
        killed.append(storm(signal.SIGKILL, KILLED // share, OTHERS // share))
        note(f"killed: {json.dumps(killed[-1])}")
        asked.append(storm(signal.SIGTERM, ASKED // share, OTHERS // share))
        note(f"asked to stop: {json.dumps(asked[-1])}")
    load_average.append(os.getloadavg()[0])
    out = {
        "figures": figures_of(killed, asked),
        "load_average": [round(load, 2) for load in load_average],
        "killed": killed,
        "asked": asked,
    }
    show(out)
    print(json.dumps(out))
    write_figures(out, options.json)


def storm(how, visitors, others):
    """One node goes. Everyone must be back in their place, and everyone else have one."""
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES, PROJECTORS)
        system.queue(QUEUE)
        survivors = [pid for name, pid in system.pids().items()
                     if name.startswith("node") and name != f"node {VICTIM}"]
        args = ["storm", "--visitors", visitors, "--others", others, *system.sockets(QUEUE, VICTIM)]
        args += [word for pid in survivors for word in ["--pid", pid]]
        args = [os.path.join(built(), "anteroom-load"), *args]
        load = Child(children, "the load", args, before=as_batch)
        load.said("ready", LOAD_WAIT_MAX)
        before = [memory_kib(pid)[0] for pid in survivors]
        gone = system.end(f"node {VICTIM}", how)
        said = json.loads(load.line(LOAD_WAIT_MAX))
        after = [memory_kib(pid)[0] for pid in survivors]
        if not said["ok"]:
            raise SystemExit(f"not everyone has their place: {said}")
        system.verified(QUEUE, visitors + others)
        facts = {kind: len(system.entries(QUEUE, kind)) for kind in ["reconnected", "disconnected"]}
    return {
        "visitors": visitors,
        "gone_seconds": round(gone, 3),
        "survivor_kib_before": before,
        "survivor_kib_after": after,
        "entries": facts,
        **{key: said[key] for key in SAID},
    }


# What of the load's figures is kept.
SAID = ["seconds", "back_p50_ms", "back_p99_ms", "returned", "lost", "doubled", "rises", "closes", "waits",
        "others", "others_handshake_p99_ms", "others_shown_p99_ms", "server_cpu_us_per_return"]


def figures_of(killed, asked):
    def median(rounds, key):
        return round(statistics.median(one[key] for one in rounds), 3)

    return {
        "storm_visitors": killed[0]["visitors"],
        "storm_seconds": median(killed, "seconds"),
        "storm_back_p50_ms": median(killed, "back_p50_ms"),
        "others_handshake_p99_ms": median(killed, "others_handshake_p99_ms"),
        "others_shown_p99_ms": median(killed, "others_shown_p99_ms"),
        "lost": max(one["lost"] for one in killed + asked),
        "doubled": max(one["doubled"] for one in killed + asked),
        "asked_visitors": asked[0]["visitors"],
        "asked_gone_seconds": median(asked, "gone_seconds"),
        "asked_back_seconds": median(asked, "seconds"),
    }


def show(out):
    killed, asked = out["killed"], out["asked"]
    before, after = out["load_average"]
    print(f"{len(killed)} rounds: the median; load {before:.1f} to {after:.1f}\n")
    for key, value in out["figures"].items():
        print(f"{key:27} {value:>12,.3f}")
    kib = [pair for one in killed for pair in zip(one["survivor_kib_before"], one["survivor_kib_after"])]
    print(f"\nmemory of a survivor of the kill: {min(before for before, _ in kib):,} KiB at least before, "
          f"{max(after for _, after in kib):,} at most after")
    for one in asked:
        waits = ", ".join(f"{seconds} s: {count}" for seconds, count in sorted(one["waits"].items()))
        print(f"asked to stop: closed with {one['closes']}; told to come back after {waits}")
    print(flush=True)


if __name__ == "__main__":
    run(main)
