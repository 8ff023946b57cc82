"""What `tools/bench scale` does: how far Anteroom goes beyond this machine, by simulation and by formula.

Nothing is measured here. What things cost was measured (costs.json), what happens is simulated
(scale_simulation.py), and formulas (scale_formulas.py) say the same another way. Standard library only.
"""

import argparse
import copy
import json
import math
import os
from dataclasses import dataclass, replace

from program import run, write_figures
import scale_costs
import scale_formulas as formulas
import scale_sizes as sizes
from scale_simulation import Setting, Simulation, tell

PEOPLE = [100_000, 1_000_000, 10_000_000]
WITHIN = [1, 10, 60]
COSTS = os.path.join(os.path.dirname(__file__), "costs.json")
# Above this a formula and the simulation say different things.
DIFFERENCE_MAX = 0.2
# What a crowd is divided into where it is divided, and the nodes that one relay serves.
STREAMS, NODES_PER_RELAY = 10, 50
LARGER_ENTRIES = 4_000
# With a disk like this the log is what a crowd waits for, whatever else costs: for --check.
FSYNC_BAD = 0.016


@dataclass(frozen=True)
class Kind:
    """A kind of node: its cores, and the sockets that its descriptors allow."""

    name: str
    cores: int
    sockets: int

    def count(self, people):
        """So many that one may be lost."""
        return math.ceil(people / self.sockets) + 1


SMALL = Kind("small", 2, sizes.SOCKETS_MAX)
# As where the limit of descriptors is raised.
LARGE = Kind("large", 16, 200_000)


def main():
    parser = argparse.ArgumentParser(prog="tools/bench scale")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--costs", metavar="FILE", default=COSTS, help="what things cost, if not as measured")
    parser.add_argument("--people", metavar="N", type=int, nargs="+", default=PEOPLE)
    parser.add_argument("--check", action="store_true", help="only whether the model agrees with itself")
    options = parser.parse_args()
    costs = scale_costs.read(options.costs)
    if options.check:
        return check(costs)
    if min(options.people) < 1:
        parser.error("a crowd has at least one in it")
    out = {
        "this_machine": this_machine(costs),
        "arrivals": [simulated(*case) for case in arrivals(options.people, costs)],
        "remedies": [simulated(*case) for case in remedies(options.people, costs)],
        "in_line": [
            in_line(people, kind, costs) for people in options.people for kind in [SMALL, LARGE]
        ],
    }
    show(out)
    write_figures(out, options.json)


def crowd(people, within, costs, kind=SMALL):
    """A crowd before as many nodes as it needs, with one stream on a quick disk."""
    return Setting(people, within, kind.count(people), kind.cores, costs.fsync_quick)


def arrivals(people, costs):
    for count in people:
        for within in WITHIN:
            yield "one stream", crowd(count, within, costs), costs


def remedies(people, costs):
    """All within a second: what else it is like, and what can be done."""
    slow = {"fsync": costs.fsync_slow}
    for count in people:
        one = crowd(count, 1, costs)
        large = crowd(count, 1, costs, LARGE)
        ways = {
            "slow disk": replace(one, **slow),
            f"slow disk, entries of {LARGER_ENTRIES:,}": replace(
                one, **slow, facts_per_entry_max=LARGER_ENTRIES
            ),
            "slow disk, large nodes": replace(large, **slow),
            "slow disk, R3": replace(one, **slow, replicas=3),
            "R3": replace(one, replicas=3),
            "large nodes": large,
            "relayed feed": replace(one, relays=math.ceil(one.nodes / NODES_PER_RELAY)),
        }
        if count >= STREAMS * SMALL.sockets:
            nodes = STREAMS * SMALL.count(count / STREAMS)
            several = replace(one, streams=STREAMS, nodes=nodes)
            ways |= {
                f"{STREAMS} streams": several,
                f"{STREAMS} streams, slow disks": replace(several, **slow),
            }
        for name, setting in ways.items():
            yield name, setting, costs
        yield "projector without batches", one, without_batches(costs)


