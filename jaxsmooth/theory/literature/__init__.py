"""The literature's theorems, one function each."""
