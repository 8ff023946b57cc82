"""Servers that a bench starts: each with a folder and a port of its own, ready when it is entered, and
gone with all that it wrote when it is left. Standard library only."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

IDENTITIES = ["operator", "node", "projector", "admission", "auditor"]
# A server that does not answer within this has failed.
START_WAIT_MAX = 20
# Linux' prctl: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1
PRCTL = ctypes.CDLL(None, use_errno=True).prctl


class Server:
    """A process that listens. Each kind says how it is started (`command`), what it is asked to see that
    it is ready (`hello`), and how the answer begins (`greeting`)."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="anteroom-bench-")
        self.port = free_port()
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.process = popen(self.command(), stdout=self.log, stderr=self.log)
        try:
            self.await_greeting()
        except BaseException:
            self.__exit__()
            raise
        return self

    def await_greeting(self):
        until = time.monotonic() + START_WAIT_MAX
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", self.port), 1) as to:
                    to.sendall(self.hello)
                    if to.recv(len(self.greeting)) == self.greeting:
                        return
            time.sleep(0.02)
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            raise SystemExit(f"{self.process.args[0]} does not start:\n{file.read()}")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class NatsServer(Server):
    """A nats-server with the repository's configuration; when it is not `synced`, with the server's own
    interval between two fsyncs, which is two minutes."""

    hello, greeting = b"", b"INFO "

    def __init__(self, synced):
        self.synced = synced

    def command(self):
        with open("nats.conf", encoding="utf-8") as file:
            conf = file.read()
        always = "  sync_interval: always\n"
        assert always in conf, "nats.conf sets the sync interval in another way"
        if not self.synced:
            conf = conf.replace(always, "")
        values = {f"{identity.upper()}_PASSWORD": f"{identity}-of-a-bench" for identity in IDENTITIES}
        values |= {"SERVER_NAME": "anteroom-bench", "LISTEN_HOST": "127.0.0.1"}
        values |= {"LISTEN_PORT": str(self.port), "STORE_DIR": os.path.join(self.dir, "store")}
        for name, value in values.items():
            conf = conf.replace("{{" + name + "}}", value)
        path = os.path.join(self.dir, "nats.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(conf)
        return ["nats-server", "--config", path]

    def url(self, identity):
        return f"nats://{identity}:{identity}-of-a-bench@127.0.0.1:{self.port}"


class RedisServer(Server):
    """A Redis that appends each write to its file and syncs that as told; with None it has no file."""

    hello, greeting = b"PING\r\n", b"+PONG"

    def __init__(self, appendfsync):
        self.appendfsync = appendfsync

    def command(self):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", self.dir]
        # No snapshots, and no rewriting of the file, which would take turns with what is measured.
        command += ["--save", "", "--auto-aof-rewrite-percentage", "0"]
        if self.appendfsync:
            command += ["--appendonly", "yes", "--appendfsync", self.appendfsync]
        return command

    def address(self):
        return f"127.0.0.1:{self.port}"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def popen(args, before=None, **options):
    """Starts a process that ends no later than this one, however this one ends; in it, something may be
    done before."""

    def prepare():
        end_with_parent()
        if before:
            before()

    return subprocess.Popen([str(arg) for arg in args], preexec_fn=prepare, **options)


def as_batch():
    """For a load: it does not take a core from the servers that it measures, whatever comes."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def end_with_parent():
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
