"""A crowd that arrives, event by event: nodes, the log's server, the projector and the feed.

An event is an entry or a frame, not a person: people stand in a node's order of arrival, so counts say
where each of them is. Everything random comes from one seed.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, replace

import scale_sizes as sizes

SEED = 20
# What an event means.
ASKED, STORED, ANSWERED, FRAME = range(4)
# A person counts as handed over within this of a whole one: sums of fractions are never exact.
WHOLE = 1e-6


@dataclass(frozen=True)
class Setting:
    """A crowd, and what it meets."""

    people: int
    within: float
    nodes: int
    cores: float
    fsync: float
    replicas: int = 1
    # Queues of their own, each with its stream, its projector and its share of people and nodes.
    streams: int = 1
    # Servers that hand the feed on to the nodes, and bring their entries; none: nodes ask the log's.
    relays: int = 0
    facts_per_entry_max: int = sizes.FACTS_PER_ENTRY_MAX
    # CPU of a node for each of them; None: as measured.
    join: float | None = None
    # They come back to places that they have.
    is_return: bool = False

    def part(self):
        """One of its streams: the largest, where they are not all alike."""
        parts = {name: -(-getattr(self, name) // self.streams) for name in ["people", "nodes", "relays"]}
        return replace(self, **parts, streams=1)

    def join_cpu(self, costs):
        return costs.node_join if self.join is None else self.join

    def hop(self, costs):
        """One way between a node and the log's server."""
        return costs.network_hop * (2 if self.relays else 1)

    def log(self, costs):
        return costs.r3 if self.replicas > 1 else costs.r1


class Node:
    """One node: whom it has accepted, handed to its writer, and told their first number."""

    def __init__(self, people, phase, setting, costs):
        self.people, self.phase, self.within = people, phase, setting.within
        cpu, share = setting.join_cpu(costs), costs.node_join_before_log_share
        self.accepts = setting.cores / (cpu * share)
        self.tells = setting.cores / (cpu * (1 - share))
        self.at = self.handed = self.busy = self.told_until = self.feed_seen = 0.0
        self.taken = self.answered = self.told = 0

    def arrival(self, person):
        return (person + self.phase) * self.within / self.people

    def arrived(self, now):
        return max(0, min(self.people, math.floor(now * self.people / self.within - self.phase + WHOLE) + 1))

    def goes_on(self, now, feed_cpu):
        """Accepts people until now with what telling others and the feed leave of its cores."""
        self.busy += feed_cpu - self.feed_seen
        self.feed_seen = feed_cpu
        passed, self.at = now - self.at, now
        busy = min(passed, self.busy)
        self.busy -= busy
        self.handed = min(self.handed + (passed - busy) * self.accepts, self.arrived(now))

    def whole(self):
        return math.floor(self.handed + WHOLE)

    def next_at(self):
        """When the next one is handed over, whose fact leaves at once."""
        accepted = self.at + self.busy + (self.taken + 1 - self.handed) / self.accepts
        return max(accepted, self.arrival(self.taken))

    def tells_from(self, when, count):
        """Tells so many their first number: from when until when."""
        begin = max(when, self.told_until)
        self.told_until = begin + count / self.tells
        self.busy += count / self.tells
        self.told += count
        return begin, self.told_until


