"""Bytes of what Anteroom writes, and the bounds that the code sets: what `tools/bench scale` reckons with.

Everything is written out as src/wire writes it, so that a change there is one line here.
"""

import json

# src/wire/event.rs
FACTS_PER_ENTRY_MAX = 1_000
# src/log/append.rs
FACTS_WAITING_MAX = 65_536
# src/wire/feed.rs, in bytes
FRAME_BYTES_MAX = 64 * 1024
PART_BYTES_MAX = 512 * 1024
# src/projection/projector.rs and src/projection/catch_up.rs
FRAME_EVERY = 0.010
LONG_ENTRIES = 2_000
# src/node/mod.rs and src/node/places.rs, in seconds
APPEND_WAIT_MAX = 3
BEHIND_MAX = 2
# src/node/hall/cadence.rs and src/node/hall/row.rs, in seconds
WALK_EVERY = 0.100
FRONT_PLACES = 100
PAUSES = [(1_000, 0.250), (10_000, 1.0)]
PAUSE_MAX = 2.0
JITTER = 4
KEEP_ALIVE, LOOK_EVERY = 15.0, 1.0
# web/room.js: the first of them is waited for at random, up to so many seconds
BACKOFF_FIRST = 0.5
# docs/sockets.md: a process' descriptors (20,000 where this was measured) less 2,000
SOCKETS_MAX = 18_000
# nats.conf; on it are also a projector, an admission worker and an auditor
NATS_CONNECTIONS_MAX, OTHER_CONNECTIONS = 4_096, 3
# README.md: stream_max_bytes; src/node/places.rs: FULL_MILLI, above which nobody new is taken in
STREAM_MAX_BYTES, FULL = 2**30, 0.8

UUID = "01234567-89ab-8def-8123-456789abcdef"
# The thumbprint of a public key.
KID = "k" * 43
SUBJECT = "anteroom.log.concert.node.joined"
# A message of a stream: length, sequence, time, length of the subject, hash; and NATS' own header.
RECORD_BYTES = 4 + 8 + 8 + 2 + 8 + len(f"NATS/1.0\r\nNats-Msg-Id: {UUID}-123456\r\n\r\n")
# Ethernet, IP and TCP with its timestamps.
PACKET_BYTES = 14 + 20 + 32


def text(value):
    return len(json.dumps(value, separators=(",", ":")))


def entry_bytes(facts):
    """An entry of so many joins, as a message of the stream."""
    fact = text({"visitor": UUID, "socket": 123_456, "opened": 1}) + 1
    head = text({"v": 2, "node": UUID, "facts": []})
    return RECORD_BYTES + len(SUBJECT) + head + facts * fact - 1


# What a visitor adds to the log from joining to being let go: joined, admitted, redeemed, released.
LIFE_FACTS = 4
LIFE_BYTES = sum(
    text(fact) + 1
    for fact in [
        {"visitor": UUID, "socket": 123_456, "opened": 1},
        {"visitor": UUID, "jti": UUID, "kid": KID, "seconds": 120},
        {"visitor": UUID, "jti": UUID, "kid": KID, "seconds": 1_800},
        {"visitor": UUID, "jti": UUID, "reason": "session_over", "by": "schedule"},
    ]
)


def push_bytes(waiting):
    """A push to one in the middle of the line, with the frame's header."""
    payload = {"position": waiting // 2 + 1, "count": waiting // 2, "waiting": waiting}
    payload |= {"seconds": waiting // 2, "status": "open"}
    body = text({"type": "QUEUE_UPDATE", "payload": payload})
    return body + (2 if body < 126 else 4)


def varint(number):
    """Bytes of a number in bincode's standard configuration."""
    return 1 if number < 251 else 3 if number < 2**16 else 5 if number < 2**32 else 9


def head_bytes(people):
    """A frame without its deltas: version, stream, three sequences, time, numbers, their count."""
    return 1 + 9 + 3 * varint(people) + 9 + 1 + varint(people) + 3 + 6 + 1 + varint(1_000)


def delta_bytes(people, facts):
    """An entry of joins in the feed: two sequences, the joins, and eight things that are not there."""
    return 2 * varint(people) + 1 + varint(people) + varint(facts) + 1 + 8


def came_bytes(people, facts):
    """An entry of those who come back: node, and the ticket and the socket's number of each."""
    return 2 * varint(people) + 1 + 1 + 16 + varint(facts) + 2 * facts * varint(people) + 7


def snapshot_bytes(waiting):
    """The bitmap, of which a full word takes nine bytes."""
    return 200 + -(-waiting // 64) * 9
