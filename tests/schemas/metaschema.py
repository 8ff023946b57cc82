#!/usr/bin/env python3
"""`schemas/http/openapi.json` fits the metaschema of OpenAPI 3.1.

Of the package that has it only that file is used: its code would need a dozen packages more.
"""
import importlib.metadata
import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator

OPENAPI = Path(__file__).resolve().parents[2] / "schemas/http/openapi.json"


def main():
    files = importlib.metadata.files("openapi-spec-validator")
    metaschema = next(file for file in files if file.as_posix().endswith("/v3.1/schema.json"))
    validator = Draft202012Validator(json.loads(metaschema.read_text()))
    faults = list(validator.iter_errors(json.loads(OPENAPI.read_text())))
    if faults:
        sys.exit("FAILED:\n" + "\n".join(f"{fault.json_path}: {fault.message[:200]}" for fault in faults))
    print("ok  openapi.json")


if __name__ == "__main__":
    main()
