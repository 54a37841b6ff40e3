"""Writing a file so that a reader sees the old one or the new one, never half of one."""

import os
import tempfile
from pathlib import Path


def write_aside(path: Path, content: str | bytes) -> Path:
    """Writes a file beside its destination and renames it into place.

    Args:
      path: the destination; missing folders are made.
      content: text (written as UTF-8 with plain newlines) or bytes.

    Returns:
      The path.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # mkstemp makes files private; a report is meant to be shared like any other file.
        aside.chmod(0o644)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
