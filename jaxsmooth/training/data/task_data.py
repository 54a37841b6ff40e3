"""One split of a task, as a training run or an evaluation uses it."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

from ...inputs.tokenizer import Tokenizer
from .records import Records, make_records
from .tasks import Example, Split, Task


@dataclasses.dataclass(frozen=True)
class TaskData:
    """One split of a task, ready for one tokenizer.

    Attributes:
      task: what is to be learnt.
      split: which part of the data this is.
      examples: as read.
      tokenizer: the model's.
      max_length: most tokens of a row; longer texts are cut (a long context gives several rows).
      each_token: for a masked LM, whether every token is masked in turn (pseudo-perplexity).
      notes: what was left out of the data, and why.
    """

    task: Task
    split: Split
    examples: Sequence[Example]
    tokenizer: Tokenizer
    max_length: int
    each_token: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Records: the examples, or for long contexts and `each_token` more."""
        return len(self.records)

    @functools.cached_property
    def records(self) -> Records:
        """The records, made on demand."""
        return make_records(self.task, self.examples, self.tokenizer, self.max_length, each_token=self.each_token)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what the records are made from: examples, tokenizer and length."""
        digest = hashlib.sha256(f"{self.tokenizer.fingerprint} {self.max_length} {self.each_token}".encode())
        for example in self.examples:
            digest.update(repr(example).encode())
        return digest.hexdigest()

    def truncated(self) -> int:
        """How many records do not hold their whole text. Tokenises all of them."""
        starts = range(0, len(self), 1024)
        parts = (self.records.make(range(s, min(s + 1024, len(self))), 0, 0) for s in starts)
        return sum(any(row.truncated for row in record.rows) for part in parts for record in part)
