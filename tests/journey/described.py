"""Holds what the program says, live, against `schemas/http/openapi.json` and `schemas/socket/`."""
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
# References are relative to the file; nothing is fetched from here.
BASE = "file:///schemas/"
DOCUMENTS = {
    BASE + path.relative_to(SCHEMAS).as_posix(): json.loads(path.read_text())
    for folder in ("event", "http", "socket") for path in (SCHEMAS / folder).glob("*.json")
}
REGISTRY = Registry().with_resources(
    (uri, Resource.from_contents(document, default_specification=DRAFT202012)) for uri, document in DOCUMENTS.items()
)
HTTP = BASE + "http/openapi.json"
SERVER = BASE + "socket/server.schema.json"


def check_message(message):
    """A message of a node."""
    check(SERVER, message, f"message {message['type']}")


def check_answer(method, url, status, headers, body):
    """An answer over HTTP: that there may be this one to this call, and its body."""
    path = urlsplit(url).path
    template = next((template for template in DOCUMENTS[HTTP]["paths"] if matches(template, path)), None)
    what = f"{method} {template or path}: {status}"
    if template is None:
        raise SystemExit(f"FAILED: {what} is not described")
    at = ["paths", template, method.lower(), "responses", str(status)]
    answer = found(at)
    if answer is None:
        raise SystemExit(f"FAILED: {what} is not described")
    kind = (headers.get("content-type") or "").split(";")[0]
    if body and kind not in answer.get("content", {}):
        raise SystemExit(f"FAILED: {what} is not described as {kind}")
    if body and kind.endswith("json"):
        check(f"{HTTP}#{pointer([*at, 'content', kind, 'schema'])}", json.loads(body), what)


def matches(template, path):
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path)


def found(at):
    value = DOCUMENTS[HTTP]
    for key in at:
        value = value.get(key)
        if value is None:
            return None
    return value


def pointer(keys):
    return "".join("/" + key.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D") for key in keys)


def check(schema, value, what):
    validator = Draft202012Validator({"$ref": schema}, registry=REGISTRY, format_checker=FormatChecker())
    for fault in validator.iter_errors(value):
        raise SystemExit(f"FAILED: {what} is not as described: {fault.json_path}: {fault.message}")
