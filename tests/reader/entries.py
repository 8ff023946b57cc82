"""Judges one message of the log by `schemas/` alone: valid, or void for good."""
import functools
import json
import re
from pathlib import Path

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry, Resource

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas/event"
FIRST_LEVEL = 2
KINDS = {
    "node": ["joined", "reconnected", "disconnected", "left"],
    "admission": ["configured", "admitted", "redeemed", "released", "expired", "removed", "node_lost"],
}
SUBJECTS = {f"{writer}.{kind}" for writer, kinds in KINDS.items() for kind in kinds}


class Void(Exception):
    """Why a message counts nowhere."""


class Halt(Exception):
    """Why a reader must not go on."""


class Object(dict):
    """A JSON object, and the keys that it had more than once."""

    def __init__(self, pairs):
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def read(subject, payload, level=FIRST_LEVEL):
    """The entry that a message holds in a log of this level; `subject` is what follows `anteroom.log.<queue>.`."""
    try:
        return valid(subject, parse(payload), level)
    except RecursionError:
        # No schema has that many objects or lists in one another.
        raise Void("nested too deeply") from None


def is_of_version_1(subject, payload):
    """Whether a decision of version 1 stands here, which has nothing else in common with this one."""
    try:
        value = parse(payload)
    except (Void, RecursionError):
        return False
    version = value.get("v") if is_fenced(subject) and isinstance(value, Object) else None
    return version == 1 and version is not True


def is_fenced(subject):
    """Whether the message moves the fence of admission, be it void or not."""
    return re.fullmatch(r"admission\.[^.]+", subject) is not None


def parse(payload):
    def no_number(text):
        raise ValueError(f"{text} is no JSON")

    try:
        return json.loads(payload.decode(), object_pairs_hook=Object, parse_constant=no_number, parse_int=whole)
    except ValueError as error:
        raise Void(str(error)) from None


def whole(digits):
    # What is longer is beyond every limit, and Python refuses to count thousands of digits.
    return int(digits) if len(digits) < 20 else float(digits)


def valid(subject, value, level):
    if subject not in SUBJECTS:
        raise Void(f"no entry is written on {subject}")
    check_texts(value)
    version = value.get("v") if isinstance(value, Object) else None
    # Neither `true` nor a text is in there, and `2.0` is.
    if version not in range(FIRST_LEVEL, level + 1):
        raise Void(f"v is none of a log of level {level}")
    kind = subject.split(".")[1]
    fault = best_match(validators(int(version))[kind].iter_errors(value))
    if fault:
        raise Void(f"{fault.json_path}: {fault.message}"[:300])
    return kind, value


def check_texts(value):
    """What no schema sees: keys that are there twice, and halves of a surrogate pair."""
    if isinstance(value, Object):
        if value.repeated:
            raise Void(f"keys are there twice: {', '.join(sorted(value.repeated))}")
        for name, inner in value.items():
            check_texts(name)
            check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            check_texts(inner)
    elif isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise Void("a text has half a surrogate pair")


def pattern(_validator, expression, instance, _schema):
    """JSON Schema's `$` is the end of the text, Python's also stands before a last line break."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", expression), instance):
        yield ValidationError(f"{instance!r} is not of the form {expression}")


@functools.cache
def validators(version):
    """For each kind what judges an entry of this version. Versions that only tests know are as the first one."""
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema.json")}
    documents["common.schema.json"]["$defs"]["version"]["const"] = version
    registry = Registry().with_resources((name, Resource.from_contents(it)) for name, it in documents.items())
    validator = extend(Draft202012Validator, {"pattern": pattern})
    return {
        name.split(".")[0]: validator(schema, registry=registry, format_checker=FormatChecker())
        for name, schema in documents.items()
    }
