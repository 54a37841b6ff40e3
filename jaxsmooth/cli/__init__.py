"""The command line: one dataclass a command, parsed by tyro."""
