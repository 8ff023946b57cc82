"""What `tools/bench gate` does, with the programs that it built. Standard library only.

Visitors on sockets wait at two nodes and are let in by admission workers that are killed, stopped, and
live in other hours. Whatever happens to workers, nobody may be let in too many, twice or out of turn: the
audit says so by its rules, and the log's entries are counted here by none but the promise. And how long
people wait at the gate itself: whoever comes to a free place, and whoever is next when one becomes free.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import time

from crowd import Crowd, said
from grants import check, judged
from program import built, note, run, write_figures
from servers import as_batch
from system import LOOK_EVERY, System
from workers import Workers, readiness

QUEUE = "gate"
NODES = 2
# Let in a minute, and how many wait for it.
RATE, VISITORS = 6_000, 10_000
# Nobody's turn is over before the bench is.
TOKEN_SECONDS = 3_600
# One worker is killed this often; of two the one that decides.
KILL_EVERY, KILL_EVERY_OF_TWO = 2, 4
# The worker that decides stands still this long, after it has let people in for so long.
STOPPED_SECONDS, STOPPED_AFTER = 60, 3
# Workers that take over from one another: how often each way, the rate, and how many are let in at most
# from one time to the next.
TAKEOVERS, TAKEOVER_RATE, TAKEOVER_VISITORS = 10, 3_000, 500
# Before a worker is ended and after another has taken over, people are let in for so long; the others have
# heard who decides by then.
TAKEOVER_PAUSE = 1
# What a worker had sent when it was ended is stored within this; another waits for 2.75 s at least.
ON_ITS_WAY_NANOS = 500_000_000
# Who comes to an open place, one after the other; places that become free, and who waits for them.
PASSES, RELEASES, WAITING = 500, 300, 1_000
# Those who are waited for are let in by then, or it has failed: ten times what one worker takes.
LET_IN_WAIT_MAX = 1_000
# The clocks of two workers, against that of everyone else.
HOURS = ["+1h", "-1h"]
# A clock that was set ahead by an hour is so for all its readers, give or take a second.
CLOCK_TOLERANCE = 5
# A quick run has so much less of everything.
QUICK = 10


def main():
    parser = argparse.ArgumentParser(prog="tools/bench gate")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--rounds", type=int, default=1, help="1 takes about 13 minutes")
    options = parser.parse_args()
    check()
    share = QUICK if options.quick else 1
    load_average = [os.getloadavg()[0]]
    rounds = []
    for _ in range(options.rounds):
        done = {}
        for name, scenario in SCENARIOS.items():
            done[name] = scenario(share)
            note(f"{name}: {json.dumps(done[name])}")
        rounds.append(done)
    load_average.append(os.getloadavg()[0])
    figures = {
        f"{name}_{key}": of_rounds(key, [one[name][key] for one in rounds])
        for name in SCENARIOS
        for key in rounds[0][name]
    }
    out = {
        "figures": figures,
        "load_average": [round(load, 2) for load in load_average],
        "rounds": rounds,
    }
    show(out)
    print(json.dumps(out))
    write_figures(out, options.json)


def killed(share):
    """The only worker is killed again and again, and started at once."""
    return let_in(VISITORS // share, [{}], lambda workers, is_done: kill_on(workers, is_done, KILL_EVERY))


def killed_of_two(share):
    """Of two workers the one that decides is killed again and again, and started at once."""
    return let_in(
        VISITORS // share, [{}, {}], lambda workers, is_done: kill_on(workers, is_done, KILL_EVERY_OF_TWO)
    )


def stopped(share):
    """Of two workers the one that decides stands still, and goes on when another has long taken over."""
    return let_in(
        VISITORS // share, [{}, {}], lambda workers, _: stop_for(workers, STOPPED_SECONDS / share)
    )


def clocks(share):
    """The same with one worker an hour ahead of the log, and the other an hour behind."""

    def disturb(workers, _):
        ahead = [workers.clock_ahead(number) for number in range(len(HOURS))]
        if any(abs(clock - hour) > CLOCK_TOLERANCE for clock, hour in zip(ahead, [3_600, -3_600])):
            raise SystemExit(f"the workers' clocks are ahead by {ahead} seconds")
        return stop_for(workers, STOPPED_SECONDS / share)

    return let_in(VISITORS // share, [another_hour(hour) for hour in HOURS], disturb)


def let_in(visitors, environments, disturb):
    """Everyone waits, and is let in at the rate while something is done to the workers."""
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES)
        system.queue(QUEUE, rate_per_minute=RATE, token_seconds=TOKEN_SECONDS)
        workers = Workers(system, environments)
        crowd = waiting_crowd(children, system, visitors)
        system.said("queue", "resume", QUEUE)
        told = Told(crowd)
        faults = disturb(workers, lambda: told.count() == visitors)
        told.wait(visitors)
        fences_lost = workers.fences_lost()
        end = crowd.end()
        if end["admitted"] != visitors:
            raise SystemExit(f"of {visitors} not everyone was told that it is their turn: {end}")
        system.verified(QUEUE, visitors)
        return judged(system.records(QUEUE), RATE) | {
            "faults": faults,
            "fences_lost": fences_lost,
            "lost": end["lost"],
            "doubled": end["doubled"],
        }


def kill_on(workers, is_done, every):
    """Kills the worker that decides until all is done; how often."""
    kills = 0
    while True:
        time.sleep(every)
        if is_done():
            return kills
        active = workers.active()
        # One that was started a moment ago decides only after it has listened.
        number = 0 if active is None else active
        workers.kill(number)
        workers.start(number)
        kills += 1


def stop_for(workers, seconds):
    """The worker that decides stands still for so long; how often that was done."""
    time.sleep(STOPPED_AFTER)
    active = workers.active()
    if active is None:
        raise SystemExit("nobody decides")
    workers.stop(active)
    time.sleep(seconds)
    workers.go_on(active)
    return 1


def takeover(share):
    """From the end of the worker that decides to the first grant of another, as the log stored it."""
    times = TAKEOVERS // share
    visitors = 2 * times * TAKEOVER_VISITORS
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES)
        system.queue(QUEUE, rate_per_minute=TAKEOVER_RATE, token_seconds=TOKEN_SECONDS)
        workers = Workers(system, [{}, {}])
        crowd = waiting_crowd(children, system, visitors)
        system.said("queue", "resume", QUEUE)
        killed_at, stopped_at = [], []
        for _ in range(times):
            killed_at.append(taken_over(system, workers, workers.kill, workers.start))
            stopped_at.append(taken_over(system, workers, workers.stop, workers.go_on))
        system.said("queue", "pause", QUEUE)
        crowd.end()
        system.verified(QUEUE, visitors)
        records = system.records(QUEUE)
    stored = [at for _, at, kind, _ in records if kind == "admitted"]
    waits = {"kill": [until_next(at, stored) for at in killed_at],
             "stop": [until_next(at, stored) for at in stopped_at]}
    judgement = judged(records, TAKEOVER_RATE)
    return {
        "times": times,
        **{f"{how}_median_seconds": statistics.median(some) for how, some in waits.items()},
        **{f"{how}_worst_seconds": max(some) for how, some in waits.items()},
        **{key: judgement[key] for key in PROMISED},
    }


def taken_over(system, workers, end, bring_back):
    """The worker that decides is ended, and brought back once another does; when it was ended."""
    active = workers.active()
    if active is None:
        raise SystemExit("nobody decides")
    other = 1 - active
    system.wait("the other is ready", lambda: workers.is_ready(other))
    time.sleep(TAKEOVER_PAUSE)
    ended_at = end(active)
    system.wait("the other decides", lambda: workers.state(other).get("active"))
    time.sleep(TAKEOVER_PAUSE)
    bring_back(active)
    system.wait("both are ready", lambda: workers.is_ready(active))
    return ended_at


def until_next(ended_at, stored):
    """Seconds until somebody was let in who was not on their way already."""
    return next(at - ended_at for at in stored if at > ended_at + ON_ITS_WAY_NANOS) / 1e9


def passing(share):
    """Whoever comes to an open place, one after the other: from JOIN until they hear that it is their turn."""
    visitors = PASSES // share
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES)
        system.queue(QUEUE, rate_per_minute=RATE, token_seconds=TOKEN_SECONDS)
        open_gate(system)
        came = said(["anteroom-load", "pass", "--visitors", visitors, *system.sockets(QUEUE)])
        system.verified(QUEUE, visitors)
        judgement = judged(system.records(QUEUE), RATE)
    return {
        "visitors": visitors,
        **{key: came[key] for key in ["ack_p50_ms", "ack_p99_ms"]},
        **{key: came[f"admitted_{key}"] for key in ["p50_ms", "p99_ms"]},
        **{key: judgement[key] for key in PROMISED},
    }


def released(share):
    """As many are inside as may be; from the moment at which the log has it that one is not any more until
    the next in line hears that it is their turn."""
    releases, waiting = RELEASES // share, WAITING // share
    visitors = releases + waiting
    with contextlib.ExitStack() as children:
        system = System(children, built(), NODES)
        policy = {"rate_per_minute": RATE, "token_seconds": TOKEN_SECONDS, "max_inside": releases}
        system.queue(QUEUE, **policy)
        crowd = waiting_crowd(children, system, visitors)
        open_gate(system)
        told = Told(crowd)
        told.wait(releases)
        inside = [fact["jti"] for _, data in system.entries(QUEUE, "admitted") for fact in data["facts"]]
        for number, jti in enumerate(inside, 1):
            system.release(QUEUE, jti)
            told.wait(releases + number)
        system.said("queue", "pause", QUEUE)
        crowd.end()
        system.verified(QUEUE, visitors)
        records = system.records(QUEUE)
    free_at = [at for _, at, kind, _ in records if kind == "released"]
    granted_at = [at for _, at, kind, data in records if kind == "admitted" for _ in data["facts"]]
    # One place at a time is free, so those who hear are the next in the order in which they do.
    granted = milliseconds(free_at, granted_at[releases:])
    heard = milliseconds(free_at, told.at[releases:])
    judgement = judged(records, RATE)
    return {
        "releases": releases,
        "waiting": waiting,
        "granted_p50_ms": percentile(granted, 50),
        "granted_p99_ms": percentile(granted, 99),
        "p50_ms": percentile(heard, 50),
        "p99_ms": percentile(heard, 99),
        **{key: judgement[key] for key in PROMISED},
    }


def open_gate(system):
    """Lets people in, by the worker of `up`: one that has just begun listens before it decides."""
    system.wait("admission decides", lambda: readiness(system.operator).get("active"))
    system.said("queue", "resume", QUEUE)


class Told:
    """When each of a crowd was told that it is their turn, in nanoseconds since 1970."""

    def __init__(self, crowd):
        self.crowd, self.at = crowd, []

    def count(self):
        self.at += self.crowd.asked("admitted", "admitted")["admitted"]
        return len(self.at)

    def wait(self, count):
        until = time.monotonic() + LET_IN_WAIT_MAX
        while self.count() < count:
            if time.monotonic() > until:
                raise SystemExit(f"after {LET_IN_WAIT_MAX} s {len(self.at)} of {count} were let in")
            time.sleep(LOOK_EVERY)


def waiting_crowd(children, system, visitors):
    args = [*system.sockets(QUEUE), "--visitors", visitors]
    return Crowd(children, built(), "the load", args, before=as_batch)


def another_hour(offset):
    """What lets a process live in another hour: its wall clock, not the one that counts what has passed."""
    faked = ["faketime", "-f", offset, "printenv", "LD_PRELOAD"]
    library = subprocess.run(faked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return {"LD_PRELOAD": library, "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


def milliseconds(begun, ended):
    if len(begun) != len(ended):
        raise SystemExit(f"{len(begun)} began and {len(ended)} ended")
    return sorted((end - begin) / 1e6 for begin, end in zip(begun, ended))


def percentile(values, of_hundred):
    """What so many of a hundred do not exceed."""
    return values[max(0, -(-len(values) * of_hundred // 100) - 1)]


# What must not be at all: one is too many.
PROMISED = ["over_admission", "twice", "out_of_order"]
LET_IN = {"killed": killed, "killed_of_two": killed_of_two, "stopped": stopped, "clocks": clocks}
SCENARIOS = LET_IN | {"takeover": takeover, "pass": passing, "release": released}


def of_rounds(key, values):
    bad = [*PROMISED, "lost", "doubled", "longest_pause_seconds"]
    is_worst = key in bad or "worst" in key
    return round(max(values) if is_worst else statistics.median(values), 3)


def show(out):
    figures = out["figures"]
    before, after = out["load_average"]
    rounds = len(out["rounds"])
    print(f"{rounds} rounds: the median, of pauses and of what must not be the most; load {before:.1f} to "
          f"{after:.1f}. Every log passed `audit verify`\n")
    heads = ["let in", "kills or stops", "too many", "twice", "out of turn", "seconds", "ideal",
             "longest pause", "fences lost"]
    keys = ["let_in", "faults", *PROMISED, "seconds", "ideal_seconds", "longest_pause_seconds",
            "fences_lost"]
    print("".join([f"{'':14}", *(f"{head:>15}" for head in heads)]))
    for name in LET_IN:
        cells = [figures[f"{name}_{key}"] for key in keys]
        print("".join([f"{name:14}", *(f"{cell:>15,}" for cell in cells)]))
    print()
    for name in [name for name in SCENARIOS if name not in LET_IN]:
        for key in out["rounds"][0][name]:
            print(f"{name + ' ' + key:32} {figures[f'{name}_{key}']:>12,}")
    print(flush=True)


if __name__ == "__main__":
    run(main)
