"""Compiling for accelerators that are not here: one abstract device of each kind, and a program made for it."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from jaxsmooth.training.accelerators import H100_DESCRIPTION

CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
TPUS = ("v5e:1x1", "v6e:1x1")


def topology(name: str) -> topologies.TopologyDescription:
    """Devices to compile for: "v5e:2x2" and the like, or "h100" and "h100:4" for one and four of them."""
    kind, _, shape = name.partition(":")
    if kind == "h100":
        return topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{shape or 1}", target_config=H100_DESCRIPTION
        )
    # A process that looks for a TPU's metadata server would wait for it.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    single = {"chips_per_host_bounds": [1, 1, 1]} if shape == "1x1" else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **single)


@functools.cache
def device(name: str) -> Any:
    """The first device of a topology."""
    return topology(name).devices[0]


def compile_for(name: str, function: Callable, *args: Any) -> jax.stages.Compiled:
    """`function` compiled for one device; of the arguments, arrays in any pytree, only shapes and dtypes are used."""
    target = SingleDeviceSharding(device(name))

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=target)

    platform = "cuda" if name.startswith("h100") else "tpu"
    traced = jax.jit(function).trace(*jax.tree.map(abstract, args))
    lowered = traced.lower(lowering_platforms=(platform,))
    # No autotuning: there is no card to time on.
    cuda = {"xla_gpu_cuda_data_dir": str(CUDA), "xla_gpu_autotune_level": 0}
    return lowered.compile(compiler_options=cuda if platform == "cuda" else None)
