"""Why a checkpoint is not the model that its config.json describes: what is there instead, in words."""

import warnings
from collections import Counter
from collections.abc import Container, Sequence

from ..errors import CheckpointError
from .formats import Weights
from .tensors import DTYPES, CheckpointWarning, and_more
from .wrappers import SAMPLE, Sorted, families_of, prefix_of


def lacking(weights: Weights, found: Sorted, family: str, what: str) -> CheckpointError:
    """The refusal of a checkpoint that lacks an encoder's tensors.

    Args:
      weights: the checkpoint's.
      found: its names.
      family: that of config.json.
      what: what it lacks.

    Returns:
      An error that says first what is there instead.
    """
    return CheckpointError(" ".join(filter(None, (f"{weights.where}:", what_is_there(found, family), what))))


def what_is_there(found: Sorted, family: str) -> str:
    """What a checkpoint that lacks an encoder's tensors holds instead.

    Args:
      found: its names.
      family: that of config.json.

    Returns:
      A sentence or two; "" where the encoder's other tensors are there.

    >>> print(what_is_there(Sorted({}, {}, [], ["tower.pooler.dense.bias"]), "bert"))
    1 of its 1 names begin with 'tower.', as 'tower.pooler.dense.bias', and what stands there is no wrapper known \
here: save the module inside by itself, or take that prefix off the names.
    """
    names = [*found.own, *found.heads, *found.inside, *found.others]
    if not names:
        return "It holds no tensor at all."
    if adapter := _adapter(names):
        return adapter
    others = families_of(names)
    if others and family not in others:
        return (
            f"Its tensors are those of the family {' or '.join(map(repr, others))}, as {_example(names, others[0])!r}, "
            f"but config.json says model_type {family!r}. Do the two files belong together? If a class of your own "
            "called them so, take that off their names."
        )
    behind = [name for name in found.others[:SAMPLE] if prefix_of(name, family) is not None]
    if len(behind) > min(len(found.own), SAMPLE - 1):
        prefix, count = Counter(prefix_of(name, family) or "" for name in behind).most_common(1)[0]
        example = next(name for name in behind if prefix_of(name, family) == prefix)
        return (
            f"{count} of its {len(names)} names begin with {prefix!r}, as {example!r}, and what stands there is no "
            "wrapper known here: save the module inside by itself, or take that prefix off the names."
        )
    if found.own:
        inside = f"Inside its encoder it holds {_listed(found.inside)}, which the family {family!r} does not have."
        return inside if found.inside else ""
    return f"It holds {_listed(names)}, none of which is of the family {family!r}."


def refuse_unexpected(weights: Weights, found: Sorted, wanted: Container[str]) -> None:
    """Refuse tensors that the encoder of config.json has no place for; warn of those that are none of its own.

    transformers passes over both with a note: a config of fewer layers than the file cuts the model, and a layer's
    unknown matrix is left out. Here what lies inside the encoder and holds real numbers is refused.

    Args:
      weights: the checkpoint's.
      found: its names.
      wanted: the plain names that the encoder takes.

    Raises:
      CheckpointError: names the first such tensor and its file.
    """
    tensors = {tensor.name: tensor for tensor in weights.tensors}
    beyond = [name for name, plain in found.own.items() if plain not in wanted]
    parameters = [name for name in found.inside if tensors[name].dtype in DTYPES]
    unexpected = sorted([*beyond, *parameters])
    if unexpected:
        name, file = found.own.get(unexpected[0], unexpected[0]), tensors[unexpected[0]].file
        why = _adapter(unexpected) or "Does config.json match?"
        raise CheckpointError(f"{file}: tensor {name!r} is unexpected{and_more(unexpected)}. {why}")
    left = sorted([*found.others, *(name for name in found.inside if name not in parameters)])
    if left:
        message = f"{weights.where}: tensor {left[0]!r} is no part of the encoder, and is left out{and_more(left)}."
        warnings.warn(message, CheckpointWarning, stacklevel=5)  # at the caller of `load`, which is wrapped


def _adapter(names: Sequence[str]) -> str:
    found = [name for name in names if any(part in name for part in (".lora_", ".adapters.", ".base_layer."))]
    return (
        f"It holds an adapter that is not merged, as {found[0]!r}: merge it into the model once (merge_and_unload() of "
        "peft), and save that."
        if found
        else ""
    )


def _example(names: Sequence[str], family: str) -> str:
    return next(name for name in names if prefix_of(name, family) is not None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