def without_batches(costs):
    """As if a projector gained nothing from entries that come together: 5 µs a join, however many."""
    changed = copy.copy(costs)
    changed.projector_entry, changed.projector_fact = 0, costs.projector_join
    return changed


def simulated(name, setting, costs):
    """A case: its figures beside what the formulas say, and how much of each resource it needs: the one
    of which most is needed is the first at its limit."""
    part = setting.part()
    simulation = Simulation(part, costs).run()
    figures = simulation.figures()
    beyond = formulas.beyond(part, figures)
    shares = formulas.shares(part, costs, simulation)
    for key in ["entries_per_s", "log_mb_per_s", "log_mb", "feed_mb_per_s", "deliveries_per_s"]:
        figures[key] *= setting.streams
    expected = formulas.expected(part, costs)
    for key in ["entries_per_s", "log_mb"]:
        expected[key] *= setting.streams
    return {
        "name": name,
        "people": setting.people,
        "within_s": setting.within,
        "nodes": setting.nodes,
        "cores": setting.cores,
        "figures": figures,
        "expected": expected,
        "shares": shares,
        "first": max(shares, key=shares.get),
        "beyond": beyond,
        "nats_cores": nats_cores(figures, setting, costs),
    }


def nats_cores(figures, setting, costs):
    """Of all streams' servers together, at most."""
    return figures["entries_per_s"] * costs.nats_entry + figures["deliveries_per_s"] / costs.deliveries


def in_line(people, kind, costs):
    """What it takes while they wait, and when a node is lost."""
    nodes = kind.count(people)
    telling = tell(people, nodes, kind.cores, costs)
    left = kind.cores - telling.cores / nodes
    lost = Setting(
        people // nodes, sizes.BACKOFF_FIRST, nodes - 1, left, costs.fsync_quick, is_return=True
    )
    push = sizes.push_bytes(people) + sizes.PACKET_BYTES
    return {
        "people": people,
        "kind": kind.name,
        "nodes": nodes,
        "cores": nodes * kind.cores,
        "sockets_a_node": math.ceil(people / nodes),
        "told": {
            "last_told_ms": 1e3 * telling.last_told,
            "pushes_per_s": telling.pushes,
            "cores": telling.cores,
        },
        "expected": formulas.told(people, nodes, kind.cores, costs),
        "still": formulas.kept_alive(people, costs),
        "oldest_s": telling.oldest,
        "looks_share": telling.looks_share,
        "push_gbit_per_s": telling.pushes * push * 8 / 1e9,
        "lost_node_back_s": Simulation(lost, costs).run().figures()["shown_last_s"],
        **formulas.memory(people, nodes, costs),
    }


def this_machine(costs):
    """The crowd that was measured: six nodes, seven client processes and everything else on two cores,
    whose time for a join is therefore all that is spent on it anywhere."""
    here = copy.copy(costs)
    here.network_hop = 0
    join = costs.node_join_shared + costs.client_join + costs.nats_join + costs.projector_join
    setting = Setting(100_000, 0.1, nodes=6, cores=2 / 6, fsync=costs.fsync_quick, join=join)
    return {
        "predicted_s": Simulation(setting, here).run().shown_last(),
        "measured_s": [costs.measured_shown_least_s, costs.measured_shown_most_s],
    }


# Whether the model agrees with itself.


