"""`python -m tools.tensorlint PATH...`: exit code 0, 1 if something was found, 2 if something could not be read."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.tensorlint.names import parse
from tools.tensorlint.rules import RULES, Finding, check

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
_NOTES = """Public: functions, methods and fields whose names, and whose classes' names, have no leading underscore.
`call` of a Keras layer or model needs no shapes (TL101 to TL103); what a Callable takes is not asked.
`# tensorlint: ignore[RULE] reason` lets a finding on its line pass."""


def main(arguments: list[str] | None = None) -> int:
    rules = "\n".join(f"  {rule}  {meaning}" for rule, meaning in RULES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tools.tensorlint",
        description="Do public functions on tensors state dtype, named shape and, for boxes, the format?",
        epilog=f"rules:\n{rules}\n\n{_NOTES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file, or a folder with all its *.py")
    parser.add_argument("--json", action="store_true", help="the findings as a JSON list")
    parser.add_argument("--rules", action="store_true", help="list the rules and end")
    options = parser.parse_args(arguments)
    if options.rules:
        print(rules)
        return 0
    if not options.paths:
        parser.error("no PATH; expected files or folders to check")
    files = list(dict.fromkeys(file for path in options.paths for file in _files(Path(path))))
    found = [finding for file in files for finding in _check(file)]
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        print("".join(f"{f.path}:{f.line}:{f.column}: {f.rule} {f.message}\n" for f in found), end="")
    print(f"{len(files)} files, {len(found)} findings", file=sys.stderr)
    return 2 if any(finding.rule == "TL001" for finding in found) else int(bool(found))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*.py")):
        folders = file.relative_to(path).parts[:-1]
        if not any(folder in _SKIPPED or folder.startswith(".") for folder in folders):
            yield file


def _check(file: Path) -> list[Finding]:
    try:
        module = parse(file)
    except SyntaxError as error:
        line, column, why = error.lineno or 1, max(error.offset or 1, 1), f"is no Python: {error.msg}"
    except OSError as error:
        line, column, why = 1, 1, f"cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        line, column, why = 1, 1, f"cannot be parsed: {error}"
    else:
        return check(module)
    return [Finding(str(file), line, column, "TL001", f"{file} {why}")]


if __name__ == "__main__":
    sys.exit(main())
