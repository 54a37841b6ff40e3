"""jaxsmooth: a BERT with its LayerNorm scale and attention in the open, and the theory of over-smoothing."""

from . import metrics as metrics
from . import theory as theory
from .analysis import diagnose as diagnose
from .bert.config import EncoderConfig as EncoderConfig
from .bert.encoder import embed as embed
from .bert.encoder import encode as encode
from .bert.encoder import image_batch as image_batch
from .bert.encoder import keep_nothing as keep_nothing
from .bert.encoder import keep_trace as keep_trace
from .bert.params import Encoder as Encoder
from .bert.params import init_encoder as init_encoder
from .checkpoint import load as load
from .checkpoint import save as save
from .diagnosis import Diagnosis as Diagnosis
from .errors import JaxsmoothError as JaxsmoothError
from .text import Tokenizer as Tokenizer
from .types import SITES as SITES
from .types import Batch as Batch
from .types import BlockTrace as BlockTrace
from .types import Edits as Edits
from .types import ImageBatch as ImageBatch
from .types import Trace as Trace
from .types import compose as compose
from .verification import verify as verify
from .verified import Verification as Verification
