"""What the studies find: plain dataclasses of numpy arrays, made by `studies`, written by `report`; kept here."""

from .each_text import TextValues as TextValues
from .saved import load_result as load_result
from .saved import save_result as save_result
from .tables import texts_table as texts_table
from .tables import to_table as to_table
