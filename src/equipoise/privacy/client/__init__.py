"""The code on a person's device: it checks the question, spends once, and sends blurred bits.

It needs the standard library and this folder only, so that the folder can be copied to a device
by itself.
"""

from equipoise.privacy.client.client import Client
from equipoise.privacy.client.errors import AlreadySpent, PrivacyError, RoundError
from equipoise.privacy.client.ledger import Ledger
from equipoise.privacy.client.round import RoundDescription

__all__ = [
    "AlreadySpent",
    "Client",
    "Ledger",
    "PrivacyError",
    "RoundDescription",
    "RoundError",
]
