"""The examples of the documents are what the services answer."""

import json

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
    assert recorded[service] == json.loads(path_of(service).read_text()), "write them again with: make examples"
