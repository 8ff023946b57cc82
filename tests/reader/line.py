"""Folds the log of a queue as `schemas/README.md` says, and takes its two fingerprints."""
import base64
import datetime
import hashlib

from entries import FIRST_LEVEL, Halt, Void, is_fenced, read

MILLI = 1_000_000
SECOND = 1000 * MILLI
MINUTE = 60 * SECOND
# How far a decision's time may be off without shifting the log's.
TOLERATED = 2 * SECOND
# How far the log's time can go on without a decision, and be carried beyond the servers' clocks by one.
AHEAD_MAX = 5 * SECOND
# Someone who went within this time of their grant did not see it.
UNSEEN = 15 * SECOND
RETURNS_MAX = 65_535
MISSES_MAX = 15

STATES = ["scheduled", "open", "paused", "closed", "deleted"]
WAITING, GRANTED, INSIDE, LEFT, EXPIRED, REMOVED, LAPSED, RELEASED, SESSION_OVER = range(9)
RELEASES = {
    ("lapsed", GRANTED): LAPSED,
    ("released", GRANTED): RELEASED,
    ("released", INSIDE): RELEASED,
    ("session_over", INSIDE): SESSION_OVER,
}
DEFAULT_POLICY = {"rate_per_minute": 60, "token_seconds": 120, "session_seconds": 1800, "reconnect_seconds": 300,
                  "absent": "hold", "missed_turns": 1, "door": "{}"}


class Place:
    """One visitor's place, from the join for good."""

    def __init__(self, fact, seq, node):
        self.visitor, self.joined, self.lane = fact["visitor"], seq, int(fact.get("lane", 0))
        self.hand = self.returns = self.misses = 0
        self.standing, self.grant = WAITING, None
        self.sit(fact, seq, node)

    def sit(self, fact, seq, node):
        """The visitor is present, on this socket."""
        self.node, self.socket, self.opened = node, int(fact["socket"]), int(fact.get("opened", 0))
        self.came, self.absent = seq, None

    def is_awaited(self):
        """Whether there is something left to be present for."""
        return self.standing in (WAITING, GRANTED)


class Grant:
    def __init__(self, fact, seq, now, running):
        self.jti, self.kid, self.seconds = fact["jti"], fact["kid"], int(fact["seconds"])
        self.seq, self.at, self.running = seq, now, running
        self.lapses = running + self.seconds * SECOND
        self.used = None


