#!/bin/sh
# Build wheel and sdist into dist/; install each into an empty environment of Python 3.11 and of the newest one, and use
# it from an empty folder.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/.cache/package
rm -rf "$work" "$root/dist"
mkdir -p "$work/empty"
oldest=$(sh "$root/tests/newest_python.sh" 11)
newest=$(sh "$root/tests/newest_python.sh")
"$oldest" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
"$work/build/bin/python" -m build --outdir "$root/dist" "$root" >"$work/build.log"
(cd "$root" && PYTHONPATH=tests "$work/build/bin/python" -m support.packaging dist/*.whl dist/*.tar.gz)
for python in "$oldest" "$newest"; do
  for file in "$root"/dist/*.whl "$root"/dist/*.tar.gz; do
    "$python" -m venv --clear "$work/user"
    "$work/user/bin/python" -m pip install --quiet --disable-pip-version-check "$file"
    (
      cd "$work/empty"
      "$work/user/bin/jaxsmooth" --version
      "$work/user/bin/python" -c "import jaxsmooth; print(jaxsmooth.__version__, jaxsmooth.__file__)"
      "$work/user/bin/jaxsmooth" diagnose tiny --data tiny --limit 4 --out report >"$work/run.log" 2>&1 || { cat "$work/run.log"; exit 1; }
      test -s report/report.html && rm -r report
    )
    echo "ok: $("$work/user/bin/python" --version), $(basename "$file")"
  done
done
rm -rf "$work"
