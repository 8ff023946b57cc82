#!/usr/bin/env python3
"""The reader judges every sample of an entry as the folder says that it is in, as the first message of a log."""
import sys
from collections import Counter
from pathlib import Path

from entries import Halt, Void, read
from line import Line

SAMPLES = Path(__file__).resolve().parents[2] / "schemas/samples/event"


def judge(path):
    subject, payload = path.parent.name, path.read_bytes()
    try:
        read(subject, payload)
        # Only who is named and what it rests on can be wrong now, which is no matter of the entry alone.
        Line("demo").apply(1, 0, f"anteroom.log.demo.{subject}", payload)
        return "valid"
    except Void:
        return "void"
    except Halt:
        return "halt"


def main():
    paths = sorted(SAMPLES.glob("*/*/*.json"))
    wrong = [f"{path.relative_to(SAMPLES)} is {judge(path)}" for path in paths if judge(path) != path.parts[-3]]
    counts = Counter(path.parts[-3] for path in paths)
    if wrong or set(counts) != {"valid", "void", "halt"}:
        sys.exit("FAILED:\n" + "\n".join(wrong or ["samples are missing"]))
    print("ok ", ", ".join(f"{count} {case}" for case, count in counts.items()))


if __name__ == "__main__":
    main()
