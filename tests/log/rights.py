#!/usr/bin/env python3
"""The rights matrix of nats.conf, tried for real.

Starts a nats-server from the template (free port, temporary directory), lets
every role do what it must, then everything it must not, and reads the streams
as operator to see that nothing was written but what should be.

It runs twice: with the template as it is, and with the users' permissions cut
out, to show that the accounts alone already hold the walls.

    rights.py [--server PATH] [--conf PATH] [-v]

Needs nats-py, and nats-server on PATH. Exits 1 on any surprise.
"""
import argparse, asyncio, base64, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time
import nats

HERE = os.path.dirname(os.path.abspath(__file__))
ROLES = ["node", "projector", "admission", "auditor"]
API = "$JS.API."
QUEUES = ["demo", "other"]
FORGED = b"FORGED"


def stream_config(q):
    return dict(name=f"ANTEROOM_{q}", subjects=[f"anteroom.log.{q}.>"], storage="file",
                retention="limits", discard="new", deny_delete=True, deny_purge=True,
                allow_direct=True, duplicate_window=120_000_000_000, num_replicas=1,
                republish=dict(src=f"anteroom.log.{q}.>", dest=f"anteroom.stored.{q}.>"))


def cut_permissions(conf):
    """Remove every `permissions: { ... }` block, by counting braces."""
    out, i = "", 0
    while (j := conf.find("permissions: {", i)) >= 0:
        out += conf[i:j]
        k, depth = conf.index("{", j), 0
        while True:
            depth += {"{": 1, "}": -1}.get(conf[k], 0)
            k += 1
            if depth == 0:
                break
        i = k
    return out + conf[i:]


class Server:
    def __init__(self, binary, conf, edit=lambda c: c):
        self.dir = tempfile.mkdtemp(prefix="anteroom-rights-")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        values = dict(SERVER_NAME="rights", LISTEN_HOST="127.0.0.1", LISTEN_PORT=str(self.port),
                      STORE_DIR=self.dir + "/js",
                      **{f"{r.upper()}_PASSWORD": "pw-" + r for r in ROLES + ["operator"]})
        text = open(conf).read()
        for k, v in values.items():
            text = text.replace("{{%s}}" % k, v)
        if left := re.findall(r"{{[A-Z_]+}}", text):
            raise SystemExit(f"placeholders left in the template: {left}")
        self.conf = self.dir + "/nats.conf"
        open(self.conf, "w").write(edit(text))
        self.log = self.dir + "/log"
        self.proc = subprocess.Popen([binary, "-c", self.conf, "-l", self.log])
        for _ in range(200):
            if self.proc.poll() is not None:
                raise SystemExit("nats-server did not start:\n" + open(self.log).read())
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)

    def stop(self):
        self.proc.terminate()
        self.proc.wait()
        shutil.rmtree(self.dir)


