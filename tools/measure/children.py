"""Processes that speak in lines of JSON, as the bench's programs do. Standard library only."""

import contextlib
import json
import signal
import subprocess
import sys
import threading

from servers import popen

# A server that does not say that it listens within this has failed.
START_WAIT_MAX = 60
# From being told to stop to being killed: a node lets its visitors go in order.
STOP_WAIT_MAX = 20


class Child:
    """A process that speaks in lines of JSON, and ends no later than this program."""

    def __init__(self, children, name, args, log=None, before=None, **options):
        self.name, self.log = name, log
        try:
            options = {"stdin": subprocess.DEVNULL, "text": True} | options
            self.process = popen(args, before, stdout=subprocess.PIPE, stderr=log, **options)
        except OSError as error:
            raise SystemExit(f"{name} does not start: {error}") from error
        children.callback(self.stop)

    def tell(self, line):
        # If it has ended, so does what it says.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def said(self, key, wait_max):
        """The next line, which has this key unless something is wrong."""
        line = self.line(wait_max)
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if key in said:
                return said
        raise SystemExit(f"{self.name} said: {line}")

    def line(self, wait_max):
        late = threading.Timer(wait_max, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        if line:
            late.cancel()
            return line.strip()
        code = self.process.wait()
        late.cancel()
        if self.log:
            self.log.seek(0)
            sys.stderr.write(self.log.read())
        why = f"said nothing for {wait_max} s" if code == -signal.SIGKILL else f"ended with {code}"
        raise SystemExit(f"{self.name} {why}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOP_WAIT_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
