"""A chat asked with another prompt profile than its own."""

from __future__ import annotations

from mmrerank.chat.around import Around
from mmrerank.ports import Chat


class Prompted(Around):
    """``inner`` with the prompts of ``folder``; empty for the product's own (`Chat.prompts`)."""

    def __init__(self, inner: Chat, folder: str) -> None:
        super().__init__(inner)
        self._folder = folder

    @property
    def prompts(self) -> str:  # type: ignore[override]
        """The folder that was named, whatever the inner chat's is."""
        return self._folder
