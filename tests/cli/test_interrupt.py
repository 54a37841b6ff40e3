"""Ctrl-C and SIGTERM: one line and status 130 or 143, whenever they come, also where Python would lose them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

# Importing takes as long as this test wants: the import of the command line waits, saying that it has begun.
SLOW_IMPORT = """
import signal, sys
# A shell's background job, and what it starts, ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxsmooth.__main__ import main

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "jaxsmooth.cli":
            import time
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
sys.exit(main())
"""
# The first interrupt comes inside a destructor, where Python prints and forgets it; a stand-in runs as the command.
SWALLOWED = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxsmooth import __main__ as command
command.AGAIN = 0.2

class Deaf:
    def __del__(self):
        print("deaf", flush=True)
        time.sleep(60)

def run():
    Deaf()
    time.sleep(60)
    return 0

sys.modules["jaxsmooth.cli.main"] = types.ModuleType("jaxsmooth.cli.main")
sys.modules["jaxsmooth.cli.main"].main = run
sys.exit(command.main())
"""


def interrupted(program: str, word: str, number: int = signal.SIGINT) -> subprocess.CompletedProcess[str]:
    """Run it, interrupt it once it has said the word."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline().strip() == word
            time.sleep(0.1)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return subprocess.CompletedProcess(program, process.returncode, out, err)


def test_an_interrupt_while_importing_is_one_line():
    done = interrupted(SLOW_IMPORT, "importing")
    assert done.returncode == 130
    assert done.stderr == "jaxsmooth: interrupted; no file was left half-written.\n"


@pytest.mark.compatibility(
    "long", "SIGTERM while any command works, nothing to save yet", "one line, status 143, no file half-written", was=4
)
def test_sigterm_while_importing_is_one_line():
    done = interrupted(SLOW_IMPORT, "importing", signal.SIGTERM)
    assert done.returncode == 143
    assert done.stderr == "jaxsmooth: ended by SIGTERM; no file was left half-written.\n"


def test_sigterm_that_python_loses_comes_again():
    done = interrupted(SWALLOWED, "deaf", signal.SIGTERM)
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1] == "jaxsmooth: ended by SIGTERM; no file was left half-written."


def test_an_interrupt_that_python_loses_comes_again():
    done = interrupted(SWALLOWED, "deaf")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "jaxsmooth: interrupted; no file was left half-written."
    assert "Exception ignored" in done.stderr


def test_a_command_that_ends_by_itself_keeps_its_status():
    command = [sys.executable, "-m", "jaxsmooth", "assets", "path", "nothing"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("jaxsmooth: there is no asset 'nothing'")
