"""Hugging Face checkpoints, read and written: tensors, names, heads, configurations."""
