"""What a benchmark says of the machine it ran on."""

import os
import platform
from pathlib import Path

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
"""Flags of a processor and what its widest vector instructions are called: one name is sold with either."""


def processor() -> str:
    """The processor's name and its widest vector instructions, which products of matrices depend on most."""
    info = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in (info.read_text(encoding="utf-8").splitlines() if info.exists() else [])]
    said = {key.strip(): value.strip() for key, _, value in lines}
    flags = said.get("flags", said.get("Features", "")).split()
    widest = next((name for flag, name in VECTORS.items() if flag in flags), "vector instructions not known")
    return f"{said.get('model name') or platform.processor() or platform.machine()} ({widest})"


def machine() -> dict[str, object]:
    """Processor, cores and system."""
    return {"cpu": processor(), "cores": os.cpu_count(), "system": platform.platform()}
