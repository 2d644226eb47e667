"""Layers computed anew, with a mistake in them, beside what Darknet recorded: the mistake must be found again."""

import numpy as np
import pytest

from modeling.darknet import sections
from reproduction.golden.case import Case
from reproduction.hints import Clue, explain
from reproduction.hints.layers import (
    ACTIVATIONS,
    layer_alternatives,
    statistics_alternatives,
    training_alternatives,
)

# A case of one layer -> the index of the layer, and causes it must know.
CASES = {
    "conv_s2_odd": {"padding_same"},
}