class Role:
    """A connection, and the violations the server told it of."""

    def __init__(self, name):
        self.name, self.errors, self.heard = name, [], []

    async def open(self, port):
        async def error(e):
            self.errors.append(str(e).lower())
        self.nc = await nats.connect(f"nats://127.0.0.1:{port}", user=self.name, password="pw-" + self.name,
                                     error_cb=error, allow_reconnect=False)
        return self

    async def ask(self, subject, body=b"", headers=None, timeout=2):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            m = await self.nc.request(subject, body, timeout=timeout, headers=headers)
        except nats.errors.NoRespondersError:
            return "503", {}, None
        except nats.errors.TimeoutError:
            return "timeout", {}, None
        h = {str(getattr(k, "value", k)): v for k, v in (m.headers or {}).items()}
        return h.get("Status", "ok"), h, m.data

    async def api(self, what, body=b""):
        s, _, d = await self.ask(API + what, body)
        return json.loads(d) if d else {"status": s}

    async def batch(self, q, seq=1):
        """All records from seq on, by batched direct gets of 500."""
        got = []
        while True:
            inbox = self.nc.new_inbox()
            sub = await self.nc.subscribe(inbox)
            await self.nc.publish(f"{API}DIRECT.GET.ANTEROOM_{q}", json.dumps(
                dict(seq=seq, next_by_subj=">", batch=500, max_bytes=1000000)).encode(), reply=inbox)
            while True:
                m = await sub.next_msg(timeout=2)
                # Not by "Status" alone: a writer may put that header on a record.
                if "Nats-Subject" not in (m.headers or {}):
                    break
                got.append((int(m.headers["Nats-Sequence"]), m.headers["Nats-Subject"], m.data))
            await sub.unsubscribe()
            if m.headers["Status"] != "204" or m.headers["Nats-Num-Pending"] == "0":
                return got
            seq = got[-1][0] + 1

    async def listen(self, subject):
        async def heard(m):
            self.heard.append((m.subject, m.data, m.headers))
        await self.nc.subscribe(subject, cb=heard)
        await self.nc.flush()

    def denied(self, verb, subject):
        return any(f"permissions violation for {verb}" in e and f'"{subject.lower()}"' in e for e in self.errors)


class Table:
    def __init__(self, verbose):
        self.rows, self.bad, self.verbose = {}, [], verbose

    def check(self, role, group, what, good, seen=""):
        n = self.rows.setdefault((group, role), [0, 0])
        n[not good] += 1
        if not good:
            self.bad.append(f"{role}: {group}: {what}: {seen}")
        if self.verbose:
            print(f"   {'ok ' if good else 'BAD'} {role:10} {group}: {what} {seen}")

    def show(self, title):
        roles = ["anyone"] + ROLES + ["operator"]
        groups = list(dict.fromkeys(g for g, _ in self.rows))
        print(f"\n{title}\n{'':44}" + "".join(f"{r:>11}" for r in roles))
        for g in groups:
            cells = ""
            for r in roles:
                ok, bad = self.rows.get((g, r), (0, 0))
                cells += f"{f'{bad} BAD/{ok + bad}' if bad else f'{ok} ok' if ok else '.':>11}"
            print(f"{g:44}{cells}")


# What each role may publish or request; everybody else's attempt must fail.
READ = [API + "DIRECT.GET.ANTEROOM_demo", API + "DIRECT.GET.ANTEROOM_demo.anteroom.log.demo.node.joined"]
LIST = [API + "STREAM.NAMES", API + "STREAM.INFO.ANTEROOM_demo"]
MAY = {
    "node": {"anteroom.log.other.node.joined", "anteroom.ask.demo.seen", "anteroom.ask.demo.verify",
             "anteroom.gate.demo.hello", "anteroom.beat.node.x", API + "STREAM.MSG.GET.ANTEROOM_demo"},
    "projector": {"anteroom.feed.demo", "anteroom.beat.projector.x",
                  "anteroom.rebuild.demo", "anteroom.ask.demo.verify",
                  API + "STREAM.MSG.GET.ANTEROOM_demo", *READ, *LIST},
    "admission": {"anteroom.log.other.admission.opened", "anteroom.ask.demo.seen", "anteroom.ask.demo.verify",
                  "anteroom.beat.admission.x", API + "STREAM.CREATE.ANTEROOM_demo",
                  API + "STREAM.MSG.GET.ANTEROOM_demo", *READ, *LIST},
    "auditor": {"anteroom.ask.demo.verify", API + "INFO", API + "STREAM.LIST",
                API + "STREAM.MSG.GET.ANTEROOM_demo", *READ, *LIST},
}
S = "ANTEROOM_demo"
DELIVER = "anteroom.log.other.node.joined"
CONSUMER = dict(stream_name=S, config=dict(deliver_subject=DELIVER, ack_policy="none",
                                           deliver_policy="all", replay_policy="instant"))
