"""The pickle of a torch state dict, read by a machine that can build names, numbers, tuples and tensors only.

Python's own unpickler calls whatever a pickle names, and its C version can be made to fill the memory by one
opcode. Here the opcodes are walked with `pickletools` and interpreted by hand: an opcode, a name or a shape of
data that a state dict has no use for is refused, and nothing is ever called.

References: Python's pickletools (the opcodes), torch.serialization and torch._utils (what torch writes).
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

from ...errors import CheckpointError

SIZE_LIMIT = 8 * 2**20
"""Bytes of a pickle; that of a model with ten thousand tensors has two million."""
AXES_LIMIT = 8

_STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_DICT, _TENSOR, _PARAMETER = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)
_NAMES = {_DICT, _TENSOR, _PARAMETER, *(f"torch.{name}" for name in _STORAGES)}


class Storage(NamedTuple):
    """A run of numbers in a member of the archive.

    Attributes:
      key: the member's name below `data/`.
      dtype: as `stored.DTYPES` spells it.
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


class _Name(NamedTuple):
    """What the pickle names but never gets: a function or class of the list above."""

    name: str


def read_state_dict(raw: bytes, source: str) -> dict[str, View]:
    """The tensors that a pickled state dict describes, their numbers unread.

    Args:
      raw: the pickle.
      source: names it in errors.

    Returns:
      Name -> view, in the file's order.

    Raises:
      CheckpointError: a pickle that is damaged or too long, or that is anything but a dict of tensors.
    """
    if len(raw) > SIZE_LIMIT:
        raise CheckpointError(f"{source}: its pickle must have at most {SIZE_LIMIT} bytes; got {len(raw)}.")
    machine = _Machine(source)
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(raw)):
            machine.step(opcode.name, argument)
        result = machine.stack.pop()
    # What pickletools makes of damaged bytes, and an empty stack or an unknown memo of the machine's own.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source} does not hold a whole pickle: {error!r}. Is the file damaged?") from error
    if not isinstance(result, dict):
        raise CheckpointError(f"{source} must hold a dict of tensors; got {_describe(result)}.")
    for name, value in result.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise CheckpointError(f"{source} must hold tensors by name; got {_describe(value)} under {name!r:.60}.")
    return result


class _Machine:
    """A stack and a memo, as a pickle machine has; every value is a constant, a tuple, list or dict, or a `View`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one opcode."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name](argument))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise CheckpointError(
                f"{self.source}: the pickle's opcode {name} has no place in a state dict; nothing of it is run."
            )

    def remember(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        place = self.marks.pop()
        items = self.stack[place:]
        del self.stack[place:]
        return items

    def take(self, count: int) -> tuple[Any, ...]:
        """Take so many values off the stack."""
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def name(self, name: str) -> None:
        if name not in _NAMES:
            raise CheckpointError(
                f"{self.source}: the pickle asks for {name!r:.100}, which no tensor needs; nothing of it is run. "
                "Only a state dict (torch.save(model.state_dict(), ...)) can be read."
            )
        self.stack.append(_Name(name))

    def fill(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Put keys and values into the dict on top of the stack."""
        target = self.stack[-1]
        keys = items[::2]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, (str, int)) for key in keys):
            raise ValueError("items are set that are none of a dict of names")
        target.update(zip(keys, items[1::2], strict=True))

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("a value is appended to what is no list")
        self.stack[-1].extend(items)

    def reduce(self) -> None:
        """Call, in a normal pickle; here one of three names builds what it stands for."""
        function, arguments = self.take(2)
        name = function.name if isinstance(function, _Name) else None
        count = len(arguments) if isinstance(arguments, tuple) else -1
        if name == _DICT and count == 0:
            self.stack.append({})
        elif name == _TENSOR and count in (6, 7):
            self.stack.append(_view(*arguments[:4]))
        elif name == _PARAMETER and count == 3:
            self.stack.append(arguments[0])
        else:
            raise ValueError(f"{_describe(function)} is called in a way that builds no tensor")

    def build(self) -> None:
        """Attributes of a dict (torch's notes on versions) are dropped; nothing else may have any."""
        target, _ = self.take(2)
        if not isinstance(target, dict):
            raise ValueError(f"attributes are set on {_describe(target)}")
        self.stack.append(target)

    def storage(self) -> None:
        """A persistent id: ("storage", type, key, device, count)."""
        (parts,) = self.take(1)
        if not isinstance(parts, tuple):
            raise ValueError("a persistent id is no tuple")
        kind, name, key, _, count = parts
        dtype = _STORAGES.get(name.name.removeprefix("torch.")) if isinstance(name, _Name) else None
        if kind != "storage" or dtype is None or not isinstance(key, str) or not _is_count(count):
            raise ValueError("a persistent id is that of no storage")
        self.stack.append(Storage(key, dtype, count))


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> View:
    tuples = all(isinstance(axes, tuple) and all(map(_is_count, axes)) for axes in (shape, strides))
    fits = tuples and len(shape) == len(strides) <= AXES_LIMIT
    if not isinstance(storage, Storage) or not _is_count(offset) or not fits:
        raise ValueError("a tensor has no storage, or no shape")
    return View(storage, offset, shape, strides)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _describe(value: object) -> str:
    return f"the name {value.name!r:.100}" if isinstance(value, _Name) else type(value).__name__


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), lambda value: value),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), lambda value: value),
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, place: machine.remember(place)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.stack.append(machine.memo[place])),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(".".join(machine.take(2))),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.stack.append(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.stack.append(machine.take(3)),
    "SETITEM": lambda machine, _: machine.fill(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
