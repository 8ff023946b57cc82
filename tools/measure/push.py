"""What `tools/bench push` does, with the programs that it built. Standard library only.

Four servers hold as many sockets each at the same time: Anteroom's node, a bare loop that only sends
(the limit), and what one writes with axum and with Node's ws. In turns somebody at the front of one
of them leaves, and everyone behind is told. Ratios are to the bare loop of the same round, so that
what else goes on on this machine hits both sides.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess

from children import START_WAIT_MAX, Child
from crowd import Crowd
from program import built, note, run, write_figures
from system import System

QUEUE = "bench"
# The limit comes first, since the others are shown beside it.
SERVERS = ["bare", "anteroom", "axum", "ws"]
# Files that a process needs besides its sockets.
OTHER_FILES = 100


def main():
    parser = argparse.ArgumentParser(prog="tools/bench push")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="one round, in under two minutes")
    parser.add_argument("--sockets", type=int, default=15_000, help="held by each server")
    parser.add_argument("--rounds", type=int, help="5, or 1 when quick")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 5)
    moves = 2 if options.quick else 3
    leavers = 1 + rounds * moves
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < options.sockets + leavers + OTHER_FILES:
        raise SystemExit(f"{options.sockets} sockets are too many: a process may open {files} files")
    load_average = [os.getloadavg()[0]]
    joins = [joined_anew(options.sockets, turn) for turn in range(rounds - 1)]
    with contextlib.ExitStack() as children:
        bench = Bench(children, options.sockets, leavers)
        for name in SERVERS:
            bench.open(name)
        # What comes first is not counted: it warms up what is found warm from then on.
        warm_up = bench.move_each()
        done = [summed_up([bench.move_each() for _ in range(moves)]) for _ in range(rounds)]
        joins.append({name: crowd.joined for name, crowd in bench.crowds.items()})
        ends = {name: crowd.end() for name, crowd in bench.crowds.items()}
    load_average.append(os.getloadavg()[0])
    out = {
        "figures": figures_of(done, joins),
        "sockets": options.sockets,
        "load_average": [round(load, 2) for load in load_average],
        "joins": joins,
        "ends": ends,
        "warm_up": warm_up,
        "rounds": done,
    }
    show(out, moves)
    print(json.dumps(out))
    write_figures(out, options.json)


def in_turn(turn):
    """The servers, in an order that is another one each time."""
    first = turn % len(SERVERS)
    return SERVERS[first:] + SERVERS[:first]


def joined_anew(sockets, turn):
    """What joining costs servers that were just started, one after the other. Places are checked later,
    where the line moves."""
    joins = {}
    for name in in_turn(turn):
        with contextlib.ExitStack() as children:
            bench = Bench(children, sockets, leavers=1)
            bench.open(name)
            joins[name] = bench.crowds[name].joined
    return joins


class Bench:
    """Servers with their crowds; each has joined before the next one is started."""

    def __init__(self, children, sockets, leavers):
        self.children, self.sockets, self.leavers = children, sockets, leavers
        self.built = built()
        self.turns = 0
        self.crowds = {}

    def open(self, name):
        """Starts a server, and has its crowd join."""
        peers = os.path.join(self.built, "anteroom-peers")
        started = {
            "bare": lambda: self.peer("bare", [peers, "bare"]),
            "anteroom": self.anteroom,
            "axum": lambda: self.peer("axum", [peers, "axum-ws"]),
            "ws": lambda: self.peer("ws", ["node", os.path.join("tools", "peers", "ws", "server.mjs")]),
        }
        self.crowds[name] = self.crowd(name, *started[name]())

    def peer(self, name, args):
        # It ends when its standard input does, so that none is left if this is killed.
        server = Child(self.children, name, args, stdin=subprocess.PIPE)
        ready = server.said("url", START_WAIT_MAX)
        return ready["url"], ready["pid"]

    def anteroom(self):
        """A queue of its own, in which the line moves only when somebody leaves."""
        system = System(self.children, self.built)
        system.queue(QUEUE)
        return system.sockets(QUEUE)[1], system.node_pids()[0]

    def crowd(self, name, url, pid):
        args = ["--url", url, "--visitors", self.sockets, "--leavers", self.leavers, "--pid", pid]
        if name == "bare":
            # It tells everyone the same.
            args.append("--unchecked")
        crowd = Crowd(self.children, self.built, f"the load on {name}", args)
        note(f"{name} holds {self.sockets:,} sockets")
        return crowd

    def move_each(self):
        """A move of each server, one after the other."""
        self.turns += 1
        return {name: self.crowds[name].move() for name in in_turn(self.turns)}


def summed_up(moves):
    """A round: of each server the median of its moves, and how often it is that of the limit."""
    medians = {
        name: {
            "push_cpu_us": statistics.median(
                move[name]["server_cpu_us"] / move[name]["pushes"] for move in moves
            ),
            "told_last_ms": statistics.median(move[name]["last_ms"] for move in moves),
        }
        for name in SERVERS
    }
    for of_server in medians.values():
        for key, ratio in [("push_cpu_us", "push_ratio"), ("told_last_ms", "told_ratio")]:
            of_server[ratio] = of_server[key] / medians["bare"][key]
    return {**medians, "moves": moves}


def figures_of(rounds, joins):
    def median(name, key):
        return statistics.median(one[name][key] for one in rounds)

    def joined(name, key):
        return statistics.median(one[name][key] for one in joins)

    figures = {
        "push_cpu_ratio": median("anteroom", "push_ratio"),
        "push_cpu_us": median("anteroom", "push_cpu_us"),
        "memory_kib_per_connection": joined("anteroom", "kib_per_connection"),
        "told_last_ratio": median("anteroom", "told_ratio"),
        "told_last_ms": median("anteroom", "told_last_ms"),
        "handshake_cpu_us": joined("anteroom", "server_cpu_us_per_join"),
        "bare_push_cpu_us": median("bare", "push_cpu_us"),
        "bare_memory_kib": joined("bare", "kib_per_connection"),
        "bare_told_last_ms": median("bare", "told_last_ms"),
        "bare_handshake_cpu_us": joined("bare", "server_cpu_us_per_join"),
    }
    for peer in ["axum", "ws"]:
        figures |= {
            f"peer_{peer}_push_ratio": median(peer, "push_ratio"),
            f"peer_{peer}_push_cpu_us": median(peer, "push_cpu_us"),
            f"peer_{peer}_memory_kib": joined(peer, "kib_per_connection"),
            f"peer_{peer}_told_last_ratio": median(peer, "told_ratio"),
            f"peer_{peer}_told_last_ms": median(peer, "told_last_ms"),
            f"peer_{peer}_handshake_cpu_us": joined(peer, "server_cpu_us_per_join"),
        }
    return {key: round(value, 3) for key, value in figures.items()}


def show(out, moves):
    rounds, joins = out["rounds"], out["joins"]
    before, after = out["load_average"]
    print(f"{out['sockets']:,} sockets a server; {len(rounds)} rounds of {moves} moves: the median, "
          f"least and most of rounds; load {before:.1f} to {after:.1f}\n")

    def spread(name, key, digits, rounds=rounds):
        values = [one[name][key] for one in rounds]
        middle, least, most = statistics.median(values), min(values), max(values)
        return f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"

    heads = ["", "CPU µs a push", "x bare", "user KiB a socket", "CPU µs a join"]
    heads += ["last told, ms", "x bare"]
    rows = [
        [
            name,
            spread(name, "push_cpu_us", 2),
            spread(name, "push_ratio", 2),
            spread(name, "kib_per_connection", 2, joins),
            spread(name, "server_cpu_us_per_join", 0, joins),
            spread(name, "told_last_ms", 0),
            spread(name, "told_ratio", 2),
        ]
        for name in SERVERS
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join([row[0].ljust(widths[0]), *cells]))
    print(flush=True)


if __name__ == "__main__":
    run(main)
