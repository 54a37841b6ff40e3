"""What the studies find: plain dataclasses of numpy arrays, made by `studies`, written by `report`."""
