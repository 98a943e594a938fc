"""What is wrong with a published model, in one sentence."""

from equipoise.errors import UserError


class DoesNotFit(UserError, ValueError):
    """A configuration or weights that cannot be what they are said to be; the message names why."""