class Simulation:
    def __init__(self, setting, costs, seed=SEED):
        assert setting.streams == 1, "each stream is simulated by itself"
        self.setting, self.costs, self.log = setting, costs, setting.log(costs)
        self.random = random.Random(seed)
        share, more = divmod(setting.people, setting.nodes)
        shares = [share + (number < more) for number in range(setting.nodes)]
        self.nodes = [Node(share, self.random.random(), setting, costs) for share in shares if share]
        self.hop = setting.hop(costs)
        self.events, self.order = [], 0
        self.waiting, self.is_storing = deque(), False
        self.folded_at, self.frame, self.frame_at = 0.0, [], -math.inf
        self.feed_cpu = self.fanned_at = self.fan_busy = 0.0
        self.entries = self.frames = self.log_bytes = self.feed_bytes = 0
        self.waiting_max = self.behind_max = self.behind_entries_max = 0
        self.stored_last = 0.0
        # When the entries that the projector has heard of and not folded will be.
        self.folding = deque()
        # Of each entry: seconds since its middle one came, how many, and of `shown` when its last one was.
        self.answers, self.shown = [], []

    def run(self):
        for node in self.nodes:
            self.at(node.arrival(0), ASKED, node)
        handle = {ASKED: self.asked, STORED: self.stored, ANSWERED: self.answered, FRAME: self.publish}
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            handle[kind](now, what)
        return self

    def at(self, when, kind, what):
        self.order += 1
        heapq.heappush(self.events, (when, self.order, kind, what))

    def asked(self, now, node):
        node.goes_on(now, self.feed_cpu)
        self.write(now, node)

    def write(self, now, node):
        """The next entry of a node that has none under way (src/log/append.rs)."""
        count = min(node.whole() - node.taken, self.setting.facts_per_entry_max)
        self.waiting_max = max(self.waiting_max, node.whole() - node.taken)
        if count == 0:
            if node.taken < node.people:
                self.at(max(now, node.next_at()) + WHOLE, ASKED, node)
            return
        entry = (node, node.taken, count)
        node.taken += count
        self.waiting.append(entry)
        if not self.is_storing:
            self.store(now)

    def store(self, now):
        """The log's server takes up what it writes with one fsync. The hop to it is counted in the answer."""
        self.is_storing = True
        batch = [self.waiting.popleft() for _ in range(min(self.log.batch_max, len(self.waiting)))]
        spread = self.costs.fsync_spread
        seconds = self.setting.fsync * self.random.lognormvariate(-spread * spread / 2, spread)
        for _, _, count in batch:
            written = sizes.entry_bytes(count)
            seconds += self.log.entry + written * self.log.byte
            self.log_bytes += written
        self.at(now + seconds, STORED, batch)

    def stored(self, now, batch):
        self.entries += len(batch)
        self.stored_last = now
        for entry in batch:
            self.at(now + 2 * self.hop + self.log.answer, ANSWERED, entry)
            self.fold(now + self.hop + self.costs.network_hop, entry)
        self.is_storing = False
        if self.waiting:
            self.store(now)

    def answered(self, now, entry):
        node, first, count = entry
        node.goes_on(now, self.feed_cpu)
        node.answered += count
        self.answers.append((now - node.arrival(first + (count - 1) / 2), count))
        self.write(now, node)

    def fold(self, heard, entry):
        """The projector takes an entry in, for the next frame that leaves after it."""
        count = entry[2]
        seconds = self.costs.projector_entry + count * self.costs.projector_fact
        self.folded_at = max(heard, self.folded_at) + seconds
        self.behind_max = max(self.behind_max, self.folded_at - heard)
        self.folding.append(self.folded_at)
        while self.folding[0] <= heard:
            self.folding.popleft()
        self.behind_entries_max = max(self.behind_entries_max, len(self.folding))
        if self.folded_at > self.frame_at:
            self.frame = []
            self.frame_at = max(self.folded_at, self.frame_at + sizes.FRAME_EVERY)
            self.at(self.frame_at, FRAME, self.frame)
        self.frame.append((entry, heard))

    def publish(self, now, frame):
        """A frame leaves for all nodes, in several messages if it is large."""
        setting, costs = self.setting, self.costs
        of_entry = sizes.came_bytes if setting.is_return else sizes.delta_bytes
        body = sum(of_entry(setting.people, entry[2]) for entry, _ in frame)
        messages = -(-body // sizes.FRAME_BYTES_MAX)
        written = body + messages * (sizes.head_bytes(setting.people) + sizes.PACKET_BYTES)
        self.frames += messages
        self.feed_bytes += written
        direct = setting.relays or setting.nodes
        seconds = max(messages * direct / costs.deliveries, written * direct / costs.nic)
        self.fan_busy += seconds
        self.fanned_at = max(now, self.fanned_at) + seconds
        heard = self.fanned_at + self.hop + costs.network_hop
        if setting.relays:
            heard += messages * -(-setting.nodes // setting.relays) / costs.deliveries
        joins = sum(entry[2] for entry, _ in frame)
        cpu = messages * costs.feed_frame + (0 if setting.is_return else joins * costs.replica_join)
        self.feed_cpu += cpu / setting.cores
        for entry, stored in frame:
            self.show(max(heard, stored + self.log.answer), entry)

    def show(self, when, entry):
        node, first, count = entry
        begin, end = node.tells_from(when, count)
        self.shown.append(((begin + end) / 2 - node.arrival(first + (count - 1) / 2), count, end))

    # What came of it.

    def shown_last(self):
        return max(end for _, _, end in self.shown)

    def figures(self):
        """What is to be said about it."""
        setting, last = self.setting, self.shown_last()
        return {
            "answered_last_s": self.stored_last + 2 * self.hop + self.log.answer,
            "shown_last_s": last,
            "answer_p50_ms": 1e3 * percentile(self.answers, 0.5),
            "answer_p99_ms": 1e3 * percentile(self.answers, 0.99),
            "entries_per_s": self.entries / self.stored_last,
            "joins_per_entry": setting.people / self.entries,
            "log_mb_per_s": self.log_bytes / self.stored_last / 1e6,
            "log_mb": self.log_bytes / 1e6,
            "feed_kb_per_s_a_node": self.feed_bytes / last / 1e3,
            "feed_mb_per_s": self.feed_bytes / last * setting.nodes / 1e6,
            "deliveries_per_s": self.frames / last * setting.nodes,
            "waiting_max": self.waiting_max,
            "behind_max_s": self.behind_max,
            "behind_entries_max": self.behind_entries_max,
            "answer_max_s": max(seconds for seconds, _ in self.answers),
        }

    def feed_cpu_seconds(self):
        return self.feed_cpu * self.setting.cores

    def sent_bytes(self):
        """What the log's server sends: each entry to its two readers, and the frames."""
        return 2 * self.log_bytes + self.feed_bytes * (self.setting.relays or self.setting.nodes)


def percentile(weighted, share):
    """Of (value, count) the value that this share of all is not above."""
    left = share * sum(one[1] for one in weighted)
    for one in sorted(weighted):
        left -= one[1]
        if left <= 0:
            return one[0]
    raise AssertionError("nobody is counted")


# Of those on one pusher so many are followed, each for many.
FOLLOWED = 500
# Walks until nobody remembers the beginning, and until what is counted is steady, in seconds of the line.
WARM_UP, WATCHED = 6.0, 26.0


@dataclass(frozen=True)
class Telling:
    """What it takes to tell everyone while the line moves without a stop, and of one move."""

    # From the news at the node until its last one is told, after a quiet moment.
    last_told: float
    # The oldest that a told number was when the next one came.
    oldest: float
    pushes: float
    cores: float
    looks_share: float


def pause_of(ahead):
    if ahead <= sizes.FRONT_PLACES:
        return 0.0
    return next((pause for places, pause in sizes.PAUSES if ahead <= places), sizes.PAUSE_MAX)


def tell(people, nodes, cores, costs, seed=SEED):
    """One pusher with its share of everybody, who are all to hear of a line that moves all the time: its
    first walk tells everyone, and then each is told when their pause is over (src/node/hall/row.rs)."""
    draw = random.Random(seed)
    sockets = people / nodes / cores
    weight = sockets / FOLLOWED
    pauses = [pause_of((number + 0.5) * people / FOLLOWED) for number in range(FOLLOWED)]
    pauses = [pause * (1 + draw.random() / sizes.JITTER) for pause in pauses]
    told_at = [-math.inf] * FOLLOWED
    now, last_told, oldest, pushes, looks, busy = 0.0, None, 0.0, 0, 0, 0.0
    while now < WARM_UP + WATCHED:
        began = now
        for number, pause in enumerate(pauses):
            now += weight * costs.look
            is_told = now - told_at[number] >= pause
            if is_told:
                now += weight * costs.push
            if began > WARM_UP:
                looks += weight
                pushes += weight * is_told
                if is_told:
                    oldest = max(oldest, now - told_at[number])
            if is_told:
                told_at[number] = now
        last_told = last_told or now
        if began > WARM_UP:
            busy += now - began
        now = max(now, began + sizes.WALK_EVERY)
    watched = now - WARM_UP
    return Telling(
        last_told=last_told,
        oldest=oldest,
        pushes=pushes / watched * nodes * cores,
        cores=busy / watched * nodes * cores,
        looks_share=looks * costs.look / busy,
    )
