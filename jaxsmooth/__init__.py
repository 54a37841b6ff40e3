"""jaxsmooth: a BERT with its LayerNorm scale and attention in the open, and the theory of over-smoothing.

The contents page is `__init__.pyi`. Nothing of it, and not jax, is imported before it is asked for.
"""

import lazy_loader

_of_stub, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name != "__version__":
        return _of_stub(name)
    from importlib.metadata import version

    return version("jaxsmooth")
