"""What `tools/bench line` does, with the program that it built. Standard library only.

Our line beside the usual design of a waiting room, a sorted set of Redis. In each round every way is
measured once, one after the other, each with a server and a folder of its own; a ratio is of one round,
so that what else goes on on this machine hits both sides.
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import tempfile
import time
from functools import partial

from program import note, run, write_figures
from servers import NatsServer, RedisServer, popen

# As many as there may be nodes. With 50 connections Redis took in no more (tried).
WRITERS = 6
QUEUE = "bench"
# Joins of each writer that wait for their acknowledgement: a crowd, and a tenth of it (figures `of_600`).
MANY, FEW = 1_000, 100
# Joins in one ZADD where it takes several: what both crowds can be divided into.
PER_ZADD = 50
# How many wait, and what the figures of so many are called.
WAITING = 1_000_000
SIZES = {WAITING: "", 100_000: "_of_100k"}
# Enough for a median, little enough to be done in half a second on a slow disk; a page each.
FSYNCS, FSYNC_BYTES = 50, 4096
# A program that does not come to its end within this has failed.
RUN_WAIT_MAX = 120
# Filesystems of which nothing is ever on a disk.
IN_MEMORY = ["tmpfs", "ramfs"]

# One way to take people in: how its figures begin and how those of ours do that it is compared with
# (None: it is ours), when its fsync is, the server that it needs, and the joins in a ZADD.
Way = collections.namedtuple("Way", "prefix beside name fsync server per_zadd")
BEFORE, AFTER = "before the answer", "after the answer"
SYNCED, UNSYNCED = partial(NatsServer, synced=True), partial(NatsServer, synced=False)
ALWAYS, EVERYSEC = partial(RedisServer, "always"), partial(RedisServer, "everysec")
WAYS = [
    Way("", None, "Anteroom", BEFORE, SYNCED, None),
    Way("redis_always_", "", "Redis, always", BEFORE, ALWAYS, 1),
    Way("redis_always_many_", "", f"Redis, always, ZADD of {PER_ZADD}", BEFORE, ALWAYS, PER_ZADD),
    Way("unsynced_", None, "Anteroom, unsynced", AFTER, UNSYNCED, None),
    Way("redis_everysec_", "unsynced_", "Redis, everysec", AFTER, EVERYSEC, 1),
    Way("redis_everysec_many_", "unsynced_", f"Redis, everysec, ZADD of {PER_ZADD}", AFTER, EVERYSEC,
        PER_ZADD),
]
FSYNC = """\
Anteroom            nats-server with sync_interval: always: an entry of many joins is acknowledged after its fsync
Anteroom, unsynced  nats-server as it is by itself: acknowledged when written, fsync every two minutes
Redis, always       appendonly yes, appendfsync always: one fsync for what a turn of its loop read, then the answers
Redis, everysec     appendonly yes, appendfsync everysec: answered when written (even before, while an fsync runs),
                    fsync each second
What is acknowledged before its fsync may be lost with the power."""


def main():
    parser = argparse.ArgumentParser(prog="tools/bench line")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="one round, in under a minute")
    parser.add_argument("--rounds", type=int, help="5, or 1 when quick")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 5)
    filesystem = said(["stat", "-f", "-c", "%T", tempfile.gettempdir()])
    if filesystem in IN_MEMORY:
        raise SystemExit(f"{tempfile.gettempdir()} is in memory, where fsync means nothing: set TMPDIR")
    load_average = [os.getloadavg()[0]]
    done = []
    for turn in range(rounds):
        done.append(measured(turn, millis=1_000 if options.quick else 1_500))
        note(f"round {turn + 1} of {rounds}")
    load_average.append(os.getloadavg()[0])
    out = {
        "figures": {key: round(spread(done, key)[0], 3) for key in done[0]},
        "rounds": rounds,
        "load_average": [round(load, 2) for load in load_average],
        "cores": os.cpu_count(),
        "filesystem": filesystem,
        "versions": versions(),
        "fsync": FSYNC.splitlines(),
        "each_round": done,
    }
    show(out)
    print(json.dumps(out))
    write_figures(out, options.json)


def measured(turn, millis):
    """One round, which begins with another way each time."""
    first = turn % len(WAYS)
    figures = {}
    for way in WAYS[first:] + WAYS[:first]:
        figures |= {f"{way.prefix}{key}": value for key, value in joins(way, millis).items()}
    for people, size in SIZES.items():
        with RedisServer(appendfsync=None) as redis:
            ranks = measure("ranks", "--redis", redis.address(), "--people", people)
        figures |= {with_size(key, size): value for key, value in ranks.items()}
    memory = measure("memory", "--people", WAITING)
    figures |= {key: memory[key] for key in ["places_kib", "line_mb"]}
    fold = measure("fold", "--people", WAITING, "--rounds", 1)
    figures["fold_join_ns"] = fold["first_joins_ns"]
    return figures | ratios(figures)


def joins(way, millis):
    """What one way takes in: a crowd, a tenth of it, and one at a time."""
    figures = {
        "disk_fsync_ms": disk_fsync_ms(),
        "joins_per_second": rush(way, WRITERS, MANY, millis)["joins_per_second"],
        "joins_of_600_per_second": rush(way, WRITERS, FEW, millis)["joins_per_second"],
    }
    if way.per_zadd != PER_ZADD:
        alone = rush(way, 1, 1, millis)
        figures |= {key: alone[key] for key in ["join_p50_ms", "join_p99_ms"]}
    return figures


def rush(way, writers, in_the_air, millis):
    args = ["--writers", writers, "--in-the-air", in_the_air, "--millis", millis]
    with way.server() as server:
        if way.per_zadd:
            args += ["--per-command", way.per_zadd, "--redis", server.address()]
            return measure("join-redis", *args)
        args += ["--nats", server.url("operator"), "--node", server.url("node")]
        return measure("join-log", QUEUE, *args)


def disk_fsync_ms():
    """What the disk takes for a small append just then: the disk of a shared machine is not always as
    quick, and a difference between two ways may be the disk's."""
    waits = []
    with tempfile.TemporaryFile(prefix="anteroom-bench-", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - begun)
    return statistics.median(waits) * 1000


