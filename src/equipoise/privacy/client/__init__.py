"""What runs on a person's device: it checks what it is asked, spends once, sends blurred bits.

Standard library only, and nothing of the package but this folder, so that it can be copied to a
device alone.
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
