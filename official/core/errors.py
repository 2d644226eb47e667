"""Errors made for the user: one message that says what is wrong, where, what was expected and what to do."""

import functools
import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user gave cannot be used. The commands print its message without a traceback."""


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command's `main`: an error made for the user ends it with the message alone and exit code 1."""

    @functools.wraps(main)
    def wrapped(*arguments: list[str]) -> None:
        try:
            main(*arguments)
        except (UserError, FileNotFoundError) as error:
            sys.exit(f"error: {error}")

    return wrapped
