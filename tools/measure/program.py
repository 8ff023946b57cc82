"""What every bench does: where its programs are, what it says meanwhile, what it leaves, and how it
ends. Standard library only."""

import json
import os
import signal
import sys


def built():
    """Where the programs are that were built with all optimisations."""
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release")


def note(text):
    print(text, file=sys.stderr, flush=True)


def write_figures(out, file):
    """Writes the figures to the file that was named, if one was."""
    if file:
        with open(file, "w", encoding="utf-8") as to:
            json.dump(out, to, indent=1)
            to.write("\n")


def run(main):
    """Runs a bench so that what it started ends with it, however it is asked to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
