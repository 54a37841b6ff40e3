#!/bin/sh
# Run the suite on the newest Python on the machine, with the newest release of every dependency.
set -eu
newest=$(sh "$(dirname "$0")/newest_python.sh")
"$newest" --version
"$newest" -m venv --clear .cache/newest
.cache/newest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
.cache/newest/bin/python -m pip list --disable-pip-version-check | grep -iE '^(jax|flax|numpy|optax) '
.cache/newest/bin/python -m pytest -n 2 --dist loadfile -m "not long and not parity and not aot and not kills and not scale"
