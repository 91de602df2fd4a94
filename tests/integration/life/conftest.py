"""One stack for the folder's tests, which use users of their own; a module may bring another."""

from collections.abc import Iterator

import pytest

from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support.stack import running_stack


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    with running_stack() as started:
        yield started


@pytest.fixture(scope="module")
def bff(stack: Stack) -> Bff:
    return Bff(stack)
