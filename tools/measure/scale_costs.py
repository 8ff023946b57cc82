"""What things cost, for `tools/bench scale`: a file of measured values, and what follows from them."""

import json
import math
import statistics
from dataclasses import dataclass
from types import SimpleNamespace

# Of a standard normal distribution, what one in a hundred exceeds.
NORMAL_P99 = 2.326
# Entries that three servers sync together: as many were in flight when it was measured.
R3_BATCH_MAX = 1_000


def read(path):
    """The values by their names, all in seconds, bytes and pieces; `measured` has the file as it is."""
    with open(path, encoding="utf-8") as file:
        measured = json.load(file)
    costs = SimpleNamespace(measured=measured)
    for name, cost in measured.items():
        base, _, unit = name.rpartition("_")
        scale = {"us": 1e-6, "ms": 1e-3}.get(unit)
        setattr(costs, base if scale else name, cost["value"] * (scale or 1))
    costs.nic = costs.network_gbit * 1e9 / 8
    costs.fsync_spread = math.log(costs.append_p99 / costs.append_p50) / NORMAL_P99
    costs.r1, costs.r3 = r1(costs), r3(costs)
    return costs


@dataclass(frozen=True)
class Log:
    """What the stream's server takes for an entry besides the fsync, and how many entries share one."""

    entry: float
    byte: float
    batch_max: int
    # From being stored to being answered.
    answer: float


def r1(costs):
    """One server syncs each entry. Its time for a byte is the slope of the rates that were measured."""
    joins = [1, 10, 100, 300]
    seconds = [1 / costs.measured[f"r1_entries_of_{count}"]["value"] for count in joins]
    written = [count * costs.measured_join_bytes for count in joins]
    byte, alone = statistics.linear_regression(written, seconds)
    return Log(max(0, alone - costs.fsync_quick), byte, batch_max=1, answer=0)


def r3(costs):
    """Three servers sync together what waits: otherwise 1,000 in flight could not be fifty times as
    quick as one in flight."""
    entry = 1 / costs.r3_entries_of_1
    byte = (1 / costs.r3_entries_of_100 - entry) / (99 * costs.measured_join_bytes)
    answer = max(0, costs.r3_append_p50 - costs.fsync_quick - entry)
    return Log(entry, byte, batch_max=R3_BATCH_MAX, answer=answer)
