"""A model's folder: which one a name means, and what lies in it besides the weights."""

from .directory import CANONICAL as CANONICAL
from .directory import local_folder as local_folder
from .directory import model_in as model_in
from .directory import reading as reading
from .directory import refuse_no_hub_id as refuse_no_hub_id
from .parts import read_config as read_config
from .parts import read_tokenizer as read_tokenizer
from .sentence import MODULES as MODULES
from .sentence import PROMPTS as PROMPTS
from .sentence import Sentence as Sentence
from .sentence import read_sentence as read_sentence
