"""Errors that stop a command with a message."""


class ConversionError(Exception):
    """The checkpoint or the command line cannot be used; the message says why."""
