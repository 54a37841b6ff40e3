"""Joining the processes of one run: TPU pods and SLURM say who is who; anywhere else the user does."""

import jax

from ..errors import ConfigError


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Start `jax.distributed` before the first use of a device.

    Args:
      coordinator: "auto" where the platform knows (TPU pods, SLURM, Open MPI); else HOST:PORT of process 0; "" for a
        run of one process.
      processes: how many there are; with an address only.
      process: which of them this is.

    Raises:
      ConfigError: an address without a port, or a process outside 0 ... processes - 1.
    """
    if not coordinator:
        if processes > 1:
            raise ConfigError("several processes need --coordinator HOST:PORT, the address of process 0, or auto.")
        return
    # The CPU backend needs to be told how its processes talk to each other; others ignore it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator must be HOST:PORT or auto; got {coordinator!r}.")
    if not 0 <= process < processes:
        raise ConfigError(f"--process must lie in 0..{processes - 1}; got {process}.")
    jax.distributed.initialize(coordinator, processes, process)
