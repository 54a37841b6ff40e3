"""Interventions on a run: replace, scale or patch any site, and attribute what a layer does to its parts.

Builders return `Edits`. Chosen indices and values travel as arrays, so sweeping them never recompiles:

    only = restrict(Edits(attn=uniform), layers=3, heads=[0, 5])
    encode(model, batch, edits=compose(only, scale("mlp", 0.0, layers=5)))

`record` keeps what another run computed and `patch` puts it in place; `patch_effect` does both and says what changed.
"""

from .attribution import PARTS as PARTS
from .attribution import attribute as attribute
from .attribution import attribution as attribution
from .builders import SITE_AXES as SITE_AXES
from .builders import Indices as Indices
from .builders import replace as replace
from .builders import restrict as restrict
from .builders import scale as scale
from .patching import PatchEffect as PatchEffect
from .patching import patch as patch
from .patching import patch_effect as patch_effect
from .patching import patch_map as patch_map
from .patching import record as record
