"""The contents page: what `jaxsmooth.NAME` gives, loaded when first asked for."""

from . import assets as assets
from . import bert as bert
from . import errors as errors
from . import interventions as interventions
from . import metrics as metrics
from . import mitigations as mitigations
from . import report as report
from . import theory as theory
from . import training as training
from . import types as types
from .bert import fusion as fusion
from .bert.config import EncoderConfig as EncoderConfig
from .bert.encoder import embed as embed
from .bert.encoder import encode as encode
from .bert.encoder import image_batch as image_batch
from .bert.encoder import keep_nothing as keep_nothing
from .bert.encoder import keep_trace as keep_trace
from .bert.params import Encoder as Encoder
from .bert.params import init_encoder as init_encoder
from .checkpoints.config_json import config_from_dict as config_from_dict
from .checkpoints.config_json import config_from_file as config_from_file
from .checkpoints.config_json import config_to_dict as config_to_dict
from .checkpoints.config_json import family_config as family_config
from .checkpoints.encoder import load as load
from .checkpoints.heads import load_with_head as load_with_head
from .checkpoints.save import save as save
from .checkpoints.save import save_with_head as save_with_head
from .errors import JaxsmoothError as JaxsmoothError
from .inputs.tokenizer import Tokenizer as Tokenizer
from .results.comparison import Comparison as Comparison
from .results.diagnosis import Diagnosis as Diagnosis
from .results.fate import MapConvergence as MapConvergence
from .results.verification import Verification as Verification
from .studies.compare import compare as compare
from .studies.converge import converge as converge
from .studies.diagnose import diagnose as diagnose
from .studies.verify import verify as verify
from .types import SITES as SITES
from .types import Batch as Batch
from .types import BlockTrace as BlockTrace
from .types import Edits as Edits
from .types import ImageBatch as ImageBatch
from .types import Trace as Trace
from .types import compose as compose

__version__: str
