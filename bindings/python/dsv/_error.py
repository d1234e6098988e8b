"""The one exception of the library."""

from __future__ import annotations


class DsvError(RuntimeError):
    """What failed, where, and the remedy, in one sentence; `status` is one of dsv.Status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def __reduce__(self):  # the default one would call DsvError(sentence)
        return DsvError, (self.status, self.sentence)
