"""The task that the tests of whole runs fine-tune on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    from support.training import write_task  # late: importing it imports jaxsmooth, which the hook must see first

    return write_task(tmp_path_factory.mktemp("task"))
