"""Folds the log of a queue as `schemas/README.md` says, and takes its two fingerprints."""
import base64
import datetime
import hashlib

from entries import Void, is_fenced, read

FOLD_VERSION = 2
SECOND = 1_000_000_000
MINUTE = 60 * SECOND

STATES = ["scheduled", "open", "paused", "closed", "deleted"]
WAITING, GRANTED, INSIDE, LEFT, EXPIRED, REMOVED, LAPSED, RELEASED, SESSION_OVER = range(9)
RELEASES = {
    ("lapsed", GRANTED): LAPSED,
    ("released", GRANTED): RELEASED,
    ("released", INSIDE): RELEASED,
    ("session_over", INSIDE): SESSION_OVER,
}
DEFAULT_POLICY = {"rate_per_minute": 60, "token_seconds": 120, "session_seconds": 1800, "reconnect_seconds": 300,
                  "absent": "hold", "allowed_origins": []}


class Place:
    """One visitor's place, from the join for good."""

    def __init__(self, visitor, seq, node, socket):
        self.visitor, self.joined, self.came, self.node, self.socket = visitor, seq, seq, node, socket
        self.standing, self.absent, self.grant = WAITING, None, None

    def is_awaited(self):
        """Whether there is something left to be present for."""
        return self.standing in (WAITING, GRANTED)


class Grant:
    def __init__(self, fact, seq, now, running):
        self.jti, self.kid, self.seconds = fact["jti"], fact["kid"], int(fact["seconds"])
        self.seq, self.at, self.lapses = seq, now, running + self.seconds * SECOND
        self.used = None


class Line:
    """What all entries so far come to."""

    def __init__(self, queue):
        self.prefix = f"anteroom.log.{queue}."
        self.seq = self.now = self.last_decision = self.outages = self.next_due = 0
        self.follows = None
        self.policy, self.state, self.reason, self.keys = dict(DEFAULT_POLICY), "scheduled", None, []
        self.places, self.nodes = {}, []
        self.void = []
        self.chain = bytes(32)

    def apply(self, seq, stored, subject, payload):
        """Applies the next message; `subject` is all of it."""
        link = self.chain + u64(seq) + i64(stored) + subject.encode() + b"\0" + payload
        what = subject.removeprefix(self.prefix)
        try:
            kind, entry = read(what, payload)
            self.seq, self.now = seq, max(self.now, stored)
            self.apply_entry(kind, entry)
        except Void as why:
            self.seq, self.now = seq, max(self.now, stored)
            self.void.append({"sequence": seq, "what": f"void entry: {why}"})
        if is_fenced(what):
            self.last_decision = seq
        self.chain = hashlib.sha256(link).digest()

    def running(self):
        return self.now - self.outages

    def order(self):
        return list(self.places)

    def waiting(self):
        return [place.visitor for place in self.places.values() if place.standing == WAITING]

    def present(self):
        return [visitor for visitor in self.waiting() if self.places[visitor].absent is None]

    def apply_entry(self, kind, entry):
        if "prev" in entry:
            if entry["prev"] != self.last_decision:
                raise Void("prev is not the admission entry before it")
            if not entry["prev"] <= entry["basis"] < self.seq:
                raise Void("basis is not between prev and the entry")
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

    def went(self, place):
        if place.is_awaited() and place.absent is None:
            place.absent = self.running()

    def joined(self, entry, fact):
        if fact["visitor"] not in self.places:
            node = self.nodes.index(entry["node"])
            self.places[fact["visitor"]] = Place(fact["visitor"], self.seq, node, int(fact["socket"]))

    def reconnected(self, entry, fact):
        place = self.awaited(fact)
        place.node, place.socket = self.nodes.index(entry["node"]), int(fact["socket"])
        place.came, place.absent = self.seq, None

    def disconnected(self, entry, fact):
        place = self.known(fact)
        if (place.node, place.socket) == (self.nodes.index(entry["node"]), fact["socket"]):
            self.went(place)

    def left(self, _entry, fact):
        self.awaited(fact).standing = LEFT

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
            self.policy = DEFAULT_POLICY | fact["policy"]
        elif "state" in fact:
            self.state, self.reason = fact["state"], fact.get("reason")
        elif "keys" in fact:
            self.keys = fact["keys"]
        elif "rate" in fact:
            rate = fact["rate"].get("perMinute")
            self.follows = None if rate is None else (int(rate), self.now)
        else:
            self.outage(int(fact["outage"]["seconds"]) * SECOND)

    def outage(self, nanos):
        self.outages += nanos
        stood = self.running()
        for place in self.places.values():
            if place.standing == WAITING and place.absent is not None:
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

    def released(self, _entry, fact):
        place = self.granted(fact)
        end = RELEASES.get((fact["reason"], place.standing))
        if end is None:
            raise Void("no such grant")
        place.standing = end

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
        node = self.nodes.index(fact["node"])
        for place in self.places.values():
            if place.node == node:
                self.went(place)

    def digest(self):
        policy = self.policy
        parts = [
            text(f"anteroom line {FOLD_VERSION}"),
            u64(self.seq), i64(self.now), u64(self.last_decision),
            maybe(policy.get("opens_at"), instant), maybe(policy.get("closes_at"), instant),
            u32(policy["rate_per_minute"]), maybe(policy.get("max_inside"), u32),
            *(u32(policy[f"{what}_seconds"]) for what in ("token", "session", "reconnect")),
            u8(["hold", "admit"].index(policy["absent"])), maybe(policy.get("max_waiting"), u32),
            maybe(policy.get("target"), text), listed(policy["allowed_origins"], text),
            maybe(policy.get("title"), text), maybe(policy.get("content"), text),
            maybe(self.follows, lambda follows: u32(follows[0]) + i64(follows[1])),
            u8(STATES.index(self.state)), maybe(self.reason, text),
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
