"""Admission workers that a bench starts, kills, stops and goes on with, in place of that of `anteroom up`.
Standard library only."""

import email.utils
import http.client
import json
import os
import signal
import time
import urllib.error
import urllib.request

from servers import free_port
from system import LOCAL

# A worker that is there answers within this.
ANSWER_WAIT_MAX = 2
# Decisions that were void because another came before them, as a worker counts them.
FENCES_LOST = "anteroom_fences_lost_total"


class Workers:
    """Numbered from 0; all have the identity, the keys and the token that `up` made. What commands of the
    program ask of the operator listener is answered by the first."""

    def __init__(self, system, environments):
        """One worker for each of these, which are set over the environment of the bench."""
        self.system, self.environments = system, environments
        first = system.operator.removeprefix("http://")
        others = [f"{LOCAL}:{free_port()}" for _ in environments[1:]]
        self.addresses = [first, *others]
        self.held, self.fences_lost_before = set(), 0
        # A supervisor would start what is killed again after a pause that grows with each time. One that is
        # stopped does not, and all else that it started runs on.
        self.system.children.callback(system.up.process.send_signal, signal.SIGCONT)
        system.up.process.send_signal(signal.SIGSTOP)
        os.kill(system.pid_of_child("admission"), signal.SIGKILL)
        for number in range(len(environments)):
            self.start(number)
        for number in range(len(environments)):
            self.system.wait(f"admission {number} is ready", lambda number=number: self.is_ready(number))
        self.system.wait("one decides", lambda: self.active() is not None)

    def start(self, number):
        path = self.system.path
        args = ["admission", "--operator-listen", self.addresses[number]]
        args += ["--installation-key-file", path("keys", "installation")]
        args += ["--signing-key-file", path("keys", "signing.pem")]
        args += ["--operator-token-file", path("operator-token")]
        environment = os.environ | self.environments[number]
        self.system.start(f"admission {number}", args, "admission", env=environment)

    def kill(self, number):
        """As `kill -9` does; when it was killed."""
        # What it counted goes with it.
        self.fences_lost_before += self.fences_lost_of(number)
        killed_at = time.time_ns()
        self.system.end(f"admission {number}", signal.SIGKILL)
        return killed_at

    def stop(self, number):
        """It stands still until it is told to go on; when that was."""
        stopped_at = time.time_ns()
        self.system.others[f"admission {number}"].send_signal(signal.SIGSTOP)
        self.held.add(number)
        return stopped_at

    def go_on(self, number):
        self.system.others[f"admission {number}"].send_signal(signal.SIGCONT)
        self.held.discard(number)

    def active(self):
        """The number of a worker that says that it decides, if one does."""
        states = ((number, self.state(number)) for number in range(len(self.addresses)))
        return next((number for number, state in states if state.get("active")), None)

    def is_ready(self, number):
        return self.state(number).get("ready", False)

    def state(self, number):
        """What a worker says of itself; nothing if it does not answer."""
        return {} if number in self.held else readiness(f"http://{self.addresses[number]}")

    def clock_ahead(self, number):
        """By how many seconds the wall clock of a worker is ahead of ours, as it dates its answers."""
        answer = asked(f"http://{self.addresses[number]}/readyz")
        if not answer:
            raise SystemExit(f"admission {number} does not answer")
        return email.utils.parsedate_to_datetime(answer[1]["Date"]).timestamp() - time.time()

    def fences_lost(self):
        """Of all workers there were, each as it said last."""
        return self.fences_lost_before + sum(map(self.fences_lost_of, range(len(self.addresses))))

    def fences_lost_of(self, number):
        answer = asked(f"http://{self.addresses[number]}/metrics", self.system.token)
        lines = answer[0].decode().splitlines() if answer else []
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(FENCES_LOST))


def readiness(operator):
    """What the worker behind an operator listener says of itself; nothing if it does not answer."""
    answer = asked(f"{operator}/readyz")
    return json.loads(answer[0]) if answer else {}


def asked(url, token=""):
    """The body and the headers of an answer, whatever its status; nothing if there is none."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_WAIT_MAX) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.read(), error.headers
    except (OSError, http.client.HTTPException):
        return None