def check(costs):
    """What must hold of any model of this, whatever things cost. Fails by an assertion."""
    settings = [
        crowd(100_000, 1, costs),
        crowd(100_000, 5, costs),
        replace(crowd(100_000, 1, costs), fsync=costs.fsync_slow),
        replace(crowd(100_000, 1, costs), replicas=3),
        replace(crowd(1_000_000, 1, costs), fsync=costs.fsync_slow),
        replace(crowd(1_000_000, 1, costs), relays=2),
    ]
    for setting in settings:
        simulation = Simulation(setting, costs).run()
        check_conservation(simulation)
        check_formulas(simulation.figures(), setting, costs)
    again = Simulation(settings[-1], costs).run().figures()
    assert again == simulation.figures(), "the same seed, other figures"
    check_directions(replace(settings[0], fsync=FSYNC_BAD), costs)
    check_telling(costs)
    here = this_machine(costs)
    least, most = here["measured_s"]
    assert least * (1 - DIFFERENCE_MAX) < here["predicted_s"] < most * (1 + DIFFERENCE_MAX), here
    print("the model agrees with itself, and with what was measured here")


def check_conservation(simulation):
    for node in simulation.nodes:
        assert node.people == node.taken == node.answered == node.told, "somebody is lost or doubled"
    for counted in [simulation.answers, simulation.shown]:
        assert sum(one[1] for one in counted) == simulation.setting.people, "not everyone counts once"
        assert min(one[0] for one in counted) > 0, "somebody was answered before they came"
    figures = simulation.figures()
    assert figures["answered_last_s"] <= figures["shown_last_s"], "shown before it was stored"


def check_formulas(figures, setting, costs):
    for key, value in formulas.expected(setting, costs).items():
        assert difference(figures[key], value) < DIFFERENCE_MAX, f"{setting}: {key}: {figures[key]}, {value}"


