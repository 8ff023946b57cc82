#!/usr/bin/env python3
"""Reads the log of a queue and says what it comes to, sharing no code with the program.

    reader.py --nats URL QUEUE    a running system, with the auditor's identity
    reader.py --file FILE...      exported logs

Written from `schemas/` alone, so that whoever doubts the program has something else to ask. Prints one line of
JSON for each log, with the keys of `anteroom audit verify --json` and the visitors by name: `order`, all who ever
had a place, `inLine`, who waits, and `present`, who of those is here. Exits with 1 when a log can't be read to
its end. With `--levels 3` it knows level 3, too, which is as level 2 and there for tests alone.
"""
import argparse
import asyncio
import base64
import calendar
import json
import sys
import time

from entries import FIRST_LEVEL, Halt, is_of_version_1
from line import Line

# Requests under way at the same time.
ASKED_AT_ONCE = 200
DECODER = json.JSONDecoder()


def fold(queue, messages, newest_level):
    """The line after these messages: sequence, store time in nanoseconds, subject, payload."""
    line = Line(queue, newest_level)
    for seq, stored, subject, payload in messages:
        if seq == 1 and is_of_version_1(subject.removeprefix(line.prefix), payload):
            raise Halt("this log is of version 1, which was never released: begin with a new folder")
        if seq != line.seq + 1:
            raise Halt(f"entry {line.seq + 1} is missing; the next one there is {seq}")
        try:
            line.apply(seq, stored, subject, payload)
        except Halt as why:
            raise Halt(f"entry {seq}: {why}") from None
    return line


def nanos(instant):
    """Nanoseconds since 1970 of an RFC 3339 instant in UTC, of which Python keeps only microseconds."""
    whole, _, fraction = instant.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))


async def stored(url, queue):
    """Every message of a queue's stream, read one by one: the auditor may make no consumer."""
    import nats

    client = await nats.connect(url)
    try:
        stream = f"ANTEROOM_{queue}"
        state = (await client.jetstream().stream_info(stream)).state

        async def get(seq):
            reply = await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": seq}).encode())
            answer = json.loads(reply.data)
            if "error" in answer:
                raise Halt(f"entry {seq}: {answer['error']['description']}")
            message = answer["message"]
            return seq, nanos(message["time"]), message["subject"], base64.b64decode(message.get("data", ""))

        messages = []
        for first in range(1, state.last_seq + 1, ASKED_AT_ONCE):
            last = min(first + ASKED_AT_ONCE - 1, state.last_seq)
            messages += await asyncio.gather(*map(get, range(first, last + 1)))
        return messages
    finally:
        await client.close()


def exported(path):
    """Every message of an exported log."""
    with open(path, "rb") as file:
        # Not by Python's own idea of a line, which ends at more than a line feed.
        for line in file.read().split(b"\n"):
            if line:
                yield entry_of(line.decode())


def entry_of(line):
    """One line of an export. The payload is the text that stands there, not what it means."""
    fields, texts, at = {}, {}, skip(line, 0, "{")
    while line[at] != "}":
        name, at = DECODER.raw_decode(line, at)
        start = skip(line, at, ":")
        fields[name], end = DECODER.raw_decode(line, start)
        texts[name] = line[start:end]
        at = skip(line, end, ",")
    payload = texts["data"].encode() if "data" in texts else base64.b64decode(fields["data_base64"])
    return fields["seq"], nanos(fields["time"]), fields["subject"], payload


def skip(text, at, mark):
    """Where the text goes on behind white space, the mark, if it is there, and white space."""
    rest = text[at:].lstrip(" \t\r").removeprefix(mark).lstrip(" \t\r")
    return len(text) - len(rest)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = arguments.add_mutually_exclusive_group(required=True)
    source.add_argument("--nats", nargs=2, metavar=("URL", "QUEUE"))
    source.add_argument("--file", nargs="+")
    arguments.add_argument("--levels", type=int, default=FIRST_LEVEL, metavar="NEWEST")
    chosen = arguments.parse_args()
    try:
        if chosen.nats:
            url, queue = chosen.nats
            print(json.dumps({"queue": queue, **fold(queue, asyncio.run(stored(url, queue)), chosen.levels).summary()}))
        for path in chosen.file or []:
            messages = list(exported(path))
            queue = messages[0][2].split(".")[2] if messages else None
            print(json.dumps({"queue": queue, **fold(queue, messages, chosen.levels).summary()}))
    except Halt as why:
        sys.exit(f"halted: {why}")


if __name__ == "__main__":
    main()
