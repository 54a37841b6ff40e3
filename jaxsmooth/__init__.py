"""jaxsmooth: a BERT with its LayerNorm scale and attention in the open, and the theory of over-smoothing.

The contents page is `__init__.pyi`. Nothing of it, and not jax, is imported before it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
