"""What wheel and sdist hold. `python -m support.packaging FILE ...` refuses files that lack or add something."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sources() -> set[str]:
    """Every file of the package, code and data, as jaxsmooth/NAME."""
    found = (path for path in (ROOT / "jaxsmooth").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def contents(path: Path) -> set[str]:
    """The files of a wheel or sdist, the sdist's outermost folder and folders themselves left out."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(path) as sdist:
        return {member.name.partition("/")[2] for member in sdist if member.isfile()}


def faults(path: Path) -> list[str]:
    """Files of the package that are not there, and files there that are none of the package's."""
    names = contents(path)
    packaged = {name for name in names if name.startswith("jaxsmooth/")}
    strays = {name for name in names if name.startswith(("tests/", "build/", "experiments/", "benchmarks/"))}
    wrong = {f"lacks {name}" for name in sources() - packaged} | {f"adds {name}" for name in packaged - sources()}
    return sorted(wrong | {f"adds {name}" for name in strays})


if __name__ == "__main__":
    found = {name: faults(Path(name)) for name in sys.argv[1:]}
    assert found
    assert not any(found.values()), found
    print(*(f"{name}: {len(contents(Path(name)))} files" for name in found), sep="\n")
