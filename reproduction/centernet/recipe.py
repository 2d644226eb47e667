"""CenterNet's recipe: the options of its main.py (lib/opts.py), as an experiment."""

import argparse
import shlex
from typing import Any

from configs.experiment import Experiment
from official.core.config_io import check_config
from official.core.errors import UserError
from reproduction.experiment.original import Recipe, RecipeRules
from reproduction.experiment.subject import Subject

_BACKBONES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "res": ({"type": "resnet"}, {"type": "deconv", "filters": [256, 256, 256], "deformable": False}),
    "resdcn": ({"type": "resnet"}, {"type": "deconv", "filters": [256, 128, 64], "deformable": True}),
    "dla": ({"type": "dla34"}, {"type": "dla_up"}),
    "hourglass": ({"type": "hourglass"}, None),
}


class OptionsError(UserError):
    """Options that CenterNet's main.py would not take, or that are not built here."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise OptionsError(f"reproduces.original: {message}; expected options of CenterNet's main.py, such as "
                           "'ctdet --arch resdcn_18 --batch_size 114 --lr 5e-4'")  # fmt: skip


def centernet_recipe(options: str, ours: Experiment) -> dict[str, Any]:
    """The experiment that `main.py OPTIONS` trains on COCO, as plain data with all defaults; data are those of `ours`.

    Raises:
        OptionsError: an option is not one of CenterNet's for detection.
    """
    asked = _parser().parse_args(shlex.split(options))
    kind, _, depth = asked.arch.partition("_")
    if kind not in _BACKBONES:
        raise OptionsError(f"reproduces.original: --arch {asked.arch}; expected {', '.join(_BACKBONES)} with a depth")
    backbone, decoder = _BACKBONES[kind]
    backbone = backbone | ({"depth": int(depth)} if backbone["type"] == "resnet" else {})
    head_conv = asked.head_conv if asked.head_conv != -1 else 256 if kind in ("dla", "hourglass") else 64
    data = ours.model_dump(mode="json", exclude_none=True)
    train, task = data["task"]["data"]["train"], data["task"]
    size = [side if side > 0 else asked.input_res for side in (asked.input_h, asked.input_w)]
    task["model"] = {
        "input_size": [side if side > 0 else 512 for side in size],
        "backbone": backbone,
        "head": {
            "head_conv": head_conv, "cat_spec_wh": asked.cat_spec_wh, "reg_offset": not asked.not_reg_offset,
            "K": asked.K,
        },
    } | ({"decoder": decoder} if decoder else {})  # fmt: skip
    task["loss"] = {
        name: getattr(asked, name) for name in ("hm_weight", "off_weight", "wh_weight", "reg_loss", "dense_wh")
    }
    crop = "shift_scale" if asked.not_rand_crop else "random"
    train["augmentation"] = {
        "type": "centernet", "crop": crop, "scale": asked.scale, "shift": asked.shift, "flip": asked.flip,
        "colour": not asked.no_color_aug,
    }  # fmt: skip
    train |= {"batch_size": asked.batch_size, "max_boxes": 128}
    keep = {} if kind != "hourglass" else {"keep_multiple": 128}
    task["evaluation"] = {"resize": "affine" if asked.fix_res else "keep", "flip_test": asked.flip_test} | keep
    data["trainer"] = {
        "duration": {"epochs": asked.num_epochs},
        "optimizer": {"type": "adam", "weight_decay": 0.0},
        "schedule": {
            "type": "steps",
            "learning_rate": asked.lr,
            "drops": [{"at": {"epochs": int(epoch)}, "scale": 0.1} for epoch in asked.lr_step.split(",")],
        },
        "checkpoint": data["trainer"]["checkpoint"],
    }
    return check_config(data, Experiment, options).model_dump(mode="json")


def _parser() -> argparse.ArgumentParser:
    """lib/opts.py, as far as detection on COCO reads it; the rest concerns the machine."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("task", choices=["ctdet"])
    numbers = {"lr": 1.25e-4, "hm_weight": 1.0, "off_weight": 1.0, "wh_weight": 0.1}
    numbers |= {"shift": 0.1, "scale": 0.4, "flip": 0.5}
    whole = {"batch_size": 32, "num_epochs": 140, "K": 100, "head_conv": -1}
    whole |= dict.fromkeys(("input_res", "input_h", "input_w"), -1)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, default in whole.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("no_color_aug", "not_rand_crop", "dense_wh", "cat_spec_wh", "not_reg_offset", "flip_test", "fix_res"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--keep_res", action="store_true")
    parser.add_argument("--arch", default="dla_34")
    parser.add_argument("--lr_step", default="90,120")
    parser.add_argument("--reg_loss", default="l1")
    for name in ("exp_id", "gpus", "num_workers", "master_batch", "load_model", "seed"):
        parser.add_argument(f"--{name}")
    return parser


def are_options(text: str) -> bool:
    """Whether these are options of CenterNet's main.py: its task comes first."""
    return text.startswith("ctdet")


def _read(subject: Subject) -> Recipe:
    options = subject.claims.original
    return Recipe(centernet_recipe(options, subject.experiment) if options else None)


RULES = RecipeRules(_read, named_by="the options of its main.py")
