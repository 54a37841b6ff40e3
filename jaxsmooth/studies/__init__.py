"""The four studies of a model on text: diagnose, verify, converge, compare."""
