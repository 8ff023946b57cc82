"""What `tools/bench rush` does, with the programs that it built. Standard library only.

A hundred thousand people come at once to six nodes with one log, two projectors and admission, all on
this machine, and so is the load. Then the line moves, more join at a steady rate, and some are let in.
"""

import argparse
import bisect
import contextlib
import json
import os
import resource
import statistics
import time

import feed
from crowd import Crowd, said
from program import built, note, run, write_figures
from servers import as_batch
from system import System, memory_kib

QUEUE = "rush"
NODES, PROJECTORS = 6, 2
# Of those who have said nothing yet a node lets in no more than 4,096, and waits 5 s for each.
CONNECTED_MAX = NODES * 4_000
# Joins at a steady rate while everyone else waits.
STEADY_JOINS, STEADY_RATE = 5_000, 500
# People let in a minute while the front is looked at, and for how many seconds.
FRONT_RATE, FRONT_SECONDS = 600, 10
# Who has at most so many ahead is at the front, and told every change at once.
FRONT_PLACES = 100
# When nobody more is let in, what is under way arrives within this.
AFTERMATH_SECONDS = 1
# Files that a node needs besides its visitors' sockets.
OTHER_FILES = 2_000


def main():
    parser = argparse.ArgumentParser(prog="tools/bench rush")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--visitors", type=int, default=100_000, help="15000 is the quick form")
    parser.add_argument("--rounds", type=int, help="3, or 1 with fewer than 100,000 visitors")
    options = parser.parse_args()
    visitors = options.visitors
    is_quick = visitors < 100_000
    rounds = options.rounds or (1 if is_quick else 3)
    room = NODES * (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES)
    if visitors + STEADY_JOINS > room:
        raise SystemExit(f"{visitors} and {STEADY_JOINS} more are too many: the nodes hold {room}")
    load_average = [os.getloadavg()[0]]
    done = []
    for number in range(rounds):
        done.append(measured(visitors, moves=2 if is_quick else 3))
        note(f"round {number + 1} of {rounds}: {json.dumps(done[-1]['figures'])}")
    feeds = feed.measured(feed.SECONDS_QUICK if is_quick else feed.SECONDS)
    ranks = said(["anteroom-measure", "fold", "--people", visitors, "--rounds", rounds])
    load_average.append(os.getloadavg()[0])
    figures = {key: median(done, key) for key in done[0]["figures"]}
    figures |= {"feed_bytes_ratio": feeds["ratio"], "rank_ns": ranks["rank_ns"]}
    out = {
        "figures": {key: round(value, 3) for key, value in figures.items()},
        "load_average": [round(load, 2) for load in load_average],
        "feed": feeds,
        "rounds": done,
    }
    show(out)
    print(json.dumps(out))
    write_figures(out, options.json)


def measured(visitors, moves):
    """A round."""
    came = rush(visitors, moves)
    connected = connected_first(min(visitors, CONNECTED_MAX))
    end = came["end"]
    figures = {
        "rush_visitors": visitors,
        "rush_seconds": came["joined"]["seconds"],
        "lost": end["lost"],
        "doubled": end["doubled"],
        "durable_joins_per_second": connected["durable_joins_per_second"],
        "ack_p50_ms": came["steady"]["ack_p50_ms"],
        "ack_p99_ms": came["steady"]["ack_p99_ms"],
        "front_p99_ms": came["front"]["p99_ms"],
        "told_last_seconds": statistics.median(move["last_ms"] for move in came["moves"]) / 1e3,
    }
    return {"figures": figures, **came, "connected_first": connected}


def rush(visitors, moves):
    """Everyone comes at once and is told where they stand; and what is done to the line then."""
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES, PROJECTORS)
        system.queue(QUEUE, rate_per_minute=FRONT_RATE, token_seconds=600)
        pids = [word for pid in system.node_pids() for word in ["--pid", pid]]
        args = [*system.sockets(QUEUE), "--visitors", visitors, "--leavers", moves, *pids]
        args += ["--more", STEADY_JOINS]
        crowd = Crowd(children, built(), "the load", args, before=as_batch)
        note(f"{visitors:,} were told where they stand after {crowd.joined['seconds']} s")
        came = {"joined": crowd.joined}
        came["memory_kib"] = {name: memory_kib(pid) for name, pid in system.pids().items()}
        came["moves"] = [crowd.move() for _ in range(moves)]
        came["steady"] = crowd.asked(f"join {STEADY_JOINS} {STEADY_RATE}", "joins")
        came["front"] = front_of(system, crowd)
        came["end"] = crowd.end()
        came["log"] = system.verified(QUEUE, visitors + moves + STEADY_JOINS)
    return came


