"""Weight files of several makers, each read into Hugging Face's names and torch's layout by a module of its own."""

from .quantised import PATTERN as PATTERN
from .quantised import PREFIX as PREFIX
from .quantised import Quantised as Quantised
from .safetensors_files import INDEX as INDEX
from .safetensors_files import WEIGHTS as WEIGHTS
from .stored import Stored as Stored
from .stored import Weights as Weights
from .torch_files import TORCH as TORCH
from .weights import find_one as find_one
from .weights import open_weights as open_weights
