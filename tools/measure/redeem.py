"""What `tools/bench redeem` does, with the programs that it built. Standard library only.

People are let in, and what follows is what a site and its gateway ask: their tokens are used, some by the
clock and the others as fast as they are answered, each with its fact synced to the disk before the answer;
and their passes are shown at `/api/authorize`, beside a call that asks nothing and takes the same way. One node,
one worker, one nats-server and the load share this machine. The log is audited afterwards.
"""

import argparse
import contextlib
import json
import os
import statistics

from crowd import said
from program import built, note, run, write_figures
from system import System

QUEUE = "redeem"
# Redemptions a second by the clock, and requests under way at once where they come as fast as they can.
RATE, AT_ONCE = 500, 64
# Redemptions that come as fast as they can.
AT_MOST = 40_000


def main():
    parser = argparse.ArgumentParser(prog="tools/bench redeem")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--seconds", type=int, default=10, help="how long each is measured")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    load_average = [os.getloadavg()[0]]
    rounds = []
    for number in range(options.rounds):
        rounds.append(one_round(options.seconds))
        note(f"round {number + 1}: {json.dumps(rounds[-1])}")
    load_average.append(os.getloadavg()[0])
    figures = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    out = {"figures": figures, "load_average": load_average, "rounds": rounds}
    show(out)
    write_figures(out, options.json)
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


def one_round(seconds):
    people = seconds * RATE + AT_MOST
    with contextlib.ExitStack() as children:
        system = System(children, built())
        system.queue(
            QUEUE,
            # As fast as a policy can say, also those who sit on no socket.
            rate_per_minute=600_000, absent="admit", token_seconds=3_600,
        )
        system.said("queue", "resume", QUEUE)
        figures = said([
            "anteroom-measure", "redeem", QUEUE,
            "--nats", url(system, "operator"), "--node", url(system, "node"),
            "--signing-key", system.path("keys", "signing.pem"),
            "--api", system.apis[0].removeprefix("http://"), "--pid", system.pids()["node 0"],
            "--people", people, "--at-once", AT_ONCE, "--rate", RATE, "--seconds", seconds,
        ])
        verdict = system.verified(QUEUE, people)
    if verdict["redeemed"] != figures["redeemed"]:
        raise SystemExit(f"{figures['redeemed']} passes were given, and in the log is: {verdict}")
    return figures


def url(system, identity):
    with open(system.path("run", f"nats-{identity}.url"), encoding="utf-8") as file:
        return file.read().strip()


def show(out):
    before, after = out["load_average"]
    print(f"{len(out['rounds'])} rounds: the median, least and most; load {before:.1f} to {after:.1f}\n")
    for key, value in out["figures"].items():
        values = [one[key] for one in out["rounds"]]
        print(f"{key:24} {value:>12,.2f}  ({min(values):,.2f}-{max(values):,.2f})")
    print(flush=True)


if __name__ == "__main__":
    run(main)
