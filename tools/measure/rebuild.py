"""What `tools/bench rebuild` does, with the programs that it built. Standard library only."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import time

from program import note, run, write_figures
from servers import NatsServer, popen

# A process that does not come to its end within this has failed.
RUN_WAIT_MAX = 1_800
QUEUE = "bench"


def main():
    parser = argparse.ArgumentParser(prog="tools/bench rebuild")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="100,000 people, in under two minutes")
    parser.add_argument("--full", action="store_true", help="also ten facts a person, which takes long")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bench = Bench(100_000 if options.quick else 1_000_000, options.rounds)
    begun = time.monotonic()
    details = {"people": bench.people, "load_before": os.getloadavg()[0], "cores": os.cpu_count()}
    details["fold"] = bench.fold()
    details["hundred_facts_an_entry"] = hundred = bench.log(others=1, per_entry=100)
    details["one_fact_an_entry"] = bench.log(others=1, per_entry=1, rounds=min(3, options.rounds))
    if options.full:
        details["ten_facts_a_person"] = bench.log(others=9, per_entry=100, rounds=1)
    details["restart"] = restart = bench.restart()
    details["load_after"] = os.getloadavg()[0]
    details["seconds"] = round(time.monotonic() - begun, 1)
    fold = details["fold"]
    figures = {
        "rebuild_ratio": hundred["ratio"],
        "read_entries_per_second": hundred["read_entries_per_second"],
        "rebuild_facts_per_second": hundred["rebuild_facts_per_second"],
        "memory_mb": hundred["rebuild_memory_mb"],
        "rank_ns": fold["rank_ns"],
        # The slowest of the three, each with so many waiting.
        "apply_ns": max(fold["join_ns"], fold["leave_ns"], fold["admit_ns"]),
        "restart_ms": restart["serving_ms"],
        "verify_facts_per_second": hundred["verify_facts_per_second"],
    }
    figures = {key: round(value, 3) for key, value in figures.items()}
    out = {"figures": figures, "rounds": options.rounds, "details": details}
    show(figures, details)
    write_figures(out, options.json)


class Bench:
    def __init__(self, people, rounds):
        self.people, self.rounds = people, rounds
        built = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "quick")
        self.anteroom = os.path.join(built, "anteroom")
        self.measure = os.path.join(built, "anteroom-measure")

    def fold(self):
        args = ["fold", "--people", self.people, "--rounds", self.rounds]
        return self.said(self.measure, args)[0]

    def log(self, others, per_entry, rounds=None):
        """Reads and rebuilds one log in turns, so that what else goes on here hits both."""
        rounds = rounds or self.rounds
        with unsynced_server() as server:
            filled = self.fill(server, others, per_entry)
            reads, replays, rebuilds, verified = [], [], [], []
            for _ in range(rounds):
                reads.append(self.read("read", server))
                replays.append(self.read("replay", server))
                rebuilds.append(self.rebuild(server, filled["entries"]))
                verified.append(self.verify(server, filled))
        folded = replays + rebuilds + verified
        assert len({one["digest"] for one in folded}) == 1, "the digests differ"
        assert len({one["chain"] for one in folded}) == 1, "the chains differ"
        read, rebuild = median(reads, "seconds"), median(rebuilds, "seconds")
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(rebuilds, reads)]
        return {
            **filled,
            "rounds": rounds,
            "ratio": statistics.median(ratios),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "read_seconds": read,
            "read_entries_per_second": filled["entries"] / read,
            "read_memory_mb": median(reads, "memory_mb"),
            # What of a rebuild is not the store: reading, folding, the chain.
            "replay_seconds": median(replays, "seconds"),
            "replay_memory_mb": median(replays, "memory_mb"),
            "digest_seconds": median(replays, "digest_seconds"),
            "rebuild_seconds": rebuild,
            "rebuild_facts_per_second": filled["facts"] / rebuild,
            "rebuild_memory_mb": median(rebuilds, "memory_mb"),
            "rebuild_cpu_seconds": median(rebuilds, "cpu_seconds"),
            "store_mb": median(rebuilds, "store_mb"),
            "verify_seconds": median(verified, "seconds"),
            "verify_facts_per_second": filled["facts"] / median(verified, "seconds"),
            "verify_memory_mb": median(verified, "memory_mb"),
        }

    def restart(self):
        """A projector that is started on a finished store of people who all wait."""
        with unsynced_server() as server:
            filled = self.fill(server, others=0, per_entry=100)
            store = os.path.join(server.dir, "restart")
            self.rebuild(server, filled["entries"], store)
            rounds = [self.serving(server, store, filled) for _ in range(self.rounds)]
        return {**filled, "serving_ms": statistics.median(rounds), "rounds_ms": rounds}

    def fill(self, server, others, per_entry):
        args = ["fill", QUEUE, "--nats", server.url("operator"), "--people", self.people]
        args += ["--others", others, "--per-entry", per_entry]
        said, _ = self.said(self.measure, args)
        note(f"wrote {said['facts']:,} facts in {said['entries']:,} entries")
        return {key: said[key] for key in ["facts", "entries", "bytes", "waiting"]}

    def read(self, how, server):
        said, usage = self.said(self.measure, [how, QUEUE, "--nats", server.url("auditor")])
        return {**said, **usage}

    def rebuild(self, server, entries, dir=None):
        keep = dir is not None
        dir = dir or os.path.join(server.dir, "rebuilt")
        args = ["projection", "rebuild", QUEUE, "--nats", server.url("projector")]
        said, usage = self.said(self.anteroom, [*args, "--dir", dir, "--json"])
        assert said["sequence"] == entries, f"rebuilt to {said['sequence']} of {entries}"
        usage["store_mb"] = size_of(dir) / 1e6
        if not keep:
            shutil.rmtree(dir)
        return {**said, **usage}

    def serving(self, server, store, filled):
        args = ["serving", QUEUE, "--nats", server.url("node")]
        args += ["--person", self.people - 1, "--at-least", filled["entries"]]
        asking = popen([self.measure, *args], stdout=subprocess.PIPE, text=True)
        try:
            assert asking.stdout.readline().strip() == "asking"
            time.sleep(0.1)
            begun = time.monotonic()
            # Where a rebuild without a projector puts it.
            with self.projector(server, os.path.join(store, "projection")):
                said = json.loads(asking.stdout.readline())
                seconds = time.monotonic() - begun
        finally:
            asking.kill()
            asking.wait()
        assert said["ticket"] == self.people - 1, f"not in line: {said}"
        return round(seconds * 1000, 1)

    @contextlib.contextmanager
    def projector(self, server, dir):
        process = popen(
            [self.anteroom, "projector", "--nats", server.url("projector"), "--dir", dir],
            stdout=server.log,
            stderr=server.log,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            wait(process)

    def verify(self, server, filled):
        begun = time.monotonic()
        args = ["audit", "verify", QUEUE, "--nats", server.url("auditor"), "--json"]
        said, usage = self.said(self.anteroom, args)
        usage["seconds"] = time.monotonic() - begun
        assert said["ok"] and not said["violations"], f"violations: {said['violations'][:3]}"
        assert not said["void"], f"void facts: {said['void'][:3]}"
        assert said["visitors"] == self.people and said["waiting"] == filled["waiting"]
        return {"digest": said["digest"], "chain": said["chain"], **usage}

    def said(self, program, args):
        """Runs a program to its end: what it said, and what it used."""
        process = popen([program, *args], stdout=subprocess.PIPE)
        said = process.stdout.read()
        code, usage = wait(process)
        assert code == 0, f"{program} {args[0]} ended with {code}"
        return json.loads(said), usage


def unsynced_server():
    """What is measured is no writing, so entries need not be synced one by one."""
    return NatsServer(synced=False)


def wait(process):
    """Waits for the end of a process: its exit code, and what it used."""
    until = time.monotonic() + RUN_WAIT_MAX
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until:
            process.kill()
        time.sleep(0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    usage = {"memory_mb": used.ru_maxrss * 1024 / 1e6, "cpu_seconds": used.ru_utime + used.ru_stime}
    return process.returncode, usage


def size_of(dir):
    files = (os.path.join(at, name) for at, _, names in os.walk(dir) for name in names)
    return sum(os.path.getsize(file) for file in files)


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def show(figures, details):
    print(f"{details['people']:,} people, on {details['cores']} cores ({platform.machine()}), "
          f"load {details['load_before']:.1f} to {details['load_after']:.1f}\n")
    for key, value in figures.items():
        print(f"{key:27} {value:>14,.1f}" if value >= 100 else f"{key:27} {value:>14,.2f}")
    names = ["hundred_facts_an_entry", "one_fact_an_entry", "ten_facts_a_person"]
    logs = {name: details[name] for name in names if name in details}
    rows = ["entries", "facts", "read_seconds", "replay_seconds", "rebuild_seconds", "ratio",
            "replay_memory_mb", "rebuild_memory_mb", "rebuild_cpu_seconds", "store_mb",
            "verify_seconds", "verify_memory_mb"]
    print("\n" + " " * 22 + "".join(f"{name:>26}" for name in logs))
    for row in rows:
        print(f"{row:22}" + "".join(f"{log[row]:>26,.2f}" for log in logs.values()))
    fold = details["fold"]
    print("\n" + ", ".join(f"{key} {value:.1f}" for key, value in fold.items() if key.endswith("_ns")))


if __name__ == "__main__":
    run(main)
