"""What commands set before jax is first used: where compiled programs are kept, what training must not log."""

import os
import sys
from pathlib import Path
from types import ModuleType


def set_up_jax() -> None:
    """What training needs before jax is first used."""
    import logging

    import jax

    # Of a save that fails every thread and write logs its trace, which is raised as well.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _report_unraisable

    keep_compiled_programs(jax)


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    # The other writes of a save that has failed end after its event loop, each with a trace of that.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def keep_compiled_programs(jax: ModuleType) -> None:
    """Compile once per machine, not once per run, unless the user has a cache of their own."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        from ..assets import cache_dir

        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def traced_programs() -> Path | None:
    """Where traced programs are kept: beside the compiled ones, if these are kept at all."""
    import jax

    compiled = getattr(jax.config, "jax_compilation_cache_dir", None)
    return Path(compiled) / "traced" if compiled else None
