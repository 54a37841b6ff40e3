"""sentence-transformers' folders: where the encoder lies in one, and what of its settings reaches the encoder's input.

`modules.json` lists the steps from a text to one vector. The first is the encoder, in a folder of its own
(`0_Transformer`) or in the root. What it says of its input holds for our tokenizer too: `max_seq_length`, where texts
are cut, and `do_lower_case`. The steps after it (pooling, Dense, Normalize) make one vector of the hidden states;
`load` gives the hidden states, and `read_sentence` says what the steps are.

Reference: sentence-transformers 6, base/modules/transformer.py and base/model.py.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ...errors import CheckpointError, ConfigError, is_int
from ...json_reading import loads
from ..formats import has_weights, refuse_unfit

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""What the encoder's settings are called; the first that is there counts."""
ENCODERS = ("Transformer", "MLMTransformer", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa")
"""The modules that are an encoder of transformers; old versions had one for each family."""


class Sentence(NamedTuple):
    """What sentence-transformers does around an encoder.

    Attributes:
      max_length: most tokens of a text, special tokens included; None for the model's.
      lower_case: whether texts are lower-cased first.
      steps: the steps after the encoder, in order, as ("Pooling (mean)", "Normalize"); `load` takes none of them.
      prompts: what may be put before a text, by name.
      default_prompt: the name of the prompt that is put before every text; None for none.
    """

    max_length: int | None = None
    lower_case: bool = False
    steps: tuple[str, ...] = ()
    prompts: Mapping[str, str] = MappingProxyType({})
    default_prompt: str | None = None


def encoder_folder(root: Path) -> Path:
    """The folder of the encoder in a sentence-transformers folder; any other folder is its own.

    Args:
      root: a model's folder.

    Returns:
      `root`, or the folder in it that `modules.json` names.

    Raises:
      CheckpointError: a first module that is no Transformer, or is not there.
      ConfigError: an unreadable `modules.json`.
    """
    # Old versions wrote a config.json of their own into the root, beside no weights.
    if not (root / MODULES).is_file() or ((root / "config.json").exists() and has_weights(root)):
        return root
    first = _modules(root)[0]
    if _kind(first) not in ENCODERS:
        raise CheckpointError(
            f"{root / MODULES}: its first module must be a Transformer; got {first['type']!r}, which has no encoder "
            "that is read here."
        )
    if not (root / first["path"]).is_dir():
        raise CheckpointError(f"{root / MODULES} says that the encoder lies in {first['path']!r}, which is not there.")
    return root / first["path"]


def read_sentence(directory: str | Path) -> Sentence:
    """What sentence-transformers does around the encoder of a folder.

    Args:
      directory: the root with `modules.json`, or the encoder's folder in it.

    Returns:
      Its settings; those of a plain model where there is no `modules.json`.

    Raises:
      ConfigError: a file that is no JSON, or a setting of the wrong type; the message names it.

    >>> read_sentence("no such folder").steps
    ()
    """
    folder = Path(directory)
    root = next((place for place in (folder, folder.parent) if (place / MODULES).is_file()), None)
    if root is None:
        return Sentence()
    modules = _modules(root)
    folder = root / modules[0]["path"]
    if Path(directory).resolve() not in (root.resolve(), folder.resolve()):
        return Sentence()  # another folder beside that of the encoder
    name = next((name for name in SETTINGS if (folder / name).is_file()), None)
    settings = {} if name is None else _object(folder / name)
    length, lower = settings.get("max_seq_length"), settings.get("do_lower_case", False)
    if not (length is None or is_int(length, 1)) or not isinstance(lower, bool):
        raise ConfigError(
            f"{folder / str(name)}: max_seq_length must be a positive integer or null, do_lower_case true or false; "
            f"got {length!r} and {lower!r}."
        )
    prompts = _object(root / PROMPTS) if (root / PROMPTS).is_file() else {}
    texts = prompts.get("prompts") or {}
    return Sentence(
        length,
        lower,
        tuple(_step(root, module) for module in modules[1:]),
        texts if isinstance(texts, dict) else {},
        prompts.get("default_prompt_name"),
    )


def _modules(root: Path) -> list[dict[str, str]]:
    modules = _json(root / MODULES)
    if not isinstance(modules, list) or not modules or not all(map(_is_module, modules)):
        raise ConfigError(
            f"{root / MODULES} must list modules, each with a type and a path inside its folder; got {modules!r:.200}."
        )
    return modules


def _is_module(module: object) -> bool:
    if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("path", "type")):
        return False
    path = Path(module["path"])
    return not path.is_absolute() and ".." not in path.parts and module["path"].isprintable()


def _kind(module: dict[str, str]) -> str:
    return module["type"].rpartition(".")[2]


def _step(root: Path, module: dict[str, str]) -> str:
    """A module in words; of a pooling also which."""
    settings = root / module["path"] / "config.json"
    if _kind(module) != "Pooling" or not settings.is_file():
        return _kind(module)
    said = _object(settings)
    modes = [key.removeprefix("pooling_mode_") for key, on in said.items() if on is True and "pooling_mode_" in key]
    return f"Pooling ({', '.join(modes or [str(said.get('pooling_mode', 'mean'))])})"


def _object(path: Path) -> dict[str, Any]:
    found = _json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold one JSON object; got {type(found).__name__}.")
    return found


def _json(path: Path) -> Any:
    refuse_unfit(path, ConfigError)
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from error