def ratios(figures):
    """How many times as good as Redis we are, in all that both do: below 1 Redis is better."""
    better = {}
    for way in WAYS:
        if way.beside is not None:
            for key in ["joins_per_second", "joins_of_600_per_second"]:
                name = f"{way.prefix}{key.removesuffix('_per_second')}_ratio"
                better[name] = figures[way.beside + key] / figures[way.prefix + key]
            if way.per_zadd == 1:
                alone = f"{way.prefix}join_p50"
                better[f"{alone}_ratio"] = figures[f"{alone}_ms"] / figures[f"{way.beside}join_p50_ms"]
    for size in SIZES.values():
        for how in ["zrank", "zrange"]:
            redis = with_size(f"redis_{how}_ns", size)
            better[f"{redis.removesuffix('_ns')}_ratio"] = figures[redis] / figures[with_size("rank_ns", size)]
    return better


def with_size(key, size):
    """The name of a figure that there is for several sizes: its unit stays last."""
    name, unit = key.rsplit("_", 1)
    return f"{name}{size}_{unit}"


def measure(*args):
    built = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release")
    return json.loads(said([os.path.join(built, "anteroom-measure"), *args]))


def said(args):
    """Runs a program to its end: what it said."""
    with popen(args, stdout=subprocess.PIPE, text=True) as process:
        try:
            words, _ = process.communicate(timeout=RUN_WAIT_MAX)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args[:2])} ended with {process.returncode}")
    return words.strip()


def spread(rounds, key):
    """Of all rounds the median, the least and the most."""
    values = [one[key] for one in rounds]
    return statistics.median(values), min(values), max(values)


def versions():
    nats, redis = (said([server, "--version"]) for server in ["nats-server", "redis-server"])
    return [nats.replace(": v", " "), f"redis-server {redis.split('v=')[1].split()[0]}"]


def show(out):
    rounds, (before, after) = out["each_round"], out["load_average"]
    print(f"{out['rounds']} rounds: the median (least-most); {out['cores']} cores, {out['filesystem']}, "
          f"load {before:.1f} to {after:.1f}; {', '.join(out['versions'])}\n\n{FSYNC}\n")

    def cell(key, digits=0, per=1):
        if key not in rounds[0]:
            return "-"
        middle, least, most = (value / per for value in spread(rounds, key))
        return f"{middle:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"

    table(
        ["joins", "fsync is", "disk's fsync, ms", f"{WRITERS * MANY:,} in the air, 1,000/s", f"{WRITERS * FEW}, 1,000/s",
         "alone p50, ms", "p99, ms"],
        [
            [way.name, way.fsync, cell(f"{way.prefix}disk_fsync_ms", 2),
             cell(f"{way.prefix}joins_per_second", per=1000),
             cell(f"{way.prefix}joins_of_600_per_second", per=1000),
             cell(f"{way.prefix}join_p50_ms", 2), cell(f"{way.prefix}join_p99_ms", 2)]
            for way in WAYS
        ],
    )
    sizes = list(SIZES.items())
    ways = [("Anteroom, Places", "rank_ns"), ("Redis, ZRANK each", "redis_zrank_ns"),
            ("Redis, ZRANGE of all", "redis_zrange_ns")]
    table(
        ["everyone's rank"] + [f"of {people:,}, ns each" for people, _ in sizes],
        [[name] + [cell(with_size(key, size), 1) for _, size in sizes] for name, key in ways],
    )
    ways = [("Anteroom, the front", "front_left_ms"), ("Redis, the front", "redis_front_left_ms"),
            ("Anteroom, the middle", "middle_left_ms"), ("Redis, the middle", "redis_middle_left_ms")]
    table(
        ["one leaves, then all (ZRANGE)"] + [f"of {people:,}, ms" for people, _ in sizes],
        [[name] + [cell(with_size(key, size), 2) for _, size in sizes] for name, key in ways],
    )
    table(
        [f"memory of {WAITING:,}", ""],
        [["Anteroom, Places (what a node ranks by), KiB", cell("places_kib")],
         ["Anteroom, the whole line (a projector's), MB", cell("line_mb", 1)],
         ["Redis, the sorted set, MB", cell("redis_memory_mb", 1)]],
    )
    print(f"Redis has joined and sorted in one; our fold of a join is {cell('fold_join_ns')} ns more, elsewhere.\n")
    names = [key for key in rounds[0] if key.endswith("_ratio")]
    table(["above 1 we are better, below 1 Redis is", "times"], [[name, cell(name, 2)] for name in names])


def table(heads, rows):
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:])]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    print(flush=True)


if __name__ == "__main__":
    run(main)
