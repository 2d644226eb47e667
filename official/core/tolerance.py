"""Bounds on how far one quantity may be from another's; reproduction/traces/compare.py measures and judges by them."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat

Precision = Literal["float16", "bfloat16", "float32", "float64"]
QuantityType = Literal[
    "image", "layer", "head", "boxes", "detections", "loss", "gradient", "targets", "parameters", "statistics",
    "schedule", "steps", "score",
]  # fmt: skip


class _Tolerance(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Absolute(_Tolerance):
    """|ours - expected| <= bound."""

    type: Literal["absolute"] = "absolute"
    bound: NonNegativeFloat


class OfAbsmax(_Tolerance):
    """|ours - expected| <= bound * the largest |expected| of the array."""

    type: Literal["of_absmax"] = "of_absmax"
    bound: NonNegativeFloat


class Relative(_Tolerance):
    """|ours - expected| <= bound * |expected|, for each element."""

    type: Literal["relative"] = "relative"
    bound: NonNegativeFloat


class AbsoluteAndRelative(_Tolerance):
    """|ours - expected| <= absolute + relative * |expected|, for each element."""

    type: Literal["absolute_and_relative"] = "absolute_and_relative"
    absolute: NonNegativeFloat
    relative: NonNegativeFloat


class Exact(_Tolerance):
    """Every element is equal."""

    type: Literal["exact"] = "exact"


class SameSet(_Tolerance):
    """Every row has a partner, and no element of a pair of rows differs by more than the bound."""

    type: Literal["same_set"] = "same_set"
    bound: NonNegativeFloat


Tolerance = Annotated[
    Absolute | OfAbsmax | Relative | AbsoluteAndRelative | Exact | SameSet, Field(discriminator="type")
]
Tolerances = dict[QuantityType, dict[Precision, Tolerance]]  # by the precision that a quantity comes in
