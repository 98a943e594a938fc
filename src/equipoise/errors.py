"""The ways in which a run can end early, each told to the user in one sentence."""


class UserError(Exception):
    """Something that the user typed or provided cannot work; the message says what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


class RunFailed(Exception):
    """Training could not go on; what it had reached is kept, and the exit status is 1."""


class RunInterrupted(Exception):
    """The user stopped the run; the state after the last whole step has been saved."""
