"""Rates of this project that hold over a region of inputs."""
