"""How many bytes the feed takes while few wait and while many do, and what a snapshot takes.
Standard library only."""

import json
import os
import subprocess

from program import built
from servers import NatsServer, popen

FEW, MANY = 1_000, 1_000_000
# For how long both lines move.
SECONDS, SECONDS_QUICK = 20, 8


def measured(seconds):
    """Two lines of one server that move alike: the ratio of their bytes a second, and of each what was
    heard."""
    anteroom, measure = (os.path.join(built(), name) for name in ["anteroom", "anteroom-measure"])
    # What is measured is no writing, so it need not sync each entry.
    with NatsServer(synced=False) as server:
        args = ["projector", "--nats", server.url("projector"), "--dir", os.path.join(server.dir, "p")]
        projector = popen([anteroom, *args], stdout=server.log, stderr=server.log)
        try:
            args = ["feed", "--nats", server.url("operator"), "--node", server.url("node")]
            args += ["--people", FEW, "--people", MANY, "--seconds", seconds]
            done = subprocess.run([measure, *map(str, args)], stdout=subprocess.PIPE, check=True)
        finally:
            projector.kill()
            projector.wait()
    few, many = json.loads(done.stdout)["lines"]
    ratio = many["bytes_per_second"] / few["bytes_per_second"]
    return {"ratio": ratio, "few": few, "many": many}