def check_directions(setting, costs):
    """What is worse takes longer."""
    last = shown_last(setting, costs)
    better = [
        {"fsync": costs.fsync_quick},
        {"replicas": 3},
        {"facts_per_entry_max": LARGER_ENTRIES},
        {"people": setting.people // 2},
    ]
    worse = [{"fsync": 2 * setting.fsync}, {"facts_per_entry_max": 100}, {"cores": 0.05}]
    for change in better:
        assert shown_last(replace(setting, **change), costs) < last, f"{change} is no better"
    for change in worse:
        assert shown_last(replace(setting, **change), costs) > last, f"{change} is no worse"


def shown_last(setting, costs):
    return Simulation(setting, costs).run().shown_last()


def check_telling(costs):
    for kind in [SMALL, LARGE]:
        told = in_line(1_000_000, kind, costs)
        for key, value in told["expected"].items():
            assert difference(told["told"][key], value) < DIFFERENCE_MAX, f"{kind}: {key}: {told}"
        jitter = 1 + 1 / sizes.JITTER
        assert told["oldest_s"] < sizes.PAUSE_MAX * jitter + 2 * sizes.WALK_EVERY, "a number is too old"


def difference(simulated, expected):
    return abs(simulated - expected) / expected


# What is printed.


def show(out):
    here = out["this_machine"]
    least, most = here["measured_s"]
    print(f"modelled, not measured, but for this machine: 100,000 at once have their first number after "
          f"{here['predicted_s']:.1f} s by the model, {least:g} to {most:g} s as measured\n")
    show_cases("arrivals", out["arrivals"])
    show_cases("within a second, otherwise", out["remedies"])
    show_formulas(out["arrivals"] + out["remedies"])
    show_in_line(out["in_line"])


def show_cases(title, cases):
    whose = ["people", "within s"]
    when = [title, *whose, "nodes", "cores", "answered s", "shown s", "p50 ms", "p99 ms",
            "first at its limit", "beyond its bound"]
    what = [title, *whose, "entries/s", "joins each", "log MB/s", "NATS cores", "feed KB/s a node",
            "in all MB/s", "messages/s"]
    times, loads = [when], [what]
    for case in cases:
        figures, first = case["figures"], case["first"]
        name = [case["name"], f"{case['people']:,}", f"{case['within_s']:g}"]
        times.append([
            *name, f"{case['nodes']:,}", f"{case['nodes'] * case['cores']:,}",
            f"{figures['answered_last_s']:.2f}", f"{figures['shown_last_s']:.2f}",
            f"{figures['answer_p50_ms']:,.1f}", f"{figures['answer_p99_ms']:,.1f}",
            f"{first} {case['shares'][first]:.0%}", ", ".join(case["beyond"]) or "-",
        ])
        loads.append([
            *name, f"{figures['entries_per_s']:,.0f}", f"{figures['joins_per_entry']:,.0f}",
            f"{figures['log_mb_per_s']:.1f}", f"{case['nats_cores']:.1f}",
            f"{figures['feed_kb_per_s_a_node']:,.0f}", f"{figures['feed_mb_per_s']:,.1f}",
            f"{figures['deliveries_per_s']:,.0f}",
        ])
    table(times)
    table(loads)


def show_formulas(cases):
    names = {"shown_last_s": "shown s", "answer_p50_ms": "p50 ms", "entries_per_s": "entries/s",
             "log_mb": "log MB", "feed_kb_per_s_a_node": "feed KB/s a node"}
    rows = [["simulated | by formula (! more than 20 % apart)", "people", "within s", *names.values()]]
    for case in cases:
        row = [case["name"], f"{case['people']:,}", f"{case['within_s']:g}"]
        row += [beside(case["figures"][key], case["expected"][key]) for key in names]
        rows.append(row)
    table(rows)


def beside(simulated, expected):
    mark = "!" if difference(simulated, expected) > DIFFERENCE_MAX else ""
    digits = 0 if simulated >= 100 else 2
    return f"{simulated:,.{digits}f} | {expected:,.{digits}f}{mark}"


def show_in_line(cases):
    columns = [[f"{case['people']:,}, {case['kind']}" for case in cases]]
    labels = ["in line (simulated | by formula)"]

    def row(label, cell):
        labels.append(label)
        columns.append([cell(case) for case in cases])

    row("nodes", lambda case: f"{case['nodes']:,}")
    row("cores in all", lambda case: f"{case['cores']:,}")
    row("sockets a node", lambda case: f"{case['sockets_a_node']:,}")
    row("a node's memory, MB", lambda case: f"{case['node_mb']:,.0f}")
    row("last told of one move, ms", lambda case: told_beside(case, "last_told_ms"))
    row("oldest number while it moves, s", lambda case: f"{case['oldest_s']:.2f}")
    row("pushes/s while it moves", lambda case: told_beside(case, "pushes_per_s"))
    row("cores that this takes", lambda case: told_beside(case, "cores"))
    row("of it looking", lambda case: f"{case['looks_share']:.0%}")
    row("pushes/s while it stands still", lambda case: f"{case['still']['pushes_per_s']:,.0f}")
    row("cores that this takes", lambda case: f"{case['still']['cores']:.2f}")
    row("pushes while it moves, Gbit/s", lambda case: f"{case['push_gbit_per_s']:.2f}")
    row("a lost node's people back, s", lambda case: f"{case['lost_node_back_s']:.2f}")
    row("snapshot, KB", lambda case: f"{case['snapshot_kb']:,.0f}")
    row("snapshot, ms", lambda case: f"{case['snapshot_ms']:.1f}")
    row("projector and admission, MB each",
        lambda case: f"{case['line_mb']:,.0f} to {case['rebuild_mb']:,.0f}")
    row("replay, s (joins; whole lives)",
        lambda case: f"{case['replay_joins_s']:.1f}; {case['replay_lives_s']:.1f}")
    row("projector's restart, s", lambda case: f"{case['restart_s']:.1f}")
    row("log of whole lives, GB", lambda case: f"{case['lives_gb']:.2f}")
    table([[label, *cells] for label, cells in zip(labels, columns)])


def told_beside(case, key):
    return beside(case["told"][key], case["expected"][key])


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:])]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    print(flush=True)


if __name__ == "__main__":
    run(main)
