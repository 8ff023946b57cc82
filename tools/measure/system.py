"""A whole Anteroom with a folder of its own: `anteroom up`, and the further nodes and projectors that a
bench wants beside it. Everything ends no later than the bench. Standard library only."""

import calendar
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from children import START_WAIT_MAX, Child
from servers import free_port, popen

LOCAL = "127.0.0.1"
# Between two looks whether something has come about.
LOOK_EVERY = 0.02
# A process that was asked to stop is gone by then; a node lets its visitors go first.
GONE_WAIT_MAX = 40


class System:
    """Nodes and projectors are numbered from 0, those of `up` being the first."""

    def __init__(self, children, built, nodes=1, projectors=1):
        self.children, self.anteroom = children, os.path.join(built, "anteroom")
        self.dir = children.enter_context(tempfile.TemporaryDirectory(prefix="anteroom-bench-"))
        self.log = children.enter_context(open(self.path("log"), "w+", encoding="utf-8"))
        listen = ["--listen", f"{LOCAL}:0", "--operator-listen", f"{LOCAL}:0"]
        args = [self.anteroom, "up", "--json", "--dir", self.dir, *listen]
        self.up = Child(children, "anteroom up", args, self.log)
        ready = self.up.said("api", START_WAIT_MAX)
        self.apis, self.operator = [ready["api"]], ready["operator"]
        self.token = ready["operatorToken"]
        self.others = {}
        for number in range(1, nodes):
            self.start_node(number)
        for number in range(1, projectors):
            self.start_projector(number)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def start_node(self, number):
        address = f"{LOCAL}:{free_port()}"
        args = ["node", "--listen", address, "--mac-key-file", self.path("keys", "mac")]
        args += ["--installation-key-file", self.path("keys", "installation")]
        self.start(f"node {number}", args, "node")
        self.apis.append(f"http://{address}")
        self.wait(f"node {number} is ready", lambda: status(f"http://{address}/readyz") == 200)

    def start_projector(self, number):
        args = ["projector", "--dir", self.path(f"projection-{number}")]
        self.start(f"projector {number}", args, "projector")

    def start(self, name, args, identity, **options):
        role, *rest = args
        address = ["--nats-file", self.path("run", f"nats-{identity}.url")]
        options = {"stdout": self.log, "stderr": self.log} | options
        process = popen([self.anteroom, role, *address, *rest], **options)
        self.others[name] = process
        self.children.callback(stop, process)

    def pids(self):
        """Of every process, by its name."""
        names = {"nats-server": "nats-server", "admission": "admission"}
        names |= {"projector": "projector 0", "node": "node 0"}
        pids = {name: self.pid_of_child(file) for file, name in names.items()}
        return pids | {name: process.pid for name, process in self.others.items()}

    def pid_of_child(self, name):
        with open(self.path("run", f"{name}.pid"), encoding="utf-8") as file:
            return int(file.read())

    def node_pids(self):
        return [pid for name, pid in sorted(self.pids().items()) if name.startswith("node")]

    def queue(self, name, **policy):
        """Makes a queue in which nobody is let in yet, and waits until every node serves it."""
        settings = [word for key, value in policy.items() for word in ["--set", f"{key}={value}"]]
        self.said("queue", "create", name, *settings)
        self.said("queue", "pause", name)
        for api in self.apis:
            # A node learns of a queue when somebody first asks for it.
            self.wait(f"{name} at {api}", lambda api=api: status(f"{api}/api/queues/{name}") == 200)

    def sockets(self, queue, first=0):
        """The socket of a queue on each node, as the load takes them, beginning with this node."""
        apis = self.apis[first:] + self.apis[:first]
        urls = [f"{api.replace('http', 'ws', 1)}/ws/{queue}" for api in apis]
        return [word for url in urls for word in ["--url", url]]

    def said(self, *args):
        """What a command of the program printed."""
        args = [self.anteroom, *args, "--dir", self.dir, "--json"]
        done = subprocess.run(args, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"anteroom {' '.join(args[1:4])} ended with {done.returncode}: {done.stdout}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def verified(self, queue, visitors):
        """Replays the log; so many must be in it, each once."""
        verdict = self.said("audit", "verify", queue)
        if not verdict["ok"] or verdict["voidCount"] or verdict["visitors"] != visitors:
            raise SystemExit(f"the audit of {queue} with {visitors} visitors: {verdict}")
        return verdict

    def records(self, queue):
        """The whole log, oldest first: of each entry its sequence, when it was stored, in nanoseconds since
        1970, its kind and its payload."""
        file = self.path(f"{queue}.jsonl")
        self.said("audit", "export", queue, "--out", file)
        with open(file, encoding="utf-8") as lines:
            entries = [json.loads(line) for line in lines]
        os.remove(file)
        return [(entry["seq"], nanos(entry["time"]), entry["subject"].rsplit(".", 1)[1], entry["data"])
                for entry in entries]

    def entries(self, queue, kind):
        """The entries of one kind, oldest first: when each was stored, in nanoseconds since 1970, and its
        payload."""
        return [(at, data) for _, at, each, data in self.records(queue) if each == kind]

    def release(self, queue, jti):
        """Someone is no longer inside."""
        request = urllib.request.Request(
            f"{self.operator}/admin/queues/{queue}/release",
            data=json.dumps({"jti": jti}).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START_WAIT_MAX) as answer:
            answer.read()

    def end(self, name, how):
        """Ends a process that this started; how long that took."""
        process = self.others.pop(name)
        begun = time.monotonic()
        process.send_signal(how)
        process.wait(GONE_WAIT_MAX)
        return time.monotonic() - begun

    def wait(self, what, come):
        until = time.monotonic() + START_WAIT_MAX
        while not come():
            if time.monotonic() > until:
                self.log.seek(0)
                raise SystemExit(f"in vain: {what}\n{self.log.read()}")
            time.sleep(LOOK_EVERY)


def stop(process):
    if process.poll() is None:
        process.kill()
        process.wait()


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=START_WAIT_MAX) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def nanos(instant):
    """An RFC 3339 instant in UTC in nanoseconds since 1970."""
    whole, _, rest = instant.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(rest.ljust(9, "0") or 0)


def memory_kib(pid):
    """What a process has for itself (RssAnon), and with what it shares (VmRSS)."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        values = dict(line.split(":", 1) for line in file)
    return tuple(int(values[key].split()[0]) for key in ["RssAnon", "VmRSS"])
