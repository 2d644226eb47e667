"""What an experiment claims to reproduce, and by which numbers that is judged."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from official.core.config import Config, Metric
from official.core.tolerance import Tolerances


class Expected(Config):
    metric: Metric
    value: float
    tolerance: NonNegativeFloat = Field(description="Absolute, in the metric's own unit (0..1).")
    images: PositiveInt | None = Field(
        None, description="Of the split it was measured on; on others it proves nothing."
    )


class Curve(Config):
    """The original's loss by step, and how near a run has to stay to it."""

    file: str = Field(description="CSV with the columns step and loss, or JSON: a list of [step, loss].")
    band: PositiveFloat = Field(0.2, description="Part of the original's loss by which ours may lie above or below.")
    from_step: NonNegativeInt = Field(0, description="Before it nothing is judged: a start is noisy.")
    smoothing: float = Field(
        0.9, ge=0, lt=1, description="Share of the mean so far in the running mean, of both, at each recorded step."
    )
    abort: bool = Field(True, description="Whether a training that leaves the band stops.")


class Reproduces(Config):
    """What this experiment claims to reproduce, and when it may be called reproduced."""

    paper: str
    code: str = Field("", description="The original's repository and commit.")
    expected: tuple[Expected, ...] = ()
    hardware: str = ""
    time: str = ""
    original: str = Field(
        "",
        description="Its recipe: a Darknet cfg, by a name below --assets; or the options its program was called with.",
    )
    weights: str = Field("", description="The original's weights, by a name below --assets.")
    traces: tuple[str, ...] = Field((), description="Folders of recorded traces (docs/traces.md).")
    paper_says: dict[str, bool | int | float | str] = Field(
        {}, description="What the paper states, by the key of this configuration that it is about."
    )
    differences: dict[str, str] = Field(
        {}, description="Keys of this configuration that differ from the original on purpose, and why."
    )
    curve: Curve | None = None
    tolerances: Tolerances = Field(
        {},
        description="Bounds in place of the built-in ones, for tools.judge: by the kind of a quantity, then by "
        "the coarser precision of the two arrays that are compared.",
    )
