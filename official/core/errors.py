"""Errors made for the user: one message that says what is wrong, where, what was expected and what to do."""

import functools
import re
import sys
from collections.abc import Callable

_OF_THE_GRAPH = re.compile(
    r"\{\{function_node [^}]*\}\} ?|Error in user-defined function passed to .* with iterator: \S+: |\s*\[Op:\w+\].*"
)


class UserError(ValueError):
    """Something the user gave cannot be used. The commands print its message without a traceback."""

    exit_code = 1


class TryAgainError(UserError):
    """The run ended before its time, and nothing is to be mended: the same command goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters; its type where there is no message.

    Without what TensorFlow says around it of its own graph.
    """
    lines = _OF_THE_GRAPH.sub("", str(getattr(error, "message", None) or error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command's `main`: an error made for the user ends it with the message alone and its exit code.

    So does a file that cannot be read or written, locally or remotely.
    """

    @functools.wraps(main)
    def wrapped(*arguments: list[str]) -> None:
        try:
            if arguments and len(arguments[0]) > 1:  # absl hands on what belongs to no flag
                raise UserError(f"unexpected argument {arguments[0][1]!r}: all input goes by flags; see --help")
            main(*arguments)
        except (UserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 1))
        except Exception as error:
            if not _is_file_system_error(error):
                raise
            sys.exit(f"error: {first_line(error)}")

    return wrapped


def _is_file_system_error(error: Exception) -> bool:
    """TensorFlow reports files, local and remote, by these; told by name, so that no command waits for its import."""
    names = {
        "NotFoundError",
        "FailedPreconditionError",
        "PermissionDeniedError",
        "UnavailableError",
        "AlreadyExistsError",
    }
    return type(error).__module__ == "tensorflow.python.framework.errors_impl" and type(error).__name__ in names
