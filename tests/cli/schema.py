"""Validates pipeline files with the JSON Schema that `strata schema` prints, the way an editor does.

    schema.py SCHEMA FILE…        a line for each file: "FILE: ok" or "FILE: PATH: MESSAGE"
    schema.py SCHEMA --examples   every example in the schema is valid where it stands
    schema.py SCHEMA --mutate FILE OUTDIR
                                  writes a copy of FILE for every key, with that key misspelt, and a
                                  line "COPY: ok" or "COPY: PATH: MESSAGE" for each
"""
import copy
import json
import os
import re
import sys

import jsonschema
import yaml


class Loader(yaml.SafeLoader):
    """YAML 1.2, as editors read it; PyYAML alone would take `on` for true and 1e-4 for text."""


Loader.yaml_implicit_resolvers = {}
for tag, first, pattern in [
    ("null", "~nN", r"^(?:~|null|Null|NULL)$"),
    ("null", "", r"^$"),
    ("bool", "tTfF", r"^(?:true|True|TRUE|false|False|FALSE)$"),
    ("int", "-+0123456789", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    ("float", "-+.0123456789", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
]:
    Loader.add_implicit_resolver("tag:yaml.org,2002:" + tag, re.compile(pattern),
                                 list(first) or [""])


def as_json(value):
    """Keys of JSON are text."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    return [as_json(v) for v in value] if isinstance(value, list) else value


def load(path):
    with open(path, encoding="utf-8") as file:
        return as_json(yaml.load(file, Loader))


def verdict(validator, document):
    """"ok", or where the deepest mistake is and what it is."""
    errors = []

    def collect(error):
        if error.context:
            for inner in error.context:
                collect(inner)
        else:
            errors.append(error)

    for error in validator.iter_errors(document):
        collect(error)
    if not errors:
        return "ok"
    worst = max(errors, key=lambda e: len(e.absolute_path))
    return "%s: %s" % ("/".join(map(str, worst.absolute_path)), worst.message[:200])


def walk(schema, path=""):
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            yield from walk(value, path + "/" + key)
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from walk(value, "%s/%d" % (path, i))


def check_examples(schema, resolver):
    count = 0
    for path, node in walk(schema):
        if not isinstance(node.get("examples"), list):
            continue
        for example in node["examples"]:
            jsonschema.Draft7Validator(node, resolver=resolver).validate(example)
            count += 1
    for path, node in walk(schema):
        if "default" in node and set(node) & {"type", "anyOf"}:
            jsonschema.Draft7Validator(node, resolver=resolver).validate(node["default"])
            count += 1
    print(count, "examples and defaults are valid")


def keys_of(document, path=()):
    """Where every key is, and the key."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield path, key
            yield from keys_of(value, path + (key,))
    elif isinstance(document, list):
        for i, value in enumerate(document):
            yield from keys_of(value, path + (i,))


def mutate(validator, path, folder):
    os.makedirs(folder, exist_ok=True)
    original = load(path)
    for number, (where, key) in enumerate(keys_of(original)):
        document = copy.deepcopy(original)
        at = document
        for step in where:
            at = at[step]
        entries = [(k + "q" if k == key else k, v) for k, v in at.items()]
        at.clear()
        at.update(entries)  # in the order they had: the first key of an item is its operator
        name = os.path.join(folder, "%03d.yaml" % number)
        with open(name, "w", encoding="utf-8") as file:
            json.dump(document, file)  # JSON is YAML
        print("%s: %s/%s: %s" % (name, "/".join(map(str, where)), key,
                                 verdict(validator, document)))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    if sys.argv[2] == "--examples":
        check_examples(schema, validator.resolver)
    elif sys.argv[2] == "--mutate":
        mutate(validator, sys.argv[3], sys.argv[4])
    else:
        for path in sys.argv[2:]:
            print("%s: %s" % (path, verdict(validator, load(path))), flush=True)


main()
