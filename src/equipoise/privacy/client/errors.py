"""The errors of `privacy`: ValueErrors whose messages are one sentence each."""

from __future__ import annotations


class PrivacyError(ValueError):
    """A value, a parameter or a file that cannot be used; the message says why and what to do."""


class RoundError(PrivacyError):
    """A round that a client must not answer, or that an aggregator cannot open or close."""


class AlreadySpent(PrivacyError):
    """A person's privacy budget has been spent, so that no further report may leave the device."""


class MergeError(PrivacyError):
    """Two partial counts that do not belong together, or that both hold the same report."""
