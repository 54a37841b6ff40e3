"""The pickle of a torch state dict, read by an unpickler that knows the names of tensors and nothing else.

A trainer's checkpoint keeps the state dict among other things, under a name of its own; it is found there.

`find_class` answers from a table of stand-ins, as "Restricting Globals" in Python's documentation of pickle shows: a
pickle can import nothing, and can call only the functions of this module that the table names. Two more guards need
the unpickler written in Python, whose table of opcodes can be narrowed (the one in C allocates a memo as long as the
largest index in the file): other opcodes than those of a state dict are refused, and only strings and integers can be
keys, because hashing tuples that hold one another takes exponential time, or overflows the stack.

References: Python's pickle and pickletools (the opcodes); torch.serialization and torch._utils (what torch writes).
"""

import contextlib
import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...errors import CheckpointError, is_int

SIZE_LIMIT = 8 * 2**20
"""Bytes of a pickle; that of a model with ten thousand tensors has two million."""
AXES_LIMIT = 8


class Storage(NamedTuple):
    """A run of numbers in the file.

    Attributes:
      key: its name in the file; the member's below `data/`.
      dtype: as `tensor.DTYPES` spells it.
      numbers: how many.
    """

    key: str
    dtype: str
    numbers: int


class View(NamedTuple):
    """A tensor: where its numbers lie in a storage, by torch's strides (in numbers, not bytes)."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(raw: bytes, source: str) -> dict[str, View]:
    """The tensors that a pickled state dict describes, their numbers unread.

    Args:
      raw: the pickle.
      source: names it in errors.

    Returns:
      Name -> view, in the file's order.

    Raises:
      CheckpointError: a pickle that is damaged or too long, or that holds no dict of tensors.
    """
    if len(raw) > SIZE_LIMIT:
        raise CheckpointError(f"{source}: its pickle must have at most {SIZE_LIMIT} bytes; got {len(raw)}.")
    with _refusals(source):
        return _state_dict(_StateDictUnpickler(io.BytesIO(raw)).load(), source)


def read_older_state_dict(raw: bytes, source: str) -> tuple[dict[str, View], list[Storage], int]:
    """The same of torch's format before 1.6: five pickles, of which the fourth is the state dict.

    Args:
      raw: the file's beginning, with all five in it.
      source: names it in errors.

    Returns:
      Name -> view; the storages in the order in which they follow; and where the first begins.

    Raises:
      CheckpointError: as `read_state_dict`; also numbers that are big-endian.
    """
    stream = io.BytesIO(raw)
    with _refusals(source):
        for _ in range(2):  # a number that marks the format, and its version
            _StateDictUnpickler(stream).load()
        system = _StateDictUnpickler(stream).load()
        if not isinstance(system, _Dict) or system.get("little_endian") is not True:
            raise CheckpointError("it must hold little-endian numbers.")
        unpickler = _StateDictUnpickler(stream)
        views = _state_dict(unpickler.load(), source)
        keys = _StateDictUnpickler(stream).load()
        return views, [unpickler.storages[key] for key in keys], stream.tell()


@contextlib.contextmanager
def _refusals(source: str) -> Iterator[None]:
    """Turn whatever a damaged pickle raises into a `CheckpointError` that names `source`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error
    except _DAMAGED as error:
        raise CheckpointError(f"{source} does not hold a whole pickle: {error!r:.200}. Is the file damaged?") from error


def _state_dict(result: object, source: str) -> dict[str, View]:
    if not isinstance(result, _Dict):
        raise CheckpointError(f"{source} must hold a dict of tensors; got {_describe(result)}.")
    return _tensors(_root(result), source)


ROOTS = ("state_dict", "model_state_dict", "model", "module", "model_state", "net", "weights", "params")
"""Where trainers keep the state dict: Lightning under the first, DeepSpeed under "module"; the first that is there."""
_DEPTH = 4


def _root(result: "_Dict") -> "_Dict":
    """The state dict in a trainer's checkpoint; what is none is given back as it is."""
    for _ in range(_DEPTH):
        inner = next((result[key] for key in ROOTS if isinstance(result.get(key), _Dict)), None)
        # A dict of tensors is the state dict, though a module in it were called "model".
        if inner is None or any(isinstance(value, View) for value in result.values()):
            break
        result = inner
    return result


def _tensors(state: "_Dict", source: str) -> dict[str, View]:
    """The tensors of a state dict. Beside them a module may keep notes (`get_extra_state`), which are passed over."""
    views = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, View)}
    for name, value in state.items():
        note = isinstance(name, str) and isinstance(value, (str, int, float, type(None)))
        if name not in views and not (note and views):
            raise CheckpointError(
                f"{source} must hold tensors by name, itself or under one of {ROOTS}; got {_describe(value)} under "
                f"{name!r:.60}."
            )
    return views


