"""Visitors who stay in line and do as they are told: `anteroom-load hold`; and programs that say what came
of it in the end. Standard library only."""

import json
import os
import subprocess
import time

from children import Child
from program import built
from servers import as_batch

# Those who are far from the front are told every two or three seconds while the line moves: moves of
# one line that are closer together would be told together.
MOVE_GAP_SECONDS = 3.5
# All visitors have joined by then, or the load has failed.
JOIN_WAIT_MAX = 120
# Everyone was told by then, or the load has failed. It has a shorter limit of its own.
TOLD_WAIT_MAX = 60
# A program that does not come to its end within this has failed.
PROGRAM_WAIT_MAX = 180


class Crowd:
    """Everyone of one line, held by one load."""

    def __init__(self, children, built, name, args, before=None):
        program = os.path.join(built, "anteroom-load")
        args = [program, "hold", "--commands", *args]
        self.load = Child(children, name, args, before=before, stdin=subprocess.PIPE)
        self.joined = self.load.said("ready", JOIN_WAIT_MAX)
        self.told_at = time.monotonic()

    def move(self):
        """Somebody at the front leaves: until everyone was told."""
        time.sleep(max(0, self.told_at + MOVE_GAP_SECONDS - time.monotonic()))
        told = self.asked("move", "pushes")
        self.told_at = time.monotonic()
        return told

    def asked(self, command, key):
        """What it answers to a command, which has this key."""
        self.load.tell(command)
        return self.load.said(key, TOLD_WAIT_MAX)

    def end(self):
        """The load's last word, after it has checked what everyone was told."""
        self.load.process.stdin.close()
        said = self.load.line(TOLD_WAIT_MAX)
        code = self.load.process.wait(TOLD_WAIT_MAX)
        if code:
            raise SystemExit(f"{self.load.name} ended with {code}: {said}")
        return json.loads(said)


def said(args):
    """What a program prints in the end, as JSON."""
    program, *rest = [str(arg) for arg in args]
    done = subprocess.run(
        [os.path.join(built(), program), *rest],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PROGRAM_WAIT_MAX,
        preexec_fn=as_batch,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} ended with {done.returncode}: {done.stdout}")
    return json.loads(done.stdout)