def connected_first(visitors):
    """Visitors with open sockets say JOIN, all at once."""
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES, PROJECTORS)
        system.queue(QUEUE)
        args = ["anteroom-load", "rush", "--connected-first", "--visitors", visitors]
        came = said([*args, *system.sockets(QUEUE)])
        system.verified(QUEUE, visitors)
        entries = system.entries(QUEUE, "joined")
    counts = [len(entry["facts"]) for _, entry in entries]
    seconds = (entries[-1][0] - entries[0][0]) / 1e9
    return {
        "visitors": visitors,
        "entries": len(entries),
        # The first entry was being written while the clock was not running yet.
        "durable_joins_per_second": round(sum(counts[1:]) / seconds),
        "acknowledged_joins_per_second": came["joins_per_second"],
        "load": came,
    }


def front_of(system, crowd):
    """Lets people in for some seconds: how long after an admission was stored, which is before it was
    acknowledged, each of those at the front was told that they came further."""
    crowd.asked("front", "noting")
    system.said("queue", "resume", QUEUE)
    time.sleep(FRONT_SECONDS)
    system.said("queue", "pause", QUEUE)
    time.sleep(AFTERMATH_SECONDS)
    told = crowd.asked("noted", "told")["told"]
    admissions = [(at, len(entry["facts"])) for at, entry in system.entries(QUEUE, "admitted")]
    waits, untold = waits_of_front(told, admissions)
    if untold:
        raise SystemExit(f"{untold} times somebody at the front was not told of an admission")
    waits.sort()
    return {
        "admissions": len(admissions),
        "told": len(waits),
        "p50_ms": waits[len(waits) // 2] / 1e6,
        "p99_ms": waits[len(waits) * 99 // 100] / 1e6,
        "last_ms": waits[-1] / 1e6,
    }


def waits_of_front(told, admissions):
    """Of each admission and each who is at the front after it, the nanoseconds until they were told; and
    how often they were not."""
    of_visitors = {}
    for ahead_at_first, ahead, at in told:
        of_visitors.setdefault(ahead_at_first, []).append((at, ahead))
    waits, untold = [], 0
    for ahead_at_first, heard in of_visitors.items():
        heard.sort()
        # Nobody's number rises: turned round, they are in order.
        known = [-ahead for _, ahead in heard]
        ahead = ahead_at_first
        for at, count in admissions:
            ahead -= count
            # Whoever is next may hear that they are let in instead.
            if 0 < ahead < FRONT_PLACES:
                first = bisect.bisect_left(known, -ahead)
                if first == len(heard):
                    untold += 1
                else:
                    waits.append(max(0, heard[first][0] - at))
    return waits, untold


def median(rounds, key):
    # Of what must not be at all, one is too many.
    values = [one["figures"][key] for one in rounds]
    return max(values) if key in ["lost", "doubled"] else statistics.median(values)


def show(out):
    rounds = out["rounds"]
    before, after = out["load_average"]
    print(f"{len(rounds)} rounds: the median, least and most; load {before:.1f} to {after:.1f}\n")
    for key, value in out["figures"].items():
        values = [one["figures"][key] for one in rounds if key in one["figures"]]
        spread = f"({min(values):,.3f}-{max(values):,.3f})" if values else ""
        print(f"{key:27} {value:>14,.3f}  {spread}")
    print("\nKiB in memory with everyone in line    of its own    with what is shared")
    for name, (own, resident) in rounds[-1]["memory_kib"].items():
        print(f"  {name:32} {own:>14,} {resident:>14,}")
    print(flush=True)


if __name__ == "__main__":
    run(main)
