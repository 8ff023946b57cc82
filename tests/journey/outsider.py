#!/usr/bin/env python3
"""The whole journey, by a client that shares no code with the program.

Starts `anteroom up` (ANTEROOM_BIN, nats-server on PATH), then: a visitor joins, waits, is let in;
the token is redeemed once; both tokens verify through the JWKS; whoever has no pass is sent to the
waiting page; the auditor's identity reads the stream, comes to the same order and chain as the
program says, and can't write.
"""
import asyncio
import base64
import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid

import jwt
import nats
import websockets

PROGRAM = os.environ.get("ANTEROOM_BIN", "target/debug/anteroom")
WAIT_SECONDS = 60


def call(method, url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


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
            kinds.append(message["type"])
            if message["type"] == "JOINED":
                connection = message["connectionId"]
            if message["type"] == "ADMITTED":
                check("JOINED first, then numbers, then ADMITTED", kinds[0], "JOINED")
                return connection, message["payload"]["token"]


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
    visitor = str(uuid.UUID(bytes=base64.urlsafe_b64decode(connection + "==")[2:18]))

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
    chain = bytes(32)
    for seq, nanos, subject, payload in messages:
        link = chain + seq.to_bytes(8, "big") + nanos.to_bytes(8, "big", signed=True)
        chain = hashlib.sha256(link + subject.encode() + b"\0" + payload).digest()
    return chain.hex()


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
            chain = asyncio.run(journey(json.loads(line)))
            for said in (["audit", "verify", "demo"], ["projection", "verify", "demo"]):
                out = subprocess.run([PROGRAM, *said, "--json", "--dir", f"{folder}/data"],
                                     capture_output=True, check=True, text=True)
                check(f"the same chain as `anteroom {said[0]}` says", json.loads(out.stdout)["chain"], chain)
        finally:
            up.send_signal(signal.SIGTERM)
            ended = up.wait(WAIT_SECONDS)
    check("it stops when asked", ended, 0)


if __name__ == "__main__":
    sys.exit(main())
