"""The encoder: parameters are pytrees, the forward pass is one function; read block.py, attention.py, norm.py."""

from . import fusion as fusion