class Line:
    """What all entries so far come to."""

    def __init__(self, queue, newest_level=FIRST_LEVEL):
        self.prefix = f"anteroom.log.{queue}."
        self.level, self.newest_level = FIRST_LEVEL, newest_level
        self.seq = self.now = self.last_decision = self.outages = self.next_due = 0
        # What is added to store times, and the log's time at the last decision that stood.
        self.shift = self.stood_at = 0
        self.follows = None
        self.policy, self.state, self.reason, self.keys = dict(DEFAULT_POLICY), "scheduled", None, []
        self.presence, self.presence_set, self.secret = "on", 0, None
        # Longer graces than the policy's: running time and seconds.
        self.graces = []
        self.places, self.nodes = {}, []
        self.void = []
        self.chain = bytes(32)

    def apply(self, seq, stored, subject, payload):
        """Applies the next message; `subject` is all of it."""
        link = self.chain + u64(seq) + i64(stored) + subject.encode() + b"\0" + payload
        what = subject.removeprefix(self.prefix)
        try:
            kind, entry = read(what, payload, self.level)
            if "prev" in entry:
                self.check_stands(seq, entry)
                self.seq = seq
                self.pass_time_to_decision(stored, entry)
            else:
                self.seq = seq
                self.pass_time(stored)
            self.apply_entry(kind, entry)
        except Void as why:
            self.seq = seq
            self.pass_time(stored)
            self.void.append({"sequence": seq, "what": f"void entry: {why}"})
        if is_fenced(what):
            self.last_decision = seq
        self.chain = hashlib.sha256(link).digest()

    def check_stands(self, seq, entry):
        if entry["prev"] != self.last_decision:
            raise Void("prev is not the admission entry before it")
        if not entry["prev"] <= entry["basis"] < seq:
            raise Void("basis is not between prev and the entry")
        if "level" in entry and entry["level"] != self.level + 1:
            raise Void("level is not one more than the log's")
        if "level" in entry and entry["level"] > self.newest_level:
            raise Halt(f"level {int(entry['level'])} is not known: this reader is too old")

    def pass_time(self, stored):
        """The time goes on with an entry that is no decision that stands: not far by itself."""
        self.now = max(self.now, min(stored + self.shift, self.bound()))

    def pass_time_to_decision(self, stored, entry):
        before, bound, running = self.now, self.bound(), self.running()
        raw, stated = stored + self.shift, int(entry["now"]) * MILLI
        if abs(stated - raw) <= TOLERATED:
            self.now = max(before, raw, stated)
        else:
            are_both_behind = before - max(stored, raw) > TOLERATED
            limit = before + AHEAD_MAX if are_both_behind else max(stored, raw)
            stated = min(max(stated, before), limit)
            self.shift = stated - stored
            self.now = max(before, stated)
            self.outage(max(0, stated - max(before, raw)))
        if before == bound:
            # Time was withheld: who went at the bound may have gone at any time since.
            for place in self.awaited_places():
                if place.absent is not None and place.absent >= running:
                    place.absent = self.running()
        self.stood_at = self.now

    def bound(self):
        return self.stood_at + AHEAD_MAX

    def running(self):
        return self.now - self.outages

    def order(self):
        return list(self.places)

    def waiting(self):
        return [place.visitor for place in self.places.values() if place.standing == WAITING]

    def present(self):
        return [visitor for visitor in self.waiting() if self.places[visitor].absent is None]

    def apply_entry(self, kind, entry):
        if "level" in entry:
            self.level = int(entry["level"])
            return
        if "node" in entry and entry["node"] not in self.nodes:
            self.nodes.append(entry["node"])
        for index, fact in enumerate(entry["facts"]):
            try:
                getattr(self, kind)(entry, fact)
            except Void as why:
                self.void.append({"sequence": self.seq, "fact": index, "what": str(why)})

    def known(self, fact):
        if fact["visitor"] not in self.places:
            raise Void("unknown visitor")
        return self.places[fact["visitor"]]

    def awaited(self, fact):
        place = self.known(fact)
        if not place.is_awaited():
            raise Void("ended")
        return place

    def granted(self, fact):
        place = self.known(fact)
        if place.grant is None or place.grant.jti != fact["jti"]:
            raise Void("no such grant")
        return place

    def awaited_places(self):
        return [place for place in self.places.values() if place.is_awaited()]

    def went(self, place):
        if place.is_awaited() and place.absent is None:
            place.absent = self.running()

    def joined(self, entry, fact):
        if fact["visitor"] not in self.places:
            self.places[fact["visitor"]] = Place(fact, self.seq, self.nodes.index(entry["node"]))

    def reconnected(self, entry, fact):
        asserted = "basis" in entry
        if asserted and entry["basis"] >= self.seq:
            raise Void("asserted by what was not there yet")
        place = self.awaited(fact)
        hand, opened = int(fact.get("hand", 0)), int(fact.get("opened", 0))
        is_carried = hand == place.hand + 1 and not asserted
        if hand < place.hand:
            raise Void("carried to another hand")
        if hand > place.hand and not is_carried:
            raise Void("not in that hand")
        if not is_carried:
            if opened and place.opened and opened < place.opened:
                raise Void("the client has opened a newer socket")
            is_newer = opened and place.opened and opened > place.opened
            if not is_newer and asserted and place.came > entry["basis"]:
                raise Void("came elsewhere")
        place.hand = hand
        place.sit(fact, self.seq, self.nodes.index(entry["node"]))
        if not asserted:
            place.returns = min(RETURNS_MAX, place.returns + 1)

    def disconnected(self, entry, fact):
        place = self.known(fact)
        if self.presence == "off":
            raise Void("presence is off")
        if (place.node, place.socket) == (self.nodes.index(entry["node"]), fact["socket"]):
            self.went(place)

    def left(self, _entry, fact):
        place = self.awaited(fact)
        if fact.get("hand", 0) != place.hand:
            raise Void("in another hand")
        place.standing = LEFT

    def rate(self):
        rate = int(self.policy["rate_per_minute"])
        return min(rate, self.follows[0]) if self.follows else rate

    def configured(self, _entry, fact):
        before = self.rate()
        self.set(fact)
        owed = self.next_due - self.now
        if self.rate() != before and owed > 0:
            new = interval(self.rate())
            burst = max(1, self.rate() // 600)
            self.next_due = self.now + min(owed * new // interval(before), burst * new)

    def set(self, fact):
        if "policy" in fact:
            before, self.policy = self.policy, DEFAULT_POLICY | fact["policy"]
            self.note_grace(int(before["reconnect_seconds"]), int(self.policy["reconnect_seconds"]))
        elif "state" in fact:
            self.state, self.reason = fact["state"], fact.get("reason")
        elif "keys" in fact:
            self.keys = fact["keys"]
        elif "rate" in fact:
            rate = fact["rate"].get("perMinute")
            self.follows = None if rate is None else (int(rate), self.now)
        elif "outage" in fact:
            self.outage(int(fact["outage"]["seconds"]) * SECOND)
        elif "presence" in fact:
            self.set_presence(fact["presence"])
        elif "secret" in fact:
            self.secret = fact["secret"]["id"]

    def note_grace(self, before, seconds):
        """Whoever is absent keeps the longest grace that was in force since."""
        if seconds < before:
            self.graces.append((self.running(), before))
        self.graces = [
            (noted, longer)
            for index, (noted, longer) in enumerate(self.graces)
            if all(longer > other for other in [seconds, *(later for _, later in self.graces[index + 1:])])
            and noted + longer * SECOND > self.running()
        ]

    def set_presence(self, presence):
        if presence != self.presence:
            self.presence, self.presence_set = presence, self.now
            for place in self.awaited_places():
                place.absent = self.running() if presence == "on" else None

    def outage(self, nanos):
        self.outages = min(self.outages + nanos, 2**63 - 1)
        stood = self.running()
        self.graces = [(min(noted, stood), longer) for noted, longer in self.graces]
        for place in self.awaited_places():
            if place.absent is not None:
                place.absent = min(place.absent, stood)

    def admitted(self, _entry, fact):
        place = self.known(fact)
        if place.standing != WAITING:
            raise Void("not waiting")
        place.standing, place.grant = GRANTED, Grant(fact, self.seq, self.now, self.running())
        self.next_due = max(self.next_due, self.now) + interval(self.rate())

    def redeemed(self, _entry, fact):
        place = self.granted(fact)
        if place.standing == INSIDE:
            raise Void("already redeemed")
        if place.standing != GRANTED:
            raise Void("no such grant")
        place.standing, place.grant.used = INSIDE, (self.seq, self.now, fact)

    def has_missed(self, place):
        """Whether someone who is granted did not see their turn, and is to have another."""
        grant = place.grant
        return (
            grant.lapses <= self.running()
            and place.absent is not None
            and place.absent <= grant.running + UNSEEN
            and place.came < grant.seq
            and place.misses < self.policy["missed_turns"]
        )

    def released(self, entry, fact):
        place, reason = self.granted(fact), fact["reason"]
        if reason == "missed":
            self.missed(place)
            return
        end = RELEASES.get((reason, place.standing))
        if end is None:
            raise Void("no such grant")
        if reason == "lapsed" and self.has_missed(place):
            raise Void("missed their turn")
        if reason == "lapsed" and place.came > entry["basis"]:
            raise Void("came back")
        place.standing = end

    def missed(self, place):
        if place.standing != GRANTED:
            raise Void("no such grant")
        if not self.has_missed(place):
            raise Void("did not miss their turn")
        place.standing, place.grant, place.absent = WAITING, None, self.running()
        place.misses = min(MISSES_MAX, place.misses + 1)

    def expired(self, entry, fact):
        place = self.known(fact)
        if place.standing != WAITING:
            raise Void("not waiting")
        if place.absent is None:
            raise Void("present")
        if place.came > entry["basis"]:
            raise Void("came back")
        place.standing = EXPIRED

    def removed(self, _entry, fact):
        place = self.known(fact)
        if place.standing >= LEFT:
            raise Void("ended")
        place.standing = REMOVED

    def node_lost(self, _entry, fact):
        if fact["node"] not in self.nodes:
            raise Void("unknown node")
        if self.presence == "off":
            raise Void("presence is off")
        node = self.nodes.index(fact["node"])
        for place in self.places.values():
            if place.node == node:
                self.went(place)

    def digest(self):
        policy = self.policy
        parts = [
            text(f"anteroom line {self.level}"),
            u64(self.seq), i64(self.now), i64(self.shift), i64(self.stood_at), u64(self.last_decision),
            maybe(policy.get("opens_at"), instant), maybe(policy.get("closes_at"), instant),
            u32(policy["rate_per_minute"]), maybe(policy.get("max_inside"), u32),
            *(u32(policy[f"{what}_seconds"]) for what in ("token", "session", "reconnect")),
            u8(["hold", "admit"].index(policy["absent"])), u8(policy["missed_turns"]), text(policy["door"]),
            maybe(self.follows, lambda follows: u32(follows[0]) + i64(follows[1])),
            listed(self.graces, lambda grace: i64(grace[0]) + u32(grace[1])),
            u8(["on", "off"].index(self.presence)), i64(self.presence_set),
            u8(STATES.index(self.state)), maybe(self.reason, text), maybe(self.secret, uuid),
            listed(self.keys, lambda key: text(key["kid"]) + base64.urlsafe_b64decode(key["x"] + "=")),
            listed(self.nodes, uuid),
            u64(self.outages), i64(self.next_due), u64(len(self.places)),
            *map(place_bytes, self.places.values()),
        ]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def summary(self):
        """The keys of `anteroom audit verify --json`, and the order itself."""
        grants = [place.grant for place in self.places.values() if place.grant]
        return {
            "level": self.level,
            "sequence": self.seq,
            "entries": self.seq,
            "visitors": len(self.places),
            "waiting": len(self.waiting()),
            "admitted": len(grants),
            "redeemed": sum(grant.used is not None for grant in grants),
            "digest": self.digest(),
            "chain": self.chain.hex(),
            "order": self.order(),
            "inLine": self.waiting(),
            "present": self.present(),
            "void": self.void,
        }


def interval(rate):
    """Nanoseconds between two people at a rate."""
    return -(-MINUTE // rate)


def place_bytes(place):
    return b"".join([
        uuid(place.visitor), u64(place.joined), u64(place.came), u32(place.node), u64(place.socket),
        u32(place.opened), u32(place.hand), u16(place.returns), u8(place.misses), u8(place.lane),
        maybe(place.absent, i64), u8(place.standing), maybe(place.grant, grant_bytes),
    ])


def grant_bytes(grant):
    return b"".join([
        uuid(grant.jti), text(grant.kid), u32(grant.seconds), u64(grant.seq), i64(grant.at), i64(grant.lapses),
        maybe(grant.used, used_bytes),
    ])


def used_bytes(used):
    seq, at, fact = used
    key = maybe(fact.get("key"), bytes.fromhex)
    return u64(seq) + i64(at) + text(fact["kid"]) + u32(fact["seconds"]) + key


def u8(value):
    return int(value).to_bytes(1, "big")


def u16(value):
    return int(value).to_bytes(2, "big")


def u32(value):
    return int(value).to_bytes(4, "big")


def u64(value):
    return int(value).to_bytes(8, "big")


def i64(value):
    return int(value).to_bytes(8, "big", signed=True)


def text(value):
    return u32(len(value.encode())) + value.encode()


def instant(value):
    seconds = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    return i64(round(seconds) * SECOND)


def maybe(value, write):
    return b"\0" if value is None else b"\1" + write(value)


def listed(values, write):
    return u32(len(values)) + b"".join(map(write, values))


def uuid(value):
    return bytes.fromhex(value.replace("-", ""))
