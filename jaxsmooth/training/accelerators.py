"""What accelerators can do and what a training step asks of them: chips, topologies to compile for, FLOPs."""

import dataclasses
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from ..bert.config import EncoderConfig
from ..errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as its vendor describes it.

    Attributes:
      flops: dense bfloat16 FLOP/s.
      memory: bytes of HBM.
      bandwidth: bytes/s between HBM and the cores.
      links: bytes/s to other devices, all links and both directions together.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


GIB = 2.0**30
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 32 * GIB, 1228e9, 300e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1640e9, 448e9),
    "h100": Chip(989e12, 80e9, 3352e9, 900e9),
}
"""Sources: cloud.google.com/tpu/docs, the pages of v4, v5e, v5p and v6e; NVIDIA's data sheet of the H100 SXM."""

KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA H100 80GB HBM3": "h100",
}
"""`jax.Device.device_kind` -> key of `CHIPS`."""

# All that the CUDA compiler asks about a card that is not there; the figures are NVIDIA's for the H100 SXM.
H100_DESCRIPTION = """
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
_TPU_ENVIRONMENT = {  # a process that looks for a TPU's metadata server would wait for it
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    Attributes:
      name: as the user wrote it.
      platform: "tpu" or "cuda".
      chip: its numbers.
      devices: abstract ones.
    """

    name: str
    platform: str
    chip: Chip
    devices: list[Any]


def find_target(name: str, slices: int = 1) -> Target:
    """Abstract devices of "tpu-v5e:2x2", "tpu-v4:2x2x1", "gpu-h100:4" and the like.

    Args:
      name: chip and topology.
      slices: TPU slices of that topology, joined by the data-centre network.

    Returns:
      The target, with the chip's numbers.

    Raises:
      ConfigError: a chip that is not in the table, a topology its compiler refuses, or a compiler that is not
        installed.

    >>> find_target("tpu-v9:2x2")
    Traceback (most recent call last):
    ...
    jaxsmooth.errors.ConfigError: the chips are tpu-v4, tpu-v5e, tpu-v5p, tpu-v6e, gpu-h100; got 'tpu-v9'.
    """
    chip, _, shape = name.partition(":")
    known = [*(f"tpu-{chip}" for chip in CHIPS if chip.startswith("v")), "gpu-h100"]
    if chip not in known:
        raise ConfigError(f"the chips are {', '.join(known)}; got {chip!r}.")
    if not shape:
        raise ConfigError(f"a target names chip and topology, as tpu-v5e:2x2 or gpu-h100:4; got {name!r}.")
    numbers, gpu = CHIPS[chip.partition("-")[2]], chip == "gpu-h100"
    try:
        found = _gpus(shape) if gpu else _tpus(f"{chip.removeprefix('tpu-')}:{shape}", slices)
    except Exception as error:  # each plug-in raises what it likes
        package = "jax-cuda13-plugin and jax-cuda13-pjrt" if gpu else "jax[tpu]"
        raise ConfigError(
            f"there is no topology {name!r} here: {str(error).strip().splitlines()[0][:200]}. "
            f"Is {package} installed, of jax's own version {jax.__version__}?"
        ) from error
    return Target(name, "cuda" if gpu else "tpu", numbers, list(found.devices))


def _gpus(count: str) -> topologies.TopologyDescription:
    return topologies.get_topology_desc(platform="cuda", topology=f"1x1x{int(count)}", target_config=H100_DESCRIPTION)


def _tpus(name: str, slices: int) -> topologies.TopologyDescription:
    for variable, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name.startswith("v4:"):  # both cores of a chip as one device, as its runtime has it by default
        options["chip_config_name"] = "megacore"
    if name.endswith(":1x1"):
        options["chips_per_host_bounds"] = [1, 1, 1]
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options)


def forward_flops(config: EncoderConfig, rows: int, length: int, *, sharing: int = 0) -> float:
    """FLOPs of the encoder's matrix products for [rows, length] tokens, padding included, two per multiply-add.

    Per token and layer: 8 D^2 for the projections, 4 D F for the MLP (6 D F when gated), 4 T D for the attention; half
    of the first and the last in a layer that uses another's attention.

    Args:
      config: of the encoder.
      rows: sentences, B.
      length: tokens of each, T.
      sharing: how many layers use the attention of another.

    >>> forward_flops(EncoderConfig(layers=1), 1, 1) == 8 * 768**2 + 4 * 768 * 3072 + 4 * 768
    True

    References: Kaplan et al. (2020), arXiv 2001.08361, appendix B, with the attention's share kept.
    """
    d, f = config.width, config.mlp_width
    attention = 8 * d * d + 4 * length * d
    mlp = (6 if config.gated else 4) * d * f
    return float(rows * length * ((config.layers - sharing / 2) * attention + config.layers * mlp))


def step_flops(config: EncoderConfig, rows: int, length: int, *, sharing: int = 0) -> float:
    """FLOPs of a training step: forward, and twice that backward. What is recomputed is not counted (model FLOPs).

    Args:
      config: of the encoder.
      rows: sentences, B.
      length: tokens of each, T.
      sharing: how many layers use the attention of another.
    """
    return 3 * forward_flops(config, rows, length, sharing=sharing)


def peak_flops(precision: str) -> float:
    """FLOP/s of all devices together, which utilisation is measured against.

    The vendor's bfloat16 figure where the device is known; on a CPU the rate of a 1024^3 float32 product, measured
    here and now. 0 for any other device or precision: then no utilisation is reported.

    Args:
      precision: of the computation, "float32" or "bfloat16".
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured()
    chip = KINDS.get(device.device_kind)
    return CHIPS[chip].flops * jax.device_count() if chip and precision == "bfloat16" else 0.0


def _measured(size: int = 1024, rounds: int = 20) -> float:
    """FLOP/s of the fastest of some matrix products on the first device."""
    product = jax.jit(jnp.matmul)
    a = jnp.ones((size, size), jnp.float32)
    product(a, a).block_until_ready()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
