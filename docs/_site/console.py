"""Run the commands of a ```console block as a reader would, and print what they print."""

import os
import subprocess
import sys
from pathlib import Path


def run(block: str) -> None:
    """Run every line that begins with `$ `; the lines after it that are indented belong to it.

    Raises:
      RuntimeError: a command that ends with another status than 0.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"PATH": path, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    for command in block.replace("\\\n", " ").splitlines():
        if not command.startswith("$ "):
            raise RuntimeError(f"a command begins with '$ '; got {command!r}")
        done = subprocess.run(
            command[2:], shell=True, text=True, env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        print(done.stdout.rstrip())
        if done.returncode:
            raise RuntimeError(f"{command!r} ended with status {done.returncode}")
