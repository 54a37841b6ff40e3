#!/bin/sh
# Print the newest Python on the machine, or the one of a minor version: sh tests/newest_python.sh [MINOR]
for minor in ${1:-20 19 18 17 16 15 14 13 12 11}; do
  for candidate in "python3.$minor" "$HOME"/.pyenv/versions/3.$minor.*/bin/python; do
    if "$candidate" -c "import sys; assert sys.version_info[:2] == (3, $minor)" 2>/dev/null; then
      echo "$candidate"
      exit 0
    fi
  done
done
echo "no python 3.${1:-11 or newer} found" >&2
exit 1
