"""The one exception of the library."""

from __future__ import annotations

from typing import Tuple, Type

from ._enums import Status


class DsvError(RuntimeError):
    """What failed, where, and the remedy, in one sentence; `status` is one of dsv.Status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        # A newer library may know more.
        self.status = Status(status) if status in Status.__members__.values() else status
        self.sentence = sentence

    def __reduce__(self) -> Tuple[Type[DsvError], Tuple[int, str]]:  # the default one would call DsvError(sentence)
        return DsvError, (self.status, self.sentence)
