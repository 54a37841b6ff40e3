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

CUDA = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
TPUS = ("v5e:1x1", "v6e:1x1")
# A description of the card is all that the compiler asks for; the numbers are NVIDIA's for the H100 SXM.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 85520809984
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9  minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def topology(name: str) -> topologies.TopologyDescription:
    """Devices to compile for: "v5e:2x2" and the like, or "h100" and "h100:4" for one and four of them."""
    kind, _, shape = name.partition(":")
    if kind == "h100":
        return topologies.get_topology_desc(platform="cuda", topology=f"1x1x{shape or 1}", target_config=H100)
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
