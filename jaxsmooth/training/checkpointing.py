"""Checkpoints of a run: written in the background, whole or not at all, checked when read, restored onto any mesh.

Orbax writes each under a temporary name and renames it. Every state is saved with a fingerprint of its bits, so that
a damaged checkpoint is detected instead of trained on; the one before it is then used.
"""

import contextlib
import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, UInt32
from orbax.checkpoint import checkpoint_managers as policies

from ..errors import CheckpointError, StorageError
from ..files import require_room, storage_fault
from ..json_reading import loads
from ..types import map_named, named_leaves
from .guards.divergence import not_finite
from .guards.orbax_noise import keep_from_users

MARGIN = 2**18
"""Bytes of a checkpoint beside its arrays, about."""

keep_from_users()


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint could not be read, or its bits are not those that were saved; an older one is used."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint as read.

    Attributes:
      step: its name.
      state: the arrays, in the structure and layout that was asked for.
      extra: the JSON values saved with it.
    """

    step: int
    state: Any
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one folder. Use as a context manager: leaving it waits for what is still being written."""

    def __init__(self, folder: Path, *, keep: int = 2, writes: bool = True) -> None:
        """Open or make the folder.

        Args:
          folder: of the checkpoints, one folder below it for each.
          keep: how many of the newest are kept; the one with the best score is kept as well.
          writes: False where a run may be writing there meanwhile: nothing is then saved, removed or moved.

        Raises:
          CheckpointError: a checkpoint's score is unreadable, and `writes` is False.
        """
        self.folder, self.writes, self.left_out = Path(folder).absolute(), writes, set[int]()
        self._vet()
        best = policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        policy = policies.AnyPreservationPolicy([policies.LatestN(n=keep), best])
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, best_fn=_score, cleanup_tmp_directories=writes, read_only=not writes
            ),
            item_names=("state", "extra"),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        for _ in range(2):  # closing raises what a background save has raised, once, and then closes
            with contextlib.suppress(Exception):
                self.manager.close()
                break
        if error is not None and self.writes:
            self._clear_unfinished()

    def save(self, step: int, state: Any, extra: dict[str, Any], *, score: float | None = None) -> None:
        """Start writing a checkpoint; returns once the state is copied, so it may then be overwritten.

        What goes wrong in the background is raised by the next `save`, by `wait`, or on leaving.

        Args:
          step: its name.
          state: any pytree of arrays.
          extra: JSON-able values: position in the data, best score so far.
          score: of the validation split, the higher the better; None where it was not evaluated.

        Raises:
          StorageError: the disk has no room for it; what is there already stays.
          CheckpointError: it, or the one before it, could not be written for another reason.
        """
        arrays = named_leaves(state)
        self.require_room(state, step)
        marks = {
            name: int(mark) for name, mark in zip(arrays, np.asarray(_fingerprints(list(arrays.values()))), strict=True)
        }
        with self._faults(arrays):
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    extra=ocp.args.JsonSave({"values": extra, "fingerprints": marks}),
                ),
                metrics=None if score is None else {"score": score},
            )

    def wait(self) -> None:
        """Block until everything that was saved is on disk.

        Raises:
          StorageError, CheckpointError: as `save`.
        """
        with self._faults():
            self.manager.wait_until_finished()

    def require_room(self, state: Any, step: int) -> None:
        """Refuse a checkpoint that the disk cannot hold, or a folder that is gone. All processes must call it.

        Args:
          state: arrays, or their shapes.
          step: its name.

        Raises:
          StorageError: as `files.require_room`; or the folder was removed, or can no longer be written to.
        """
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + MARGIN
        try:
            # Looked at here, for what orbax has begun in the background waits minutes for a folder that never comes.
            if not (self.folder.is_dir() and os.access(self.folder, os.W_OK | os.X_OK)):
                raise StorageError(f"{self.folder} is gone or can no longer be written to. Did someone remove it?")
            require_room(self.folder / str(step), size)
        except StorageError:
            _agreed(False)
            raise
        if not _agreed(True):
            raise StorageError(f"{self.folder / str(step)}: there is no room for it, as another process sees it.")

    def newest(self) -> int | None:
        """The step of the newest checkpoint; None without one."""
        return max(self._steps(), default=None)

    def _steps(self) -> list[int]:
        return [step for step in self.manager.all_steps() if step not in self.left_out]

    @contextlib.contextmanager
    def _faults(self, arrays: Mapping[str, Array] | None = None) -> Iterator[None]:
        """Orbax's own exceptions, raised for what it does in the background too, as one of ours in one line."""
        try:
            yield
        except Exception as error:
            wanted = None if arrays is None else sum(array.nbytes for array in arrays.values())
            full = storage_fault(error, self.folder, wanted)
            raise full or CheckpointError(
                f"no checkpoint can be written to {self.folder}: {_first_line(error)}"
            ) from error

    def _clear_unfinished(self) -> None:
        """Remove what a save that failed has left: on a full disk it is in the way."""
        if jax.process_index() == 0:
            for each in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(each, ignore_errors=True)

    def best(self) -> int | None:
        """The step with the best score, the latest where several tie; None where no checkpoint has one."""
        scores = {step: self.manager.metrics(step) for step in self._steps()}
        known = {step: metrics["score"] for step, metrics in scores.items() if metrics}
        return max(known, key=lambda step: (known[step], step), default=None)

    def restore(self, like: Any, *, step: int | None = None) -> Restored | None:
        """The newest whole checkpoint, or that of one step.

        A damaged one is moved out of the way, with a warning that says why, and the one before it is tried.

        Args:
          like: the state's shapes, with the shardings that it is wanted in; they need not be those it was saved in.
          step: which checkpoint; None for the newest.

        Returns:
          The state in the layout of `like`, and what was saved with it; None where there is no whole checkpoint.

        Raises:
          CheckpointError: the checkpoint is of another model, or that step's is damaged.
        """
        while (each := self.newest() if step is None else step) is not None:
            restored, fault = self._read(each, like)
            if _agreed(restored is not None):
                return restored
            if step is not None:
                raise CheckpointError(f"{self.folder / str(each)} cannot be restored: {fault or 'on another process'}")
            self._leave_out(each, fault)
        return None

    def restore_best(self, like: Any) -> Restored | None:
        """The whole checkpoint with the best score, the newest where none has one.

        A damaged one is moved out of the way as by `restore`, and the next best is tried.

        Args:
          like: as for `restore`.

        Returns:
          As `restore`; None where the folder holds no whole checkpoint.

        Raises:
          CheckpointError: the checkpoint is of another model.
        """
        while (step := self.best()) is not None:
            restored, fault = self._read(step, like)
            if _agreed(restored is not None):
                return restored
            self._leave_out(step, fault)
        return self.restore(like)

    def _read(self, step: int, like: Any) -> tuple[Restored | None, str]:
        wanted = named_leaves(like)
        # Orbax's readers raise whatever their layers raise; all of it means that the checkpoint is damaged.
        try:
            extra = self.manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))["extra"]
            values, marks = extra["values"], extra["fingerprints"]
        except Exception as error:
            return None, _first_line(error)
        if set(marks) != set(wanted):
            odd = sorted(set(marks) ^ set(wanted))
            raise CheckpointError(
                f"{self.folder / str(step)} is of another run: {odd[0]!r} is in only one of the two. "
                "Was the folder made with another model, task, fusion or optimiser?"
            )
        try:
            state = ocp.args.StandardRestore(wanted)
            arrays = self.manager.restore(step, args=ocp.args.Composite(state=state))["state"]
        except Exception as error:
            return None, _first_line(error)
        now = np.asarray(_fingerprints([arrays[name] for name in wanted]))
        wrong = [name for name, mark in zip(wanted, now, strict=True) if int(mark) != marks[name]]
        if wrong:
            return None, f"the bits of {wrong[0]!r} are not those that were saved"
        found = map_named(lambda name, _: arrays[name], like)
        if wrong := not_finite(found):
            return None, f"{wrong[0]!r} is not finite: the run had diverged"
        return Restored(step, found, values), ""

    def _vet(self) -> None:
        """Leave out checkpoints whose score is unreadable, as after a loss of power: orbax reads all when it opens."""
        faults = {}
        for path in sorted(self.folder.glob("*/metrics/metrics")):
            try:
                loads(path.read_bytes())
            except ValueError as error:
                faults[int(path.parts[-3])] = f"{path.name}: {error}"
            except OSError:
                pass  # a run has just replaced it
        for step, fault in faults.items():
            if not self.writes:
                raise CheckpointError(f"{self.folder / str(step)} is damaged: {fault}. Resuming the run leaves it out.")
            self._warn(step, fault)
            self._set_aside(step)

    def _leave_out(self, step: int, fault: str) -> None:
        self.left_out.add(step)
        if not self.writes and not (self.folder / str(step)).exists():
            self.manager.reload()  # the run has just replaced it by a newer or a better one
            return
        self._warn(step, fault)
        if self.writes:
            self._set_aside(step)
            self.manager.reload()
            self.left_out.discard(step)  # it is gone, and the run may come by the same step again

    def _warn(self, step: int, fault: str) -> None:
        warnings.warn(
            f"{self.folder / str(step)} is damaged and left out: {fault or 'on another process'}",
            DamagedCheckpointWarning,
            stacklevel=4,
        )

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            damaged = self.folder.with_name(f"{self.folder.name}-damaged")
            damaged.mkdir(exist_ok=True)
            shutil.rmtree(damaged / str(step), ignore_errors=True)
            (self.folder / str(step)).rename(damaged / str(step))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"moved damaged checkpoint {step}")


def _agreed(whole: bool) -> bool:
    """Whether all processes could read the checkpoint."""
    if jax.process_count() == 1:
        return whole
    return bool(np.all(multihost_utils.process_allgather(np.asarray(whole))))


@jax.jit
def _fingerprints(arrays: list[Array]) -> UInt32[Array, " K"]:
    """A number for each array that changes with any one of its words, and does not depend on how it is laid out.

    The sum of its 32-bit words, each times an odd number of its own, modulo 2^32.
    """
    return jnp.stack([_fingerprint(array) for array in arrays])


def _fingerprint(array: Float[Array, "..."]) -> UInt32[Array, ""]:
    if array.dtype.itemsize != 4:  # float64 gives two words, bfloat16 and bool are widened without loss
        wide = {8: jnp.uint32, 2: jnp.float32, 1: jnp.int32}[array.dtype.itemsize]
        array = jax.lax.bitcast_convert_type(array, wide) if array.dtype.itemsize == 8 else array.astype(wide)
    words = jax.lax.bitcast_convert_type(array, jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):  # positions without flattening, which would gather a sharded array
        place = place * jnp.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return (words * (2 * place + jnp.uint32(1))).sum(dtype=jnp.uint32)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"[:300]
