"""The cfg that a trace of Darknet was recorded with."""

from modeling.darknet.cfg import Network, parse_cfg
from modeling.darknet.options import Layer
from reproduction.traces.case import Case
from reproduction.traces.trace import TraceError


def network_of(case: Case) -> Network:
    """The cfg in the trace, parsed once."""
    return case.once(_parsed)


def _parsed(case: Case) -> Network:
    return parse_cfg(case.trace.text("meta/cfg"), f"{case.path}:meta/cfg")


def heads_of(case: Case) -> tuple[Layer, ...]:
    """The cfg's sections that detect, at least one."""
    found = network_of(case).heads
    if not found:
        raise TraceError(f"{case.path}: its cfg has no section that detects")
    return found