DURABLE = dict(stream_name=S, config={**CONSUMER["config"], "durable_name": "d"})
PULL = dict(stream_name=S, config=dict(ack_policy="none", deliver_policy="all", name="c", mem_storage=True))
# The administration, and subjects of the server itself: closed to every role.
ADMIN = {
    API + f"STREAM.UPDATE.{S}": {**stream_config("demo"), "deny_purge": False, "deny_delete": False},
    API + f"STREAM.DELETE.{S}": b"", API + f"STREAM.PURGE.{S}": b"",
    API + f"STREAM.MSG.DELETE.{S}": {"seq": 1},
    API + "STREAM.RESTORE.ANTEROOM_new": {"config": stream_config("new"), "state": {}},
    API + f"STREAM.SNAPSHOT.{S}": {"deliver_subject": DELIVER},
    API + f"STREAM.LEADER.STEPDOWN.{S}": b"", API + f"STREAM.PEER.REMOVE.{S}": {"peer": "x"},
    API + f"CONSUMER.CREATE.{S}": CONSUMER, API + f"CONSUMER.CREATE.{S}.c": PULL,
    API + f"CONSUMER.CREATE.{S}.c.anteroom.log.demo.>": PULL,
    API + f"CONSUMER.DURABLE.CREATE.{S}.d": DURABLE,
    API + f"CONSUMER.MSG.NEXT.{S}.pull": b"1", API + f"CONSUMER.DELETE.{S}.pull": b"",
    API + f"CONSUMER.PAUSE.{S}.pull": {"pause_until": "2099-01-01T00:00:00Z"},
    API + f"CONSUMER.RESET.{S}.pull": {"seq": 1}, API + f"CONSUMER.UNPIN.{S}.pull": {"group": "g"},
    API + f"CONSUMER.NAMES.{S}": b"", API + f"CONSUMER.LIST.{S}": b"", API + f"CONSUMER.INFO.{S}.pull": b"",
    API + "META.LEADER.STEPDOWN": b"", API + "SERVER.REMOVE": {"peer": "x"}, API + "ACCOUNT.PURGE.LOG": b"",
    f"$JS.ACK.{S}.pull.1.1.1.1.0": b"+NXT", "$JS.FC.x": b"", "$SYS.REQ.SERVER.PING": b"",
    "$SYS.REQ.ACCOUNT.LOG.JSZ": b"", "$SYS.REQ.SERVER.PING.JSZ": b"", "$SYS.REQ.SERVER.rights.RELOAD": b"",
    "anteroom.log.demo.forger.joined": FORGED, "anteroom.log.demo.node": FORGED,
    "anteroom.log.demo.node.a.b": FORGED, "anteroom.stored.demo.node.joined": FORGED,
    "_R_.forged.forged": FORGED,
}
# With the permissions cut out, a role may ask the services of its own account,
# and $JS.API.INFO (counts only), which every account has to import.
OWN = {"node": {API + "INFO"}, "auditor": set(),
       "projector": {API + "INFO", "anteroom.ask.demo.seen", "anteroom.ask.demo.verify",
                     "anteroom.rebuild.demo"},
       "admission": {API + "INFO", "anteroom.gate.demo.hello"}}
TARGETS = ["anteroom.log.other.node.joined", "anteroom.log.other.admission.opened", "anteroom.log.other.x.y",
           "anteroom.stored.other.node.joined", "anteroom.feed.other", "anteroom.beat.node.forged",
           "anteroom.gate.demo.hello", "anteroom.rebuild.demo", API + "STREAM.PURGE.ANTEROOM_other",
           API + "STREAM.DELETE.ANTEROOM_other", API + "CONSUMER.CREATE.ANTEROOM_other"]
