"""The services keep what their documents say: schemathesis with all its checks, with the key and without."""

import pytest

from apps.local.api_documents import SERVICES
from tests.support.endpoints.world import World
from tests.support.protocols import KEY
from tests.support.schema_run import faults


@pytest.mark.parametrize("examples", [3, pytest.param(50, marks=pytest.mark.prove)])
@pytest.mark.parametrize("service", SERVICES)
def test_openapi__all_that_schemathesis_checks__holds(service: str, examples: int, world: World) -> None:
    assert faults(world.apps[service], KEY, examples) == []


@pytest.mark.parametrize("service", SERVICES)
def test_openapi__without_the_key__holds_too(service: str, world: World) -> None:
    assert faults(world.apps[service], None, 1) == []
