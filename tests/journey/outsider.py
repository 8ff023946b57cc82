#!/usr/bin/env python3
"""The whole journey, by a client that shares no code with the program.

Starts `anteroom up` (ANTEROOM_BIN, nats-server on PATH), then: a visitor joins, waits, is let in;
the token is redeemed once; both tokens verify through the JWKS; whoever has no pass is sent to the
waiting page; the auditor's identity reads the stream and can't write. Then several come, go, come
back and are taken out, and somebody who stole a node's identity writes what nobody may believe.
Whoever reads that log with `tests/reader/` comes to the line that audit and projector say.
All that is said meanwhile is as `schemas/` describes it.
"""
import asyncio
import base64
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import jwt
import nats
import websockets

import described

PROGRAM = os.environ.get("ANTEROOM_BIN", "target/debug/anteroom")
READER = Path(__file__).resolve().parents[1] / "reader/reader.py"
WAIT_SECONDS = 60


def call(method, url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            said = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        said = error.code, error.headers, error.read()
    described.check_answer(method, url, *said)
    return said


def check(what, said, expected):
    if said != expected:
        raise SystemExit(f"FAILED: {what}: {said!r}, not {expected!r}")
    print(f"ok  {what}")


async def let_in(api, queue):
    """From JOIN to the token; the visitor's connection id and the token."""
    async with websockets.connect(f"{api.replace('http', 'ws')}/ws/{queue}") as socket:
        await socket.send(json.dumps({"type": "JOIN", "joinKey": str(uuid.uuid4())}))
        kinds = []
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), WAIT_SECONDS))
            described.check_message(message)
            kinds.append(message["type"])
            if message["type"] == "JOINED":
                connection = message["connectionId"]
            if message["type"] == "ADMITTED":
                check("JOINED first, then numbers, then ADMITTED", kinds[0], "JOINED")
                return connection, message["payload"]["token"]


def visitor_of(connection):
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(connection + "==")[2:18]))


class Visitor:
    """Somebody with a socket, which may come and go."""

    def __init__(self, api, queue):
        self.url = f"{api.replace('http', 'ws')}/ws/{queue}"

    async def say(self, **message):
        await self.socket.send(json.dumps(message))

    async def hear(self, kind):
        """The next message of this kind."""
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), WAIT_SECONDS))
            described.check_message(message)
            if message["type"] == kind:
                return message

    async def join(self):
        self.socket, self.opened = await websockets.connect(self.url), 1
        await self.say(type="JOIN", joinKey=str(uuid.uuid4()), opened=self.opened)
        self.connection = (await self.hear("JOINED"))["connectionId"]
        self.name = visitor_of(self.connection)
        return self

    async def go(self):
        await self.socket.close()

    async def come_back(self):
        self.socket, self.opened = await websockets.connect(self.url), self.opened + 1
        await self.say(type="RECONNECT", connectionId=self.connection, opened=self.opened)
        check("the place knows the socket", (await self.hear("JOINED"))["payload"]["opened"], self.opened)


async def read_stream(auditor, queue):
    """Every message: sequence, store time in nanoseconds, subject, payload."""
    client = await nats.connect(auditor)
    stream = f"ANTEROOM_{queue}"
    last = (await client.jetstream().stream_info(stream)).state.last_seq
    messages = []
    for seq in range(1, last + 1):
        reply = await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": seq}).encode())
        message = json.loads(reply.data)["message"]
        whole, _, fraction = message["time"].rstrip("Z").partition(".")
        seconds = int(datetime.datetime.fromisoformat(f"{whole}+00:00").timestamp())
        nanos = seconds * 1_000_000_000 + int((fraction + "000000000")[:9])
        payload = base64.b64decode(message.get("data", ""))
        messages.append((seq, nanos, message["subject"], payload))
    try:
        await client.jetstream().publish(f"anteroom.log.{queue}.node.joined", b"{}", timeout=1)
        wrote = True
    except (asyncio.TimeoutError, nats.errors.Error):
        wrote = False
    check("the auditor can't write", wrote, False)
    info = await client.jetstream().stream_info(stream)
    check("and nothing was written", info.state.last_seq, last)
    await client.close()
    return messages


