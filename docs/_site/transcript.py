"""Do what a page says, word by word, in an empty folder, and put what was printed below each command.

    python docs/_site/transcript.py docs/quickstart.md

Every ```console block of the page is done in its order; a line that begins with `$ ` is a command, everything else in
the block is output of an earlier run and is replaced. All commands share one shell, so that an environment that is
activated stays so; one that fails ends it, and leaves the page as it was. The folder `jaxsmooth` that the reader has is
a copy of the checkout of this file. What pip says of the local indexes of the machine is left out.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOCAL = re.compile(r"^WARNING: Location 'file:.*\n", re.MULTILINE)
MARK = "== end of a command =="


def commands(block: str) -> list[str]:
    """The commands of a block, each with the lines that continue it."""
    found: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif found and (found[-1].endswith("\\") or found[-1].count("'") % 2):  # a quote is open
            found[-1] += "\n" + line.removeprefix("> ")
    return found


def run(every: list[str], folder: Path) -> tuple[list[str], int]:
    """Each command's output, all in one shell, up to one that failed; and the status of the last."""
    script = ["set -e"]
    for command in every:
        script += [command, f"echo; echo '{MARK}'"]
    new = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=kept | new,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout.split(f"\n{MARK}\n")[: len(every)], done.returncode


def main(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    every = [command for block in BLOCK.findall(text) for command in commands(block)]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "jaxsmooth"
        checkout.mkdir()
        files = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", checkout], check=True, input=files)
        found, status = run(every, Path(folder))
    if status:
        raise SystemExit(f"{found[-1]}\nstatus {status} of {every[len(found) - 1]!r}; {page} is as it was")
    outputs = iter(found)

    def filled(match: re.Match) -> str:
        lines = []
        for command in commands(match[1]):
            printed = LOCAL.sub("", next(outputs, "")).rstrip()
            shown = command.replace("\n", "\n> ")
            lines += [f"$ {shown}", *([printed] if printed else [])]
        return "```console\n" + "\n".join(line.rstrip() for line in "\n".join(lines).splitlines()) + "\n```"

    page.write_text(BLOCK.sub(filled, text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
