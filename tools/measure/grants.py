"""Judges who was let in by the log's entries alone, and by what was promised rather than by how it is
done: no word of the program's own rules is in it. Standard library only."""

import collections
import itertools

MINUTE_NANOS = 60_000_000_000
# At a rate of less than a person in a tenth of a second one comes at once, else so many.
BURSTS_A_MINUTE = 600


def judged(records, rate):
    """What came of a queue that was always open at this rate: how many too many were let in within some
    stretch of time, how many twice, in how many entries others than those whose turn it was; how long it
    took from the first to the last, and the longest pause between two."""
    admissions = [(at, data["facts"]) for _, at, kind, data in records if kind == "admitted"]
    times = [at for at, facts in admissions for _ in facts]
    visitors = [fact["visitor"] for _, facts in admissions for fact in facts]
    burst = burst_of(rate)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {
        "let_in": len(visitors),
        "over_admission": over_admission(times, rate, burst),
        "twice": len(visitors) - len(set(visitors)),
        "out_of_order": out_of_order(records),
        "seconds": (times[-1] - times[0]) / 1e9 if times else 0,
        "ideal_seconds": max(0, len(times) - burst) * 60 / rate,
        "longest_pause_seconds": max(pauses, default=0) / 1e9,
    }


def burst_of(rate):
    return max(1, rate // BURSTS_A_MINUTE)


def over_admission(times, rate, burst):
    """Of all windows the most people above what it allows: burst + w x rate / 60 in w seconds. A fullest
    window begins and ends with somebody; of those that end with one, the fullest begins where the least
    was owed before."""
    most, least_before = 0, None
    for count, at in enumerate(times):
        owed = count * MINUTE_NANOS - at * rate
        least_before = owed if least_before is None else min(least_before, owed)
        above = owed - least_before + (1 - burst) * MINUTE_NANOS
        # Whatever is above a whole number of people is one too many.
        most = max(most, -(-above // MINUTE_NANOS))
    return most


def out_of_order(records):
    """In how many entries others were let in than the first of those who waited and were there, in order of
    joining, as far as the entry's writer had read."""
    line, unread, wrong = Line(), collections.deque(), 0
    for seq, _, kind, data in records:
        if "prev" not in data:
            unread.append((seq, kind, data))
            continue
        # The writer has read every decision, each being fenced on the one before it.
        while unread and unread[0][0] <= data["basis"]:
            line.apply(*unread.popleft())
        if kind == "admitted":
            let_in = [fact["visitor"] for fact in data["facts"]]
            wrong += let_in != line.first_present(len(let_in))
        line.apply(seq, kind, data)
    return wrong


class Line:
    """Who waits, in order of joining, each with the socket on which they were last; and who is there."""

    def __init__(self):
        self.waiting, self.present = {}, set()
        # Everyone who ever joined, and the last entry by which they came.
        self.came = {}

    def first_present(self, count):
        present = (visitor for visitor in self.waiting if visitor in self.present)
        return list(itertools.islice(present, count))

    def apply(self, seq, kind, data):
        if kind == "node_lost":
            lost = {fact["node"] for fact in data["facts"]}
            self.present -= {visitor for visitor in self.present if self.waiting[visitor][0] in lost}
            return
        for fact in data.get("facts", []):
            visitor = fact.get("visitor")
            socket = (data.get("node"), fact.get("socket"))
            if kind == "joined" and visitor not in self.came:
                self.be_at(visitor, socket, seq)
            elif kind == "reconnected" and visitor in self.waiting:
                # A node that says who is there did not know of those who have come elsewhere since.
                if self.came[visitor] <= data.get("basis", seq):
                    self.be_at(visitor, socket, seq)
            elif kind == "disconnected" and self.waiting.get(visitor) == socket:
                self.present.discard(visitor)
            elif kind in ["admitted", "left", "expired", "removed"]:
                self.waiting.pop(visitor, None)
                self.present.discard(visitor)

    def be_at(self, visitor, socket, seq):
        # Who is in the line already keeps their place in it.
        self.waiting[visitor] = socket
        self.came[visitor] = seq
        self.present.add(visitor)


def check():
    """A count that finds nothing must be able to find something: raises if it does not."""
    second = MINUTE_NANOS // 60
    joined = [(1, 0, "joined", {"node": "n", "facts": [{"visitor": v, "socket": v} for v in range(4)]})]
    gone = [(2, 0, "disconnected", {"node": "n", "facts": [{"visitor": 0, "socket": 0}]})]

    def admitted(seq, at, basis, *visitors):
        facts = [{"visitor": v} for v in visitors]
        return [(seq, at, "admitted", {"prev": 0, "basis": basis, "facts": facts})]

    def back(basis):
        return [(3, 0, "reconnected", {"node": "o", "facts": [{"visitor": 0, "socket": 0}], **basis})]

    def found(*parts):
        came = judged(sum(parts, []), 60)
        return came["over_admission"], came["twice"], came["out_of_order"]

    # One a second, one at once; who is away is passed over once the writer can know it.
    cases = [
        (found(joined, admitted(3, 0, 1, 0), admitted(4, second, 3, 1)), (0, 0, 0)),
        (found(joined, admitted(3, 0, 1, 0), admitted(4, second - 1, 3, 1)), (1, 0, 0)),
        (found(joined, admitted(3, 0, 1, 0, 1, 2)), (2, 0, 0)),
        (found(joined, admitted(3, 0, 1, 0), admitted(4, second, 3, 0)), (0, 1, 1)),
        (found(joined, admitted(3, 0, 1, 1)), (0, 0, 1)),
        (found(joined, gone, admitted(3, 0, 1, 0)), (0, 0, 0)),
        (found(joined, gone, admitted(3, 0, 2, 0)), (0, 0, 1)),
        (found(joined, gone, admitted(3, 0, 2, 1)), (0, 0, 0)),
        (found(joined, gone, back({}), admitted(4, 0, 3, 0)), (0, 0, 0)),
        (found(joined, gone, back({"basis": 2}), admitted(4, 0, 3, 0)), (0, 0, 0)),
        (found(joined, gone, back({"basis": 0}), admitted(4, 0, 3, 0)), (0, 0, 1)),
    ]
    for number, (counted, expected) in enumerate(cases):
        if counted != expected:
            raise SystemExit(f"case {number} of the count: {counted} instead of {expected}")
