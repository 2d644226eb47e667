"""The options by which a recorded loss is compared: the experiment's own where they agree with the recording's."""

from typing import NamedTuple

import pydantic

from configs.yolo.heads import Head
from configs.yolo.losses import Loss, YoloLoss
from losses.yolo.from_cfg import head_and_loss
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case
from reproduction.yolo.case import network_of


class Options(NamedTuple):
    """What a recorded case is computed by."""

    head: Head  # the recording's: its anchors, masks and grids
    rules: Loss
    differs: str = ""  # in what the recording's options are not the experiment's
    refused: str = ""  # why the case cannot be computed as the experiment would

    @property
    def is_automatic(self) -> bool:
        """Whether the gradient is the automatic one, of which only some terms are Darknet's."""
        return isinstance(self.rules, YoloLoss) and self.rules.gradient == "autodiff"


def options_of(case: Case, subject: Subject) -> Options:
    """The recording's options, with the experiment's gradient; of traces alone, as they are.

    Raises:
        CfgError: the recording's cfg has no such head or loss.
    """
    head, recorded = head_and_loss(network_of(case))
    if subject.experiment is None:
        return Options(head, recorded)
    own = subject.experiment.task.loss
    try:
        rules = _with_gradient(recorded, own)
        levels = [
            level.model_copy(update={"loss": level.loss and _with_gradient(level.loss, own)}) for level in _levels(head)
        ]
    except pydantic.ValidationError as error:
        return Options(
            head, recorded, refused=f"recorded with an option that is not the experiment's: {_message(error)}"
        )
    if levels:
        head = head.model_copy(update={"levels": tuple(levels)})
    if rules == own:
        subject.own.note("task.loss")
        return Options(head, own)
    there, here = (one.model_dump() for one in (rules, own))
    named = ", ".join(f"{name} {value}, here {here[name]}" for name, value in there.items() if here.get(name) != value)
    return Options(head, rules, f"recorded with {named}: computed by the recording's; own_loss has the experiment's")


def _levels(head: Head) -> tuple:
    return getattr(head, "levels", ())


def _with_gradient(rules: Loss, own: Loss) -> Loss:
    """The same rules with the experiment's kind of gradient; a ValidationError where that has no such option."""
    if not isinstance(rules, YoloLoss):
        return rules
    return YoloLoss(**{**rules.model_dump(), "gradient": own.gradient})


def _message(error: pydantic.ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")