HEAR = {  # what each role may subscribe to; the rest is refused, or stays silent
    "node": ["anteroom.feed.*"], "projector": ["anteroom.stored.>", "anteroom.ask.*.*", "anteroom.rebuild.*"],
    "admission": ["anteroom.stored.>", "anteroom.gate.*.*", "anteroom.beat.>"], "auditor": ["anteroom.stored.>"],
}
TRY_HEAR = [">", "anteroom.>", "anteroom.log.>", "anteroom.stored.>", "anteroom.feed.*", "anteroom.ask.*.*",
            "anteroom.rebuild.*",
            "anteroom.gate.*.*", "anteroom.beat.>", "_R_.>", "$JS.>", API + "STREAM.CREATE.*", "$SYS.>",
            "$JS.EVENT.>"]


async def scenario(server, fenced, t):
    R = {r: await Role(r).open(server.port) for r in ROLES + ["operator"]}
    no, pr, ad, au, op = (R[r] for r in ["node", "projector", "admission", "auditor", "operator"])

    # -- who may connect
    for what, kw in [("no password", {}), ("wrong password", dict(user="node", password="x")),
                     ("unknown user", dict(user="sys", password="x")), ("user admin", dict(user="admin", password="admin"))]:
        async def quiet(e): pass
        try:
            nc = await nats.connect(f"nats://127.0.0.1:{server.port}", allow_reconnect=False, max_reconnect_attempts=0,
                                    error_cb=quiet, **kw)
            await nc.close()
            t.check("anyone", "connects only with a password", what, False, "connected")
        except Exception as e:
            t.check("anyone", "connects only with a password", what, True, type(e).__name__)

    # -- nobody there: fails fast
    g = "no responder: fails fast (503)"
    for r, subjects in [(no, ["anteroom.ask.demo.seen", "anteroom.gate.demo.hello", "anteroom.log.nowhere.node.joined"]),
                        (ad, ["anteroom.ask.demo.seen"]), (au, ["anteroom.ask.demo.verify"])]:
        for s in subjects:
            t0 = time.perf_counter()
            got = (await r.ask(s, b"{}"))[0]
            ms = (time.perf_counter() - t0) * 1e3
            t.check(r.name, g, s, got == "503" and ms < 500, f"{got} in {ms:.1f} ms")

    # -- what each role must be able to do
    g = "its own work: streams"
    for q in QUEUES:
        a = await ad.api(f"STREAM.CREATE.ANTEROOM_{q}", stream_config(q))
        t.check("admission", g, f"create {q}", a.get("did_create") is True, str(a)[:120])
    a = await ad.api("STREAM.CREATE.ANTEROOM_demo", stream_config("demo"))
    t.check("admission", g, "create again, same config: fine", a.get("config", {}).get("name") == S, str(a)[-200:])
    a = await ad.api("STREAM.CREATE.ANTEROOM_demo", {**stream_config("demo"), "deny_purge": False})
    t.check("admission", g, "create again, other config: 10058", a.get("error", {}).get("err_code") == 10058, str(a))
    for r in (pr, ad, au):
        a = await r.api("STREAM.NAMES")
        t.check(r.name, g, "names", sorted(a.get("streams") or []) == ["ANTEROOM_demo", "ANTEROOM_other"], str(a))
        a = await r.api("STREAM.INFO.ANTEROOM_demo")
        t.check(r.name, g, "info", a.get("config", {}).get("name") == "ANTEROOM_demo", str(a)[:120])
    js = au.nc.jetstream()
    t.check("auditor", g, "list", [s.config.name for s in await js.streams_info()].__len__() == 2)

    g = "its own work: appends"
    for r in (pr, ad, au):
        await r.listen("anteroom.stored.>")
    j = "anteroom.log.demo.node.joined"
    s, h, d = await no.ask(j, b"one", {"Nats-Msg-Id": "m1", "X-A": "1"})
    t.check("node", g, "PubAck", d and json.loads(d) == {"stream": S, "seq": 1}, str(d))
    s, h, d = await no.ask(j, b"one", {"Nats-Msg-Id": "m1"})
    t.check("node", g, "duplicate", d and json.loads(d).get("duplicate") is True and json.loads(d)["seq"] == 1, str(d))
    fence = {"Nats-Expected-Last-Subject-Sequence-Subject": "anteroom.log.demo.admission.*"}
    o = "anteroom.log.demo.admission.opened"
    s, h, d = await ad.ask(o, b"two", {**fence, "Nats-Expected-Last-Subject-Sequence": "0"})
    t.check("admission", g, "fenced PubAck", d and json.loads(d).get("seq") == 2, str(d))
    s, h, d = await ad.ask(o, b"no", {**fence, "Nats-Expected-Last-Subject-Sequence": "0"})
    t.check("admission", g, "fenced, refused: 10071", d and json.loads(d).get("error", {}).get("err_code") == 10071, str(d))
    want = {"demo": [(1, j, b"one"), (2, o, b"two")], "other": []}
    for r in (pr, ad, au):
        hs = [x[2] for x in r.heard]
        t.check(r.name, g, "heard as stored, with sequence and time", [x[:2] for x in r.heard] == [
            ("anteroom.stored.demo.node.joined", b"one"), ("anteroom.stored.demo.admission.opened", b"two")]
            and [x["Nats-Sequence"] for x in hs] == ["1", "2"] and all("Nats-Time-Stamp" in x for x in hs)
            and hs[0]["X-A"] == "1" and "Nats-Request-Info" not in hs[0], str(r.heard))

    g = "its own work: history"
    for i in range(600):
        await no.nc.publish("anteroom.log.demo.node.filler", b"%d" % i)
        want["demo"].append((3 + i, "anteroom.log.demo.node.filler", b"%d" % i))
    await no.ask("anteroom.log.demo.node.filler", b"last")
    want["demo"].append((603, "anteroom.log.demo.node.filler", b"last"))
    for r in (no, pr, ad, au):
        got = await r.api("STREAM.MSG.GET.ANTEROOM_demo", json.dumps({"seq": 1, "next_by_subj": j}).encode())
        got = got.get("message", {})
        t.check(r.name, g, "one of the leader, with its headers", base64.b64decode(got.get("data", "")) == b"one"
                and b"Nats-Msg-Id: m1" in base64.b64decode(got.get("hdrs", "")), str(got))
    for r in (pr, ad, au, op):
        got = await r.batch("demo")
        t.check(r.name, g, "batched direct get of 603", got == want["demo"], f"{len(got)}")
        s, h, d = await r.ask(API + "DIRECT.GET.ANTEROOM_demo", {"seq": 1})
        t.check(r.name, g, "direct get of one", d == b"one" and h.get("Nats-Sequence") == "1", str((s, h, d)))
        s, h, d = await r.ask(API + "DIRECT.GET.ANTEROOM_demo", {"seq": 9999})
        t.check(r.name, g, "direct get of none: 404", s == "404", str((s, h, d)))
    for kw in ({}, {"direct": True}):
        m = await js.get_msg(S, 1, **kw)
        t.check("auditor", g, f"nats-py get_msg {kw}", m.data == b"one" and m.seq == 1)
        m = await js.get_last_msg(S, j, **kw)
        t.check("auditor", g, f"nats-py get_last_msg {kw}", m.data == b"one")
    t.check("auditor", g, "nats-py stream_info", (await js.stream_info(S)).state.messages == 603)

    g = "its own work: ask, gate, feed, beats"
    seen = []
    async def answer(m):
        seen.append(m.headers)
        await m.respond(b"A " + m.subject.encode())
    await pr.nc.subscribe("anteroom.ask.*.*", cb=answer); await pr.nc.flush()
    await ad.nc.subscribe("anteroom.gate.*.*", cb=answer); await ad.nc.flush()
    for r, s in [(no, "anteroom.ask.demo.seen"), (no, "anteroom.gate.demo.hello"), (ad, "anteroom.ask.demo.seen"),
                 (au, "anteroom.ask.demo.verify")]:
        got = await r.ask(s, b"?")
        t.check(r.name, g, s, got[2] == b"A " + s.encode(), str(got))
        t.check(r.name, g, "asker's account named to the answerer",
                json.loads((seen[-1] or {}).get("Nats-Request-Info", "{}")).get("acc") == r.name.upper(), str(seen[-1:]))
    no.heard.clear(); ad.heard.clear()
    await no.listen("anteroom.feed.*"); await ad.listen("anteroom.beat.>")
    for r, s in [(pr, "anteroom.feed.demo"), (no, "anteroom.beat.node.n"), (pr, "anteroom.beat.projector.p"), (ad, "anteroom.beat.admission.a")]:
        await r.nc.publish(s, b"b", headers={"H": "1"}); await r.nc.flush()
    await asyncio.sleep(.15)
    t.check("node", g, "hears the feed, with headers", [(x[0], (x[2] or {}).get("H")) for x in no.heard] == [("anteroom.feed.demo", "1")], str(no.heard))
    t.check("admission", g, "hears the beats, with headers", sorted((x[0], (x[2] or {}).get("H")) for x in ad.heard) ==
            [(f"anteroom.beat.{x}", "1") for x in ("admission.a", "node.n", "projector.p")], str(ad.heard))

    async def unchanged(role, group):
        """Read both streams and their configuration as operator."""
        await asyncio.sleep(.1)
        names = (await op.api("STREAM.NAMES")).get("streams")
        t.check(role, group, "no other stream", sorted(names) == ["ANTEROOM_demo", "ANTEROOM_other"], str(names))
        for q in QUEUES:
            got = await op.batch(q)
            t.check(role, group, f"{q} unchanged", got == want[q], f"{got[len(want[q]):][:4]}")
            want[q] = got
            a = await op.api(f"STREAM.INFO.ANTEROOM_{q}")
            c, n = a["config"], a["state"]["consumer_count"]
            t.check(role, group, f"{q}: configuration unchanged",
                    all(c[k] == v for k, v in stream_config(q).items()), str(c))
            t.check(role, group, f"{q}: only the operator's consumer", n == (q == "demo"), str(n))

    # A consumer of the operator's, for roles to try to pull from or remove.
    await op.api(f"CONSUMER.DURABLE.CREATE.{S}.pull",
                 dict(stream_name=S, config=dict(durable_name="pull", ack_policy="explicit", deliver_policy="all")))

    # -- publish and request what is not the role's
    everything = dict.fromkeys(set().union(*MAY.values()), FORGED) | ADMIN
    for r in (no, pr, ad, au):
        g = "refused: others' subjects, administration"
        replies, base = {}, r.nc.new_inbox()
        async def took(m, replies=replies):
            replies.setdefault(int(m.subject.rsplit(".", 1)[1]), []).append(m)
        sub = await r.nc.subscribe(base + ".*", cb=took)
        tries = [s for s in sorted(everything) if s not in MAY[r.name]]
        heard = {x: len(R[x].heard) for x in R}
        for i, s in enumerate(tries):
            b = everything[s]
            if API in s and b == FORGED:
                b = b""
            await r.nc.publish(s, b if isinstance(b, bytes) else json.dumps(b).encode(), reply=f"{base}.{i}")
        await r.nc.flush(); await asyncio.sleep(.4); await sub.unsubscribe()
        for i, s in enumerate(tries):
            got = replies.get(i, [])
            st = [(m.headers or {}).get("Status") for m in got]
            ok = r.denied("publish", s) if fenced else True
            # never an answer: only "no responders", or the server's refusal
            ok = ok and (all(x == "503" for x in st) or not fenced and s in OWN[r.name])
            t.check(r.name, g, s, ok, f"denied={r.denied('publish', s)} {st} {[m.data[:60] for m in got]}")
        forged = {x: [h for h in R[x].heard[heard[x]:] if h[1] == FORGED] for x in R if x != r.name}
        t.check(r.name, g, "nobody else heard a forgery", not any(forged.values()), str(forged))
        await unchanged(r.name, "... and the log is as before")

    # -- the reply subject: on all it may send, name a subject that would harm
    for r in (no, pr, ad, au):
        g = "reply subject names a log subject, an API"
        heard = {x: len(R[x].heard) for x in R}
        own = {f"anteroom.log.other.{r.name}.{k}" for k in ("joined", "opened")}
        for s in sorted(MAY[r.name]):
            body = b""
            if s.startswith("anteroom.log."):
                continue  # below
            if "GET." in s and s.endswith(S):
                body = json.dumps({"seq": 1}).encode()
            if "CREATE" in s:
                body = json.dumps(stream_config("demo")).encode()
            for target in TARGETS:
                await r.nc.publish(s, body, reply=target)
                if "DIRECT.GET" in s:
                    await r.nc.publish(s, json.dumps({"seq": 1, "next_by_subj": ">", "batch": 3}).encode(), reply=target)
        await r.nc.flush(); await asyncio.sleep(.4)
        # A role may append to its own part of the log, so an answer sent to
        # its own log subject may be appended: no right it did not have.
        for q in QUEUES:
            got = await op.batch(q)
            extra = got[len(want[q]):]
            foreign = [x for x in extra if not x[1].startswith(f"anteroom.log.{q}.{r.name}.")]
            t.check(r.name, g, f"{q}: nothing foreign", got[:len(want[q])] == want[q] and not foreign, str(extra[:3]))
            if extra:
                t.notes.add(f"{r.name}: an answer whose reply subject is its OWN log subject was appended there ({len(extra)} records)")
            want[q] = got
        news = {x: [h[0] for h in R[x].heard[heard[x]:]] for x in R if x != r.name}
        # What it may say itself it may also be answered on.
        own_words = {no: "anteroom.beat.node.forged", pr: "anteroom.feed.other"}.get(r, "")
        news = {x: [s for s in v if not any(s == "anteroom.stored" + o[len("anteroom.log"):] for o in own)
                    and s not in ("anteroom.beat.%s.x" % r.name, "anteroom.feed.demo", own_words)]
                for x, v in news.items()}
        t.check(r.name, g, "nobody else heard the answers", not any(news.values()), str(news))
        await unchanged(r.name, g)
    # the PubAck itself, sent to another writer's subject
    for r, s in [(no, "anteroom.log.demo.node.joined"), (ad, "anteroom.log.demo.admission.opened")]:
        g = "reply subject names a log subject, an API"
        foe = "admission" if r is no else "node"
        n = 0
        for target in [f"anteroom.log.other.{foe}.x", "anteroom.log.other.x.y", API + "STREAM.PURGE.ANTEROOM_other"]:
            await r.nc.publish(s, b"three", reply=target); n += 1
        await r.nc.flush(); await asyncio.sleep(.3)
        want["demo"] += [(want["demo"][-1][0] + 1 + i, s, b"three") for i in range(n)]
        await unchanged(r.name, g)

    # -- subscriptions
    for r in (no, pr, ad, au):
        g = "hears nothing that is not its own"
        ear = await Role(r.name).open(server.port)
        for s in TRY_HEAR:
            if s not in HEAR[r.name]:
                await ear.listen(s)
        await asyncio.sleep(.1)
        for s in TRY_HEAR:
            if s not in HEAR[r.name] and fenced:
                t.check(r.name, g, f"subscribe {s} refused", ear.denied("subscription", s), "not refused")
        ear.heard.clear()
        # traffic of all the others
        for x, s in [(no, "anteroom.beat.node.n"), (pr, "anteroom.feed.demo"), (pr, "anteroom.beat.projector.p"),
                     (ad, "anteroom.beat.admission.a")]:
            if x is not r:
                await x.nc.publish(s, b"secret"); await x.nc.flush()
        if r is not no:
            await no.ask("anteroom.ask.demo.seen", b"secret"); await no.ask("anteroom.gate.demo.hello", b"secret")
        await op.ask("anteroom.log.other.op.x", b"secret")
        want["other"].append(((want["other"] or [(0,)])[-1][0] + 1, "anteroom.log.other.op.x", b"secret"))
        await asyncio.sleep(.15)
        may = [re.compile(re.escape(p).replace(r"\*", "[^.]+").replace(">", ".+") + "$") for p in HEAR[r.name]]
        got = [h[0] for h in ear.heard if not any(p.match(h[0]) for p in may) and not h[0].startswith(("_INBOX", "_R_"))]
        if fenced:
            got = [h[0] for h in ear.heard]
        t.check(r.name, g, "silence", not got, str(got[:5]))
        await ear.nc.close()
    await unchanged("operator", "... and the log is as before")

    # -- the operator can do it by hand, but not delete records
    g = "operator, by hand"
    a = await op.api(f"STREAM.MSG.DELETE.{S}", {"seq": 1}); t.check("operator", g, "deny_delete holds", "error" in a, str(a))
    a = await op.api(f"STREAM.PURGE.{S}"); t.check("operator", g, "deny_purge holds", "error" in a, str(a))
    a = await op.api(f"STREAM.UPDATE.{S}", {**stream_config("demo"), "deny_purge": False})
    t.check("operator", g, "deny_purge cannot be lifted", "error" in a, str(a))
    a = await op.api(f"STREAM.UPDATE.{S}", {**stream_config("demo"), "description": "x"})
    t.check("operator", g, "can update", "error" not in a, str(a))

    # -- a reload keeps all this (the API answers once, and truly)
    g = "after a reload of the configuration"
    os.kill(server.proc.pid, signal.SIGHUP); await asyncio.sleep(.5)
    for r in (pr, ad, au):
        box, got = r.nc.new_inbox(), []
        async def took(m, got=got): got.append(m.data)
        sub = await r.nc.subscribe(box, cb=took)
        await r.nc.publish(API + "STREAM.INFO.ANTEROOM_demo", reply=box)
        await r.nc.flush(); await asyncio.sleep(.2); await sub.unsubscribe()
        t.check(r.name, g, "one answer", len(got) == 1 and b"error" not in got[0], str([x[:90] for x in got]))

    # -- known, and left open: whoever may create streams can forge
    q = "forge"
    await ad.api(f"STREAM.CREATE.ANTEROOM_{q}", {**stream_config(q), "republish": dict(
        src=f"anteroom.log.{q}.admission.x", dest="anteroom.log.other.node.joined")})
    await ad.ask(f"anteroom.log.{q}.admission.x", FORGED)
    await asyncio.sleep(.2)
    hit = [x for x in await op.batch("other") if x[2] == FORGED]
    t.notes.add("KNOWN HOLE: STREAM.CREATE lets admission write as node, through a stream that republishes: "
                + (f"demonstrated, {hit}" if hit else "NOT reproduced"))
    for r in R.values():
        await r.nc.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--server", default=shutil.which("nats-server"))
    p.add_argument("--conf", default=os.path.join(HERE, "../../nats.conf"))
    p.add_argument("-v", action="store_true")
    a = p.parse_args()
    if not a.server:
        raise SystemExit("nats-server is not on PATH: tools/nats installs it and prints where")
    bad = []
    for title, fenced, edit in [("The template as it is", True, lambda c: c),
                                ("Accounts alone (users' permissions cut out)", False, cut_permissions)]:
        server, t = Server(a.server, a.conf, edit), Table(a.v)
        t.notes = set()
        try:
            asyncio.run(scenario(server, fenced, t))
        finally:
            server.stop()
        t.show(title)
        for n in sorted(t.notes):
            print("  note:", n)
        bad += [f"[{title}] {b}" for b in t.bad]
    print("\nSURPRISES:\n  " + "\n  ".join(bad) if bad else "\nno surprises")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