async def journey(ready):
    api, queue = ready["api"], "demo"
    connection, token = await let_in(api, queue)
    visitor = visitor_of(connection)

    authorize = f"{api}/api/authorize?queue={queue}"
    status, headers, _ = call("GET", authorize)
    check("without a pass: 403", status, 403)
    check("and the way to the waiting page", headers["location"], f"/waiting/{queue}")
    status, _, body = call("POST", f"{api}/api/tokens/redeem", {"token": token})
    check("the token is redeemed", status, 200)
    answer = json.loads(body)
    status, _, body = call("POST", f"{api}/api/tokens/redeem", {"token": token})
    check("and is not again", (status, json.loads(body)["code"]), (409, "token_already_used"))
    status, headers, _ = call("GET", authorize, headers={"X-Waiting-Token": answer["pass"]})
    check("with the pass: 200", status, 200)
    check("and who it is", headers["x-anteroom-visitor"], visitor)

    keys = jwt.PyJWKClient(f"{api}/.well-known/jwks.json")
    for name, text, kind in [("token", token, "admission+jwt"), ("pass", answer["pass"], "pass+jwt")]:
        key = keys.get_signing_key_from_jwt(text).key
        required = ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"]
        claims = jwt.decode(text, key, algorithms=["EdDSA"], audience=queue, issuer="anteroom",
                            leeway=30, options={"require": required})
        check(f"the {name} verifies through the JWKS", claims["sub"], visitor)
        check(f"the {name} says what it is", jwt.get_unverified_header(text)["typ"], kind)

    messages = await read_stream(ready["auditor"], queue)
    kinds = [subject.rsplit(".", 1)[1] for _, _, subject, _ in messages]
    check("the story in the log", kinds, ["configured", "joined", "admitted", "redeemed"])
    named = [json.loads(payload)["facts"][0]["visitor"] for *_, payload in messages[1:]]
    check("of one visitor", named, [visitor] * 3)
    whole = b"".join(payload for *_, payload in messages)
    secrets = [token.encode(), answer["pass"].encode(), connection.encode()]
    check("without a secret in it", [s for s in secrets if s in whole], [])
    return visitor


async def throng(ready, folder):
    """A line in which all that can happen to a place happens. Gives who waits at the end."""
    api, queue = ready["api"], "demo"
    admin = f"{ready['operator']}/admin/queues/{queue}"

    def operate(what, status, method, path, body=None):
        bearer = {"authorization": f"Bearer {ready['operatorToken']}"}
        said, _, answer = call(method, admin + path, body, bearer)
        check(what, said, status)
        return json.loads(answer or "null")

    operate("the operator pauses", 200, "POST", "/pause", {"reason": "Ein Moment 🙂"})
    check("not without the token", call("GET", admin)[0], 401)
    ann, bob, cid, dan, eve, fay = [await Visitor(api, queue).join() for _ in range(6)]
    await bob.go()
    await cid.say(type="LEAVE")
    check("who leaves has left", (await cid.hear("ENDED"))["payload"]["reason"], "left")
    operate("the operator takes somebody out", 204, "DELETE", f"/visitors/{dan.name}")
    check("who is told so", (await dan.hear("ENDED"))["payload"]["reason"], "removed")
    await eve.go()
    await bob.come_back()
    operate("a policy has faults", 400, "PUT", "", {"rate_per_minute": 0, "weather": "fine"})
    operate("the policy is another", 200, "PUT", "",
            {"rate_per_minute": 6000, "max_inside": 3, "token_seconds": 600, "title": "Ünïcode 🎟"})
    operate("and stays so", 200, "GET", "/stats")
    operate("the log is at the level that all can read", 200, "POST", "/upgrade")
    operate("nobody can read a higher one", 409, "POST", "/upgrade", {"level": 3})
    operate("and there is no way down", 409, "POST", "/upgrade", {"level": 1})
    operate("the operator closes it", 200, "POST", "/close", {"reason": "früh"})
    operate("there is nothing to resume in a closed one", 409, "POST", "/resume")
    operate("the operator opens it again", 200, "POST", "/open")
    operate("the site reports its load", 200, "POST", "/load", {"load": 0.5})
    operate("and not more than all", 400, "POST", "/load", {"load": 1.5})
    tokens = {who: (await who.hear("ADMITTED"))["payload"]["token"] for who in (ann, bob)}
    for _ in range(2):
        key = {"idempotency-key": "2f1d9a70"}
        status, _, body = call("POST", f"{api}/api/tokens/redeem", {"token": tokens[ann]}, key)
        check("redeemed, and again by the same request", status, 200)
    done = operate("somebody is done", 200, "POST", "/release", {"visitor": ann.name})
    check("and named", done, {"released": ann.name})
    operate("but not twice", 404, "POST", "/release", {"visitor": ann.name})
    operate("the site reports no more", 204, "DELETE", "/load")
    operate("the operator pauses again", 200, "POST", "/pause")
    bearer = {"authorization": f"Bearer {ready['operatorToken']}"}
    other = f"{ready['operator']}/admin/queues/other"
    check("another queue, for later", call("PUT", other, {"opens_at": "2190-01-01T00:00:00Z"}, bearer)[0], 201)
    check("is deleted", call("DELETE", other, None, bearer)[0], 204)
    check("for good", call("PUT", other, {}, bearer)[0], 410)
    check("the worker is ready", call("GET", f"{ready['operator']}/readyz")[0], 200)
    await forge(folder, queue, bob.name)
    last = [await Visitor(api, queue).join() for _ in range(2)]
    for who in (ann, bob, fay, last[1]):
        await who.go()
    return last


