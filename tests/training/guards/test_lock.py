"""One run in a folder: the second is refused, a killed one leaves no lock, and threads of one process count too."""

import json
import os
import subprocess
import sys

import pytest
from support import ROOT

from jaxsmooth.errors import StorageError
from jaxsmooth.training.guards.lock import HOLDER, alone_in

HOLD = """
import sys, time
from pathlib import Path
from jaxsmooth.training.guards.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.compatibility(
    "long", "a run that was killed (SIGKILL) and is started again", "leaves no lock that would be in the way", was=0
)
def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(StorageError) as caught, alone_in(tmp_path):
                pass
        finally:
            process.kill()
    assert f"another run holds {tmp_path}: process {process.pid} on " in str(caught.value)
    assert ", since 2" in str(caught.value)
    with alone_in(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text(encoding="utf-8"))["process"] == os.getpid()
    assert not (tmp_path / HOLDER).exists()


def test_a_holder_that_has_not_written_who_it_is(tmp_path):
    with alone_in(tmp_path):
        (tmp_path / HOLDER).write_text("{")
        with pytest.raises(StorageError, match="a process that has not said who it is"), alone_in(tmp_path):
            pass
    with alone_in(tmp_path):  # the refusal has let go of nothing, and kept nothing
        pass