# What the unpickler makes of damaged bytes: an empty stack, an unknown memo, a call with other arguments, ...
_DAMAGED = (pickle.UnpicklingError, struct.error, EOFError, ValueError, LookupError, TypeError, AttributeError)


class _Dict(dict[str | int, Any]):
    """Every dict of the pickle: its keys are names or numbers, and attributes (torch's notes on versions) are lost."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, (str, int)):
            raise ValueError(f"a key of a dict is no name; got {_describe(key)}")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        pass


class _StandIn(NamedTuple):
    """What a name of the table gives: a function of this module, or a type of storages.

    A tuple, so that a pickle cannot set an attribute on it.
    """

    name: str
    build: Callable[..., object] | None
    dtype: str = ""

    def __call__(self, *arguments: object) -> object:
        if self.build is None:
            raise TypeError(f"{self.name} is no function")
        return self.build(*arguments)


def _ordered_dict() -> _Dict:
    return _Dict()


def _tensor(
    storage: object, offset: Any, shape: Any, strides: Any, grad: object, hooks: object, metadata: object = None
) -> View:
    tuples = all(isinstance(axes, tuple) and all(map(_is_count, axes)) for axes in (shape, strides))
    fits = tuples and len(shape) == len(strides) <= AXES_LIMIT
    if not isinstance(storage, Storage) or not _is_count(offset) or not fits:
        raise ValueError("a tensor has no storage, or no shape")
    return View(storage, offset, shape, strides)


def _parameter(data: object, grad: object, hooks: object) -> object:
    return data


def _is_count(value: object) -> bool:
    return is_int(value, 0, 2**63 - 1)


def _describe(value: object) -> str:
    if isinstance(value, _StandIn):
        return f"the name {value.name!r}"
    return "dict" if isinstance(value, _Dict) else type(value).__name__


_NAMES = {
    stand_in.name: stand_in
    for stand_in in (
        _StandIn("collections.OrderedDict", _ordered_dict),
        _StandIn("torch._utils._rebuild_tensor_v2", _tensor),
        _StandIn("torch._utils._rebuild_parameter", _parameter),
        _StandIn("torch.FloatStorage", None, "F32"),
        _StandIn("torch.DoubleStorage", None, "F64"),
        _StandIn("torch.HalfStorage", None, "F16"),
        _StandIn("torch.BFloat16Storage", None, "BF16"),
        _StandIn("torch.LongStorage", None, "I64"),
        _StandIn("torch.IntStorage", None, "I32"),
        _StandIn("torch.ShortStorage", None, "I16"),
        _StandIn("torch.CharStorage", None, "I8"),
        _StandIn("torch.ByteStorage", None, "U8"),
        _StandIn("torch.BoolStorage", None, "BOOL"),
    )
}


_ALLOWED = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS "
    "BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID"
)


class _Opcodes(dict[int, Callable[[pickle.Unpickler], None]]):
    """The unpickler's table of opcodes; one that is not in it is refused by its name."""

    def __missing__(self, code: int) -> Callable[[pickle.Unpickler], None]:
        name = next((opcode.name for opcode in pickletools.opcodes if opcode.code == chr(code)), code)
        raise CheckpointError(f"the pickle's opcode {name} has no place in a state dict; nothing of it is run.")


_OPCODES = _Opcodes(
    (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]]) for name in _ALLOWED.split()
)
_OPCODES[pickle.EMPTY_DICT[0]] = lambda unpickler: unpickler.append(_Dict())  # type: ignore[attr-defined]


class _StateDictUnpickler(pickle._Unpickler):  # the one written in Python
    dispatch = _OPCODES

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """The stand-in of a name; nothing is imported."""
        if f"{module}.{name}" not in _NAMES:
            raise CheckpointError(
                f"the pickle asks for {f'{module}.{name}'!r:.100}, which no tensor needs; nothing of it is run. "
                "Only a state dict (torch.save(model.state_dict(), ...)) can be read."
            )
        return _NAMES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of ("storage", type, key, device, count), before torch 1.6 with a view of it, which is None."""
        kind, form, key, _, numbers, *view = pid
        typed = isinstance(form, _StandIn) and form.dtype
        if kind != "storage" or not typed or not isinstance(key, str) or not _is_count(numbers) or any(view):
            raise ValueError("a persistent id is that of no storage")
        storage = Storage(key, form.dtype, numbers)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage has two types, or two sizes")
        return storage
