"""The one exception a user sees."""


class SaeflowError(Exception):
    """A mistake or a mishap told in one sentence: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; a traceback is reserved for
    defects of saeflow itself.
    """
