"""One stack for the folder's tests, which use users of their own; a module may bring another. Here it ends."""

from collections.abc import Iterator

import pytest

from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support.stack import SharedStack


@pytest.fixture(scope="package")
def stack(shared_stack: SharedStack) -> Iterator[Stack]:
    yield shared_stack.start()
    shared_stack.stop()


@pytest.fixture(scope="module")
def bff(stack: Stack) -> Bff:
    return Bff(stack)