async def forge(folder, queue, victim):
    """What a thief of a node's identity writes: void for good, or facts that any node may state."""
    client = await nats.connect(Path(folder, "data/run/nats-node.url").read_text().strip())
    node, stranger = str(uuid.uuid4()), str(uuid.uuid4())
    joined = f'"node":"{node}","facts":[{{"visitor":"{stranger}","socket":1}}]'
    for kind, payload in [
        ("joined", '{"v":2,"v":2,' + joined + "}"),
        ("joined", '{"v":1,' + joined + "}"),
        ("joined", '{"v":3,' + joined + "}"),
        ("joined", '{"v":2,"shard":7,' + joined + "}"),
        ("joined", '{"v":2,' + joined),
        ("joined", b'{"v":2,"node":"\xff"}'),
        ("admitted", '{"v":2,"facts":[{"visitor":"' + stranger + '"}]}'),
        ("joined", '{"v":2,"node":"' + node + '\\n","facts":[{"visitor":"' + stranger + '","socket":1}]}'),
        ("left", '{"v":2,"facts":[{"visitor":"' + stranger + '"}]}'),
        ("disconnected", '{"v":2,"node":"' + node + '","facts":[{"visitor":"' + victim + '","socket":1}]}'),
        ("joined", ' {\n"v": 2.0, ' + joined.replace("1}", "90071992547409896e-1}") + "} "),
        ("joined", '{"v":2,' + joined + "}"),
        ("left", '{"v":2,"facts":[{"visitor":"' + stranger + '"},{"visitor":"' + stranger + '"}]}'),
    ]:
        subject = f"anteroom.log.{queue}.node.{kind}"
        payload = payload if isinstance(payload, bytes) else payload.encode()
        answer = json.loads((await client.request(subject, payload)).data)
        if "error" in answer:
            raise SystemExit(f"FAILED: a node may not write on {subject}: {answer['error']}")
    await client.close()


def compare(ready, folder, first, last):
    """Reader, audit and projector at one and the same entry."""
    def run(*command):
        out = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
        if out.returncode != 0:
            raise SystemExit(f"FAILED: {command[1:3]}: {out.stdout}{out.stderr}")
        return json.loads(out.stdout)

    # Whoever went is noted a little later, and each looks at the log at another moment.
    until = time.monotonic() + WAIT_SECONDS
    while True:
        read = run(sys.executable, READER, "--nats", ready["auditor"], "demo")
        audit = run(PROGRAM, "audit", "verify", "demo", "--json", "--dir", f"{folder}/data")
        projection = run(PROGRAM, "projection", "verify", "demo", "--json", "--dir", f"{folder}/data")
        quiet = read["sequence"] == audit["sequence"] == projection["sequence"]
        if quiet and last.name not in read["present"] or time.monotonic() > until:
            break
        time.sleep(0.2)
    print(f"    the log has {read['entries']} entries, {len(read['void'])} void or partly so")
    for key in ("sequence", "entries", "visitors", "waiting", "admitted", "redeemed", "digest", "chain"):
        check(f"the same {key} as `anteroom audit verify` says", read[key], audit[key])
    for key in ("sequence", "digest", "chain"):
        check(f"the same {key} as `anteroom projection verify` says", read[key], projection[key])
    void = [finding["sequence"] for finding in audit["void"]]
    check("the same entries are void", [finding["sequence"] for finding in read["void"]], void)
    check("and there are some", len(void) >= 8, True)
    check("the first who came has the first place", read["order"][0], first)
    check("nobody was overtaken", audit["violations"], [])

    # The same from a file, without a server.
    file = f"{folder}/demo.jsonl"
    written = run(PROGRAM, "audit", "export", "demo", "--out", file, "--json", "--dir", f"{folder}/data")
    check("everything is exported", written["sequence"] >= read["sequence"], True)
    kept = run(sys.executable, READER, "--file", file)
    audit = run(PROGRAM, "audit", "verify", "demo", "--json", "--file", file)
    for key in ("sequence", "visitors", "digest", "chain"):
        check(f"the same {key} from a file", kept[key], audit[key])
    for ending, form in (("jsonl.gz", "jsonl"), ("events.gz", "cloudevents")):
        file = f"{folder}/demo.{ending}"
        run(PROGRAM, "audit", "export", "demo", "--out", file, "--format", form, "--json", "--dir", f"{folder}/data")
        chosen = ("--seq", str(kept["sequence"]))
        again = run(PROGRAM, "audit", "verify", "demo", "--json", "--file", file, *chosen)
        check(f"and from one of {ending}", again["chain"], kept["chain"])
    return read


def main():
    with tempfile.TemporaryDirectory(prefix="anteroom-outsider-") as folder:
        up = subprocess.Popen(
            [PROGRAM, "up", "--json", "--dir", f"{folder}/data", "--listen", "127.0.0.1:0",
             "--operator-listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=open(f"{folder}/log", "w"), text=True)
        try:
            line = up.stdout.readline()
            if not line:
                raise SystemExit("FAILED: it did not start:\n" + open(f"{folder}/log").read())
            ready = json.loads(line)
            first = asyncio.run(journey(ready))
            last = asyncio.run(throng(ready, folder))
            read = compare(ready, folder, first, last[1])
            check("who stays waits, in order", [who.name for who in last], read["inLine"][-2:])
        finally:
            up.send_signal(signal.SIGTERM)
            ended = up.wait(WAIT_SECONDS)
    check("it stops when asked", ended, 0)


if __name__ == "__main__":
    sys.exit(main())
