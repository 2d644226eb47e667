"""Darknet's recipe: a cfg as the experiment that it stands for, and what of the two may differ."""

from configs.experiment import Experiment
from configs.yolo.darknet_model import DarknetModel
from modeling.darknet.cfg import Network, read_cfg
from official.core.config_io import check_config
from reproduction.experiment.original import Recipe, RecipeRules
from reproduction.experiment.subject import Subject
from tasks.yolo.recipe import Sources, recipe

INITIALISER = "uniform"  # of every kernel


def original_cfg(subject: Subject) -> Network | None:
    """The cfg that the experiment names as its original, where it is at hand."""
    return subject.once(_original_cfg)


def _original_cfg(subject: Subject) -> Network | None:
    path = subject.find(subject.claims.original) if is_cfg(subject.claims.original) else None
    return read_cfg(str(path)) if path else None


def is_cfg(name: str) -> bool:
    """Whether a file's name is that of a cfg."""
    return name.endswith(".cfg")


def cfg_of(subject: Subject) -> Network | None:
    """The cfg that says which sections the model has: its own, or the original's."""
    return subject.once(_cfg_of)


def _cfg_of(subject: Subject) -> Network | None:
    model = subject.experiment.task.model if subject.experiment else None
    return read_cfg(model.cfg) if isinstance(model, DarknetModel) else original_cfg(subject)


def darknet_experiment(cfg: str, weights: str | None, overrides: list[str]) -> Experiment:
    """The experiment that a cfg stands for, with no data, which claims to reproduce that cfg and those weights.

    Raises:
        CfgError, ConfigError: the cfg, or an override, cannot be used.
    """
    network = read_cfg(cfg)
    classes = tuple(f"class {number}" for number in range(network.heads[-1].classes if network.heads else 1))
    nowhere = {"type": "darknet", "data": "none", "split": "valid"}
    made = recipe(network, Sources(classes, dict(nowhere), dict(nowhere))).experiment
    made["reproduces"] = {"paper": "", "code": cfg, "original": cfg, "weights": weights or ""}
    return check_config(made, Experiment, cfg, overrides)


def _read(subject: Subject) -> Recipe:
    """The experiment that Darknet runs with the original's cfg, on the subject's data."""
    cfg, task = original_cfg(subject), subject.experiment.task
    if cfg is None:
        return Recipe(None)
    sources = (part.source.model_dump(mode="json") for part in (task.data.train, task.data.validation))
    made = recipe(cfg, Sources(task.data.classes, *sources))
    checked = check_config(made.experiment, Experiment, cfg.source)
    stated = checked.model_dump(mode="json")
    if hasattr(task.model, "initialiser"):  # no cfg says it: make_convolutional_layer draws them all alike
        stated["task"]["model"]["initialiser"] = INITIALISER
    seen = dict.fromkeys((note.section, note.key, note.message) for note in made.not_honoured)
    return Recipe(stated, list(seen))


RULES = RecipeRules(
    _read,
    named_by="its cfg",
    # Layers are gate 2's.
    unstated=tuple(f"task.model.{part}" for part in ("cfg", "backbone", "decoder", "activation", "width")),
    listed={
        "task.loss.gradient": "gradient of the loss",
        "task.data.train.augmentation.fill": "jitter crop: outside of the image",
    },
    causes={
        "*_normalizer": "normaliser",
        "iou_loss": "iou_kind",
        "ignore_thresh": "ignore_rule",
        "scale_x_y": "scale_x_y",
        "mask": "anchor_mask",
        "anchors": "anchor_units",
    },
)
