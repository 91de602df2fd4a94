"""What the services promise to their callers, as plain data that two states of the code can be compared by.

``python -m tests.support.contract DIRECTORY`` writes what the code promises now, a file for each subject.
``python -m tests.support.contract --additions`` writes anew which promises were added since `BEFORE` was written; what is
missing or changed cannot be written away, the test then fails.
"""

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from apps.common.errors import error_catalogue
from apps.ledger.kinds import KINDS
from apps.local.api_documents import SERVICES, document

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "unit" / "contract" / "before"
ADDITIONS = BEFORE.parent / "additions.json"
REMOVALS = BEFORE.parent / "removals.json"

# A promise is a name and a value: a field and its type, a code and its status. Nested, so that the files can be read.
Promises = dict[str, Any]

# Problems that follow from what a route is (`apps.common.refusals`).
_EVERYWHERE = {
    *("unauthorized", "scope_needed", "not_found", "rate_limited", "unavailable", "database_unavailable"),
    *("invalid_json", "too_large", "unsupported_media_type"),
}
# What a value must look like, to whoever sends it. Of an answer it may be said more closely, of a body it may not.
_RULE = re.compile(r', (minimum|maximum|minLength|maxLength|minItems|maxItems|pattern) ("(?:[^"\\]|\\.)*"|[0-9.]+)')
_RULES = ("enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "default", "minItems", "maxItems")


def promises() -> dict[str, Promises]:
    """Everything that is promised, by subject: each service's endpoints, the codes, statuses, kinds and message ids."""
    return {
        **{service: endpoints(openapi(service)) for service in SERVICES},
        "codes": codes(),
        "statuses": statuses(),
        "movement_kinds": {name: f"{kind.source} -> {kind.target}" for name, kind in sorted(KINDS.items())},
        "message_ids": {"patterns": message_ids()},
    }


def openapi(service: str) -> dict[str, Any]:
    """The document that the service publishes at ``/openapi.json``."""
    found: dict[str, Any] = json.loads(document(service))
    return found


def endpoints(document: Mapping[str, Any]) -> Promises:
    """Each endpoint's parameters, body and answers, field by field, with all references resolved.

    Names of components and texts for people are left out: they may change.
    """
    found: Promises = {}
    for path, methods in sorted(document["paths"].items()):
        shared = methods.get("parameters", [])
        for method, operation in sorted(methods.items()):
            if method == "parameters":
                continue
            described: Promises = {"operationId": operation["operationId"]}
            for parameter in [_resolved(document, entry) for entry in [*shared, *operation.get("parameters", [])]]:
                if parameter["name"] == "X-Request-Id":
                    continue  # every operation takes it
                described[f"{parameter['in']} {parameter['name']}"] = _value(
                    document, parameter["schema"], rules=True, required=parameter.get("required", False)
                )
            body = operation.get("requestBody")
            if body is not None:
                described.update(
                    (f"body {name}", value)
                    for name, value in _fields(document, _schema(document, body), rules=True, required=True)
                )
            refused = []
            for status, answer in sorted(operation["responses"].items()):
                if status > "3" and status not in {"422", "default"}:
                    codes = _resolved(document, answer).get("x-problem-codes", ())
                    refused += [f"{status} {code}" for code in codes if code not in _EVERYWHERE]
                    continue
                described[f"answer {status}"] = ""
                schema = _schema(document, answer)
                described.update(
                    (f"answer {status} {name}", value)
                    for name, value in _fields(document, schema, rules=False, required=False)
                )
            found[f"{method.upper()} {path}"] = described | ({"refuses": ", ".join(refused)} if refused else {})
    return _with_errors_once(found)


def codes() -> Promises:
    """Error codes with their HTTP status, and reason codes by where they are met."""
    from apps.local import generated, reason_codes

    generated.errors_page()  # loads every service's errors
    found: Promises = {f"error {cls.code}": str(cls.status) for cls in error_catalogue()}
    for title, table in reason_codes.EVERYWHERE.items():
        found.update({f"reason {code}": title for code in table})
    return dict(sorted(found.items()))


def statuses() -> Promises:
    """Every status of every row that callers see."""
    from apps.pool import states

    stated = importlib.util.find_spec("relayer.store.states") is not None
    from apps.clients.shapes.pool_states import DeliveryStatus, WebhookStatus

    relayer = importlib.import_module(f"relayer.store.{'states' if stated else 'models'}")
    return {
        "request": sorted(states.RequestStatus),
        "batch": sorted(states.BatchStatus),
        "walk": sorted(states.WalkStatus),
        "resolution": sorted(states.ResolutionStatus),
        "webhook": sorted(WebhookStatus),
        "delivery": sorted(DeliveryStatus),
        "transaction": sorted(relayer.STATUSES),
        "signer": sorted(relayer.STORED_SIGNER_STATES if stated else relayer.SIGNER_STATES),
    }


def message_ids() -> list[str]:
    """The pattern of every effect's name, ``stake:<>:reserve``, as the functions that make the names make it."""
    from apps.pool import effects

    places = [(effect, inspect.signature(effect).parameters) for effect in effects.EFFECTS]
    found = {effect(*["<>"] * len(parameters)) for effect, parameters in places}
    # The one name that is no flow's: the reward index names what a loss settles.
    rewards = "".join(path.read_text() for path in (ROOT / "apps" / "rewards").glob("*.py"))
    return sorted(found | set(re.findall(r"\}(:settle:)", rewards) and ["<>:settle:<>"]))


def compare(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> tuple[list[str], list[str]]:
    """What is missing or changed, and what was added."""
    broken: list[str] = []
    added: list[str] = []
    for name, value in before.items():
        here = f"{place} > {name}" if place else name
        if name not in now:
            broken.append(f"{here}: is missing")
        elif isinstance(value, Mapping):
            below = compare(value, now[name], here)
            broken += below[0]
            added += below[1]
        elif isinstance(value, list):
            broken += [f"{here}: {entry} is missing" for entry in value if entry not in now[name]]
            added += [f"{here}: {entry}" for entry in now[name] if entry not in value]
        elif str(value).startswith("any") and str(now[name]).endswith(
            value.removeprefix("any").removesuffix(", default null")
        ):
            added.append(f"{here}: {now[name]}")  # nothing was said about it before
        elif _takes_more(name, value, now[name]):
            added.append(f"{here}: {now[name]}")
        elif _core(name, value) != _core(name, now[name]) or not _rules(value).items() <= _rules(now[name]).items():
            broken.append(f"{here}: was {value!r}, is {now[name]!r}")
        elif _rules(value) != _rules(now[name]):
            added.append(f"{here}: {now[name]}")  # a limit that was held, and was not said
    for name, value in now.items():
        if name in before:
            continue
        here = f"{place} > {name}" if place else name
        if re.match(r"(query|body|header) ", name) and str(value).endswith("required"):
            broken.append(f"{here}: is new and required")
        added.append(here if isinstance(value, Mapping | list) or not value else f"{here}: {value}")
    return broken, added


def _core(name: str, value: Any) -> list[str]:
    """The type of a value, its choices and whether it is required. That a parameter which may be left out could be null was
    said and never so: nothing in an address is null."""
    if name.startswith("body "):  # one that takes null besides breaks nobody
        return _RULE.sub("", str(value)).replace("null or ", "").replace(" or null", "").split(", ")
    if not name.startswith("query "):
        return _RULE.sub("", str(value)).split(", ")
    said = (
        str(value).replace(", default null", "").replace(", null]", "]").replace("null or ", "").replace(" or null", "")
    )
    return _RULE.sub("", said).split(", ")


def _rules(value: Any) -> dict[str, str]:
    """The limits of a value. Patterns are not compared: those that were said were not those that were held, and that they are
    now is shown by calls (`tests/integration/openapi`)."""
    return {name: limit for name, limit in _RULE.findall(str(value)) if name != "pattern"}


def read_before() -> dict[str, Promises]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(BEFORE.glob("*.json"))}


def _takes_more(name: str, before: Any, now: Any) -> bool:
    """Whether a parameter may be all that it might be before, and more."""
    cores = [", ".join(_core(name, value)) for value in (before, now)]
    lists = [re.fullmatch(r"(.*enum )(\[.*?\])(.*)", core) for core in cores]
    if not name.startswith("query ") or cores[0] == cores[1] or not all(lists):
        return False
    (start, taken, end), (start_now, taken_now, end_now) = (found.groups() for found in lists if found)
    return (start, end) == (start_now, end_now) and set(json.loads(taken)) < set(json.loads(taken_now))


def _with_errors_once(found: Promises) -> Promises:
    """The document of an error is the same everywhere: described once, and named where it is answered."""
    once: Promises = {}
    for described in found.values():
        for status in ("default", "422"):
            start = f"answer {status} "
            fields = {name.removeprefix(start): value for name, value in described.items() if name.startswith(start)}
            once = once or fields
            if fields and fields == once:
                for name in fields:
                    del described[start + name]
                described[start.strip()] = "the error document"
    return {"the error document": once, **found}


def _fields(
    document: Mapping[str, Any], schema: Mapping[str, Any] | None, *, rules: bool, required: bool, name: str = ""
) -> Iterator[tuple[str, str]]:
    """Each field below a schema, ``items[].amount_wei``, with its type."""
    if not schema:
        return
    schema = _resolved(document, schema)
    nullable = False
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            members = [_resolved(document, entry) for entry in schema[union]]
            nullable = nullable or any(entry.get("type") == "null" for entry in members)
            others = {key: value for key, value in schema.items() if key != union}
            merged = {**others, **next((entry for entry in members if entry.get("type") != "null"), {})}
            schema = merged
    value = _value(document, schema, rules=rules, required=required, nullable=nullable)
    if name:
        yield name, value
    if "items" in schema:
        yield from _fields(document, schema["items"], rules=rules, required=False, name=f"{name}[]")
    needed = schema.get("required", ())
    for key, entry in sorted(schema.get("properties", {}).items()):
        inner = f"{name}.{key}" if name else key
        yield from _fields(document, entry, rules=rules, required=rules and key in needed, name=inner)


def _value(
    document: Mapping[str, Any], schema: Mapping[str, Any], *, rules: bool, required: bool, nullable: bool = False
) -> str:
    schema = _resolved(document, schema)
    kinds = schema.get("type", "any")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if nullable or schema.get("nullable"):
        kinds.add("null")
    words = [" or ".join(sorted(kinds))]
    if rules:
        words += [f"{rule} {json.dumps(schema[rule])}" for rule in _RULES if rule in schema]
    if required:
        words.append("required")
    return ", ".join(words)


def _schema(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    content = _resolved(document, part).get("content", {})
    found: Mapping[str, Any] | None = next((entry.get("schema") for entry in content.values()), None)
    return found


def _resolved(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        target: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = {**{key: value for key, value in part.items() if key != "$ref"}, **target}
    return part


def additions(now: Mapping[str, Promises]) -> dict[str, list[str]]:
    """What is promised `now` and was not before, by subject."""
    before = read_before()
    return {subject: sorted(compare(before[subject], now[subject])[1]) for subject in before}


def _write(path: Path, value: Mapping[str, Any] | Iterable[Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main(arguments: list[str]) -> int:
    if arguments == ["--additions"]:
        _write(ADDITIONS, additions(promises()))
        return 0
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for subject, found in promises().items():
        _write(directory / f"{subject}.json", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
