"""The examples of the documents are what the services answer."""

import json
import re
from typing import Any

import pytest

from apps.local.api_documents import SERVICES
from tests.support.endpoints.call import Json
from tests.support.endpoints.world import World
from tests.support.examples import path_of, record


@pytest.fixture(scope="module")
def recorded(world: World) -> dict[str, Json]:
    return record(world)


@pytest.mark.parametrize("service", SERVICES)
def test_examples__of_a_run_of_every_operation__are_those_of_the_document(
    service: str, recorded: dict[str, Json]
) -> None:
    assert words(recorded[service]) == words(json.loads(path_of(service).read_text())), "take them again: make examples"


def words(value: Any) -> Any:
    """The same without its numbers: two runs may differ in a block, and so in what gas cost."""
    if isinstance(value, dict):
        return {key: words(item) for key, item in value.items()}
    if isinstance(value, list):
        return [words(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"0x[0-9a-f]+|[0-9]+", "0", value)
    return 0 if type(value) is int else value
