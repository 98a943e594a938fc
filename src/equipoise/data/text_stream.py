"""Tokens that arrive one by one, as text that can be shown at once."""

from __future__ import annotations

from equipoise.data.vocabulary import Vocabulary

WINDOW = 16
INCOMPLETE = "\ufffd"


class TextStream:
    """Gives the text that each further token adds, at a cost that does not grow with the text.

    A token may change how the one before is written (a space between words, the rest of a
    character's bytes); what is incomplete is held back.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.recent: list[int] = []
        self.shown = 0

    def add(self, token: int) -> str:
        """Return the text that can be shown now and could not before."""
        if len(self.recent) >= WINDOW and self.shown == len(self._text()):
            self.recent = self.recent[-WINDOW // 2 :]
            self.shown = len(self._text())
        self.recent.append(token)
        text = self._text()
        if text.endswith(INCOMPLETE) and len(self.recent) < 2 * WINDOW:
            return ""
        piece, self.shown = text[self.shown :], len(text)
        return piece

    def _text(self) -> str:
        return self.vocabulary.decode(self.recent)
