"""Traces without a manifest, as most programs write them at first, into traces with one."""

import os
import re

from reproduction.traces.trace import Layout, Source, Trace, read_trace, write_trace

# What docs/traces.md says of arrays by their names: the first that fits counts, if the number of axes is right.
_LAYOUTS = (
    (r"_u8_chw$|(^|/)X$", {3: "CHW", 4: "NCHW"}),
    (r"/L\d+_(weights|weight_updates)$", {4: "OIHW", 2: "OI"}),
    (r"(\.|_)weight$", {4: "OIHW", 2: "OI"}),
    (r"L\d+_(output|loss_delta)$|_delta$|/stage/|/delta_after|(^|/)(hm|wh|reg|input)$", {4: "NCHW"}),
)


def convert(path: str | os.PathLike, target: str | os.PathLike, source: Source) -> None:
    """Writes the arrays of a trace once more, with a manifest: hashes, and layouts as far as their names tell."""
    trace = read_trace(path)
    write_trace(target, trace, source, layouts_of(trace))


def layouts_of(trace: Trace) -> dict[str, Layout]:
    """What the manifest says, else what the array's name does."""
    found = dict(trace.layouts)
    for name in trace:
        if found.get(name, Layout()) == Layout():
            by_axes = next((layouts for pattern, layouts in _LAYOUTS if re.search(pattern, name)), {})
            found[name] = Layout(layout=by_axes.get(trace[name].ndim, ""))
    return found
