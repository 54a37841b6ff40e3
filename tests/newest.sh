#!/bin/sh
# Run the suite on the newest Python on the machine, with the newest release of every dependency.
set -eu
newest=""
for minor in 20 19 18 17 16 15 14 13 12 11; do
  for candidate in "python3.$minor" "$HOME"/.pyenv/versions/3.$minor.*/bin/python; do
    if "$candidate" -c "import sys; assert sys.version_info[:2] == (3, $minor)" 2>/dev/null; then
      newest=$candidate
      break 2
    fi
  done
done
test -n "$newest" || { echo "no python >= 3.11 found" >&2; exit 1; }
"$newest" --version
"$newest" -m venv --clear .cache/newest
.cache/newest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
.cache/newest/bin/python -m pip list --disable-pip-version-check | grep -iE '^(jax|flax|numpy|optax) '
.cache/newest/bin/python -m pytest -n 2 --dist loadfile -m "not long and not parity and not aot and not kills and not scale"
