"""The parts that an experiment is made of: what a proof has to have run before it may call the experiment proven."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from configs.experiment import Experiment
from official.core.config import Config
from reproduction.experiment.original import Original


class Part(NamedTuple):
    """One part. Checks note its name when they call it."""

    what: str  # its type, and the options that are not the defaults
    unproven: str  # why it may be that no check has called it, and what to do


# Keys of an experiment that name no part: what concerns the machine, the length and the look of a run alone.
NO_PART = (
    *("task.type", "task.data.classes", "task.data.validation", "task.model.type", "task.model.input_size"),
    *("trainer.duration", "trainer.steps_per_loop", "trainer.checkpoint", "trainer.evaluate_every"),
    *("trainer.summary_every", "runtime.device", "runtime.tpu", "runtime.tpu_zone", "runtime.tpu_project"),
    *("runtime.wait_for_workers", "runtime.seed", "runtime.deterministic", "reproduces", "schema_version"),
)
_NETWORK = "no output of this network is recorded or described: give its traces and weights, or its cfg (--assets)"
_STEP = "gates 7 and 9 run it; they were not asked, or did not pass"


def parts_of(experiment: Experiment, original: Original) -> dict[str, Part]:
    """All parts of an experiment by name; those of the configuration have its dotted keys."""
    task, trainer = experiment.task, experiment.trainer
    parts = {f"task.model.{name}": Part(what, _NETWORK) for name, what in _network(task.model, original)}
    parts["task.model.head"] = Part(_said(task.model.head), "gates 3 and 6 run it; they were not asked, or failed")
    parts["task.loss"] = Part(_said(task.loss), "gate 6 runs it; it was not asked, or did not pass")
    parts["label assignment"] = Part(_said(task.loss), "gate 5 runs it; it was not asked, or did not pass")
    parts["pixels"] = Part(_said(task.data.train.augmentation), "gate 8 runs it; it was not asked, or did not pass")
    parts["inference network"] = Part("batch-norm folded", "gate 3 runs it; it was not asked, or did not pass")
    parts["task.evaluation"] = Part(_said(task.evaluation), "gate 3 runs it; it was not asked, or did not pass")
    parts["export"] = Part("SavedModel", "gate 3 runs it; it was not asked, or this protocol cannot be exported")
    parts["input stream"] = Part(
        _said(task.data.train.augmentation), "no check compares the examples that the input pipeline makes"
    )
    parts["training step"] = Part("forward, loss, backward, update", "gate 9 runs it; it was not asked, or failed")
    parts["resume"] = Part("from a checkpoint", "gate 9 runs it; it was not asked, or did not pass")
    parts |= {name: Part(what, _STEP) for name, what in _training(experiment)}
    if task.data.train.multi_scale:
        parts["task.data.train.multi_scale"] = Part(_said(task.data.train.multi_scale), _STEP)
    if trainer.initialise:
        what = "no check compares what a run starts from; its report names every weight that was not loaded"
        parts["trainer.initialise"] = Part(_said(trainer.initialise), what)
    if experiment.runtime.precision != "float32":
        what = "checks compute in float32 and float64; compare a run of a few hundred steps with one in float32"
        parts["runtime.precision"] = Part(experiment.runtime.precision, what)
    return parts


def unproven(experiment: Experiment, original: Original, called: Collection[str]) -> dict[str, Part]:
    """The parts that no check has called."""
    return {name: part for name, part in parts_of(experiment, original).items() if name not in called}


def _network(model: Config, original: Original) -> Iterator[tuple[str, str]]:
    for name in original.network:
        if value := getattr(model, name, None):
            yield name, value if isinstance(value, str) else _said(value)


def _training(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """What the step does between the gradients and the new weights: always, and where the configuration asks for it."""
    trainer = experiment.trainer
    yield "trainer.optimizer", _said(trainer.optimizer)
    yield "trainer.schedule", _said(trainer.schedule)
    for name in ("clip_global_norm", "moving_average", "freeze", "layers"):
        value = getattr(trainer, name)
        if value:
            yield f"trainer.{name}", _said(value) if isinstance(value, Config) else str(value)
    if trainer.micro_batches > 1:
        yield "trainer.micro_batches", str(trainer.micro_batches)


def _said(config: Config | None) -> str:
    """The type, and the options that are set otherwise than by default: `sgd (weight_decay 0.0005)`."""
    if config is None:
        return "none"
    fields = type(config).model_fields
    options = [
        f"{name} {value}" if isinstance(value := getattr(config, name), bool | int | float | str) else name
        for name, field in fields.items()
        if name != "type" and getattr(config, name) != field.get_default(call_default_factory=True)
    ]
    listed = f" ({', '.join(options)})" if options else ""
    return f"{getattr(config, 'type', '')}{listed}".strip() or "as by default"
