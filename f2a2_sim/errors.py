"""Errors that a user can mend, and the exit status that each one ends the program with."""

from __future__ import annotations


class F2A2Error(Exception):
    """An error whose message is for the user: it is printed as it stands, without a traceback."""

    exit_code = 1


class UsageError(F2A2Error):
    """Wrong input (scenario, key, value, file, checkpoint): names it, and says what to do."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario that cannot be run."""


class CheckpointError(UsageError):
    """A checkpoint that is damaged, incomplete, or of another run or version."""


class RunError(F2A2Error):
    """A run that had to stop (disk full, world failed); its folder stays usable."""
