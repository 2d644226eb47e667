"""From a cfg to the experiment it stands for; what is not honoured is listed, whatever it is."""

import dataclasses
import fnmatch
import json

import pytest

from configs.data import DarknetAugmentation
from configs.experiment import Experiment
from modeling.darknet.cfg import Network, parse_cfg, read_cfg
from modeling.darknet.grammar import CfgError, read_sections
from modeling.darknet.net import Net
from modeling.darknet.sections import LAYERS, SECTIONS
from official.core.config import Sgd
from official.core.config_io import check_config
from tasks.yolo.recipe import Sources, patterns, recipe
from tasks.yolo.recipe_options import HONOURED, REASONS, REFUSED, reason
from tests.tasks.yolo.darknet_files import LAYERS as CFG_LAYERS
from tests.tasks.yolo.darknet_files import NAMES, NET

SOURCE = {"type": "darknet", "data": "x.data", "split": "train"}


def network(net: str = "", layers: str = "", classes: int = 2) -> Network:
    """The small cfg, with lines of [net] that win over its own and a replacement of its first layer's lines."""
    body = CFG_LAYERS.format(classes=classes, filters=3 * (5 + classes))
    body = body.replace("[convolutional]\n", f"[convolutional]\n{layers}", 1)
    return parse_cfg(NET.replace("[net]\n", f"[net]\n{net}") + body, "x.cfg")


def make(net: str = "", layers: str = "", initialise=None) -> tuple[Experiment, list[str]]:
    made = recipe(network(net, layers), Sources(NAMES, SOURCE, SOURCE), initialise)
    return check_config(made.experiment, Experiment, "x.cfg"), [str(note) for note in made.not_honoured]


def detector_cfgs(shared):
    folder = shared / "assets" / "darknet" / "cfg"
    names = json.loads((shared / "golden" / "misc" / "layer_shapes_all_detector_cfgs.json").read_text())["cfgs"]
    paths = [folder / name.removeprefix("cfg/").replace("Yolo-Fastest/", "yolo-fastest/") for name in names]
    assert len(paths) == 68
    return paths


def test_the_whole_experiment_of_a_cfg():
    experiment, notes = make()
    task, trainer = experiment.task, experiment.trainer
    assert task.model.cfg == "x.cfg" and task.model.input_size == (64, 96)
    assert [level.mask for level in task.model.head.levels] == [(3, 4, 5), (0, 1, 2)]
    assert task.model.head.levels[0].scale_x_y == 1.05 and task.model.head.anchors[5] == (48, 40)
    assert (task.loss.gradient, task.loss.iou_loss, task.loss.iou_normalizer) == ("darknet", "ciou", 0.07)
    train = task.data.train
    assert (train.batch_size, trainer.micro_batches, train.max_boxes) == (4, 2, 20)
    expected = DarknetAugmentation(
        jitter=0.2, resize=1.2, hue=0.1, saturation=1.5, exposure=0.75, fill="mean", colour={"type": "darknet_opencv"}
    )
    assert train.augmentation == expected and train.multi_scale is None
    assert trainer.duration.steps == 6 and trainer.optimizer == Sgd(momentum=0.9, weight_decay=0.0005)
    schedule = trainer.schedule
    assert (schedule.type, schedule.learning_rate, schedule.burn_in.length.steps) == ("steps", 0.001, 2)
    assert schedule.burn_in.power == 4 and [drop.at.steps for drop in schedule.drops] == [4, 5]
    assert task.evaluation.nms == "greedynms" and task.evaluation.resize == "stretch"
    assert trainer.moving_average is None and trainer.layers == () and trainer.initialise is None
    assert len(notes) == 1 and "[yolo] resize=1.0: Darknet takes the last head's, 1.2" in notes[0]


@pytest.mark.parametrize(
    ("net", "schedule"),
    [
        ("policy=constant\n", {"type": "constant"}),
        ("policy=step\nstep=30\nscale=.5\n", {"type": "step", "every": {"steps": 30}, "scale": 0.5}),
        ("policy=exp\ngamma=.99\n", {"type": "exp", "gamma": 0.99}),
        ("policy=poly\npower=2\n", {"type": "poly", "power": 2.0}),
        ("policy=random\npower=2\n", {"type": "random", "power": 2.0}),
        ("policy=sigmoid\ngamma=.1\nstep=9\n", {"type": "sigmoid", "gamma": 0.1, "middle": {"steps": 9}}),
        ("policy=sgdr\nsgdr_mult=3\n", {"type": "sgdr", "cycle": {"steps": 6}, "multiplier": 3, "minimum": 1e-5}),
        ("steps=-1,5\nscales=.1,10\n", {"type": "steps"}),  # -1: from the first step on
    ],
)
def test_every_policy_becomes_a_schedule(net, schedule):
    experiment, _ = make(net)
    got = experiment.trainer.schedule.model_dump(exclude_none=True)
    assert schedule.items() <= got.items()
    if "-1" in net:
        assert [drop["at"]["steps"] for drop in got["drops"]] == [1, 5]
    power = 2.0 if "power" in net else 4.0
    assert got["burn_in"] == {"length": {"steps": 2}, "power": power}


@pytest.mark.parametrize("max_batches", [2001, 500500])
def test_the_moving_average_replaces_the_weights_1000_updates_before_the_end(max_batches):
    experiment, notes = make(f"ema_alpha=.99\nmax_batches={max_batches}\n")
    assert experiment.trainer.moving_average.model_dump(exclude_none=True) == {
        "decay": 0.99, "warm_up": False, "start": {"steps": max_batches // 2}, "statistics": False,
        "replaces_weights_at": {"steps": max_batches - 1000},
    }  # fmt: skip
    assert not any("ema_alpha" in note for note in notes)


def test_a_moving_average_that_darknet_makes_nothing_of_is_said():
    experiment, notes = make("ema_alpha=.99\nmax_batches=2000\n")
    assert experiment.trainer.moving_average is None
    assert any("[net] ema_alpha=0.99: has no effect with max_batches=2000" in note for note in notes)


def test_adam_letterbox_flip_and_random_sizes():
    experiment, _ = make("adam=1\neps=.004\nletter_box=1\nflip=0\nburn_in=0\nsaturation=0\n")
    trainer, task = experiment.trainer, experiment.task
    assert trainer.optimizer.type == "adam" and trainer.optimizer.epsilon == pytest.approx(0.001)  # per mean gradient
    assert task.evaluation.resize == "letterbox" and trainer.schedule.burn_in is None
    assert not task.data.train.augmentation.flip and task.data.train.augmentation.saturation == 1
    text = (NET + CFG_LAYERS.format(classes=2, filters=21)).replace("max=20", "max=20\nrandom=1")
    made = recipe(parse_cfg(text.replace("max_batches=6", "max_batches=500"), "x.cfg"), Sources(NAMES, SOURCE, SOURCE))
    scales = check_config(made.experiment, Experiment, "x.cfg").task.data.train.multi_scale
    assert (scales.coefficient, scales.every.steps, scales.largest_from.steps) == (1.4, 10, 401)
    assert any(note.key == "random" and "5 are compiled" in note.message for note in made.not_honoured)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("mosaic=1\n", {"mosaic": 0.5}),
        ("mosaic=1\nmosaic_bound=1\ncutmix=1\n", {"mosaic": 0.5, "mosaic_bound": True}),
        ("mosaic=1\nmixup=1\n", {"mosaic": 0.5}),
        ("mosaic=1\nletter_box=1\n", {"mosaic": 0.5}),
        ("mixup=1\n", {"mixup": 0.5}),
        ("cutmix=1\n", {}),
    ],
)
def test_half_of_the_examples_are_composed(options, expected):
    experiment, notes = make(options)
    augmentation = experiment.task.data.train.augmentation.model_dump(exclude_defaults=True)
    assert {key: augmentation[key] for key in augmentation if key.startswith("m")} == expected
    assert not any("mosaic" in note or "mixup" in note for note in notes if "cutmix" not in note)


def test_training_options_of_single_layers():
    experiment, _ = make(layers="learning_rate=.5\n")
    assert [rule.model_dump(exclude_none=True) for rule in experiment.trainer.layers] == [
        {"name": "L000_*", "learning_rate": 0.5}
    ]
    text = (NET + CFG_LAYERS.format(classes=2, filters=21)).replace("[maxpool]", "[maxpool]\nstopbackward=3")
    made = recipe(parse_cfg(text, "x.cfg"), Sources(NAMES, SOURCE, SOURCE))
    rules = check_config(made.experiment, Experiment, "x.cfg").trainer.layers
    assert [rule.no_gradient.steps for rule in rules] == [3] * len(rules)
    layers = [layer for layer in parse_cfg(text, "x.cfg").layers if layer.section == "convolutional"]
    waiting = {layer.index for layer in layers for rule in rules if fnmatch.fnmatch(f"L{layer.index:03d}_x", rule.name)}
    assert waiting == {layer.index for layer in layers if layer.index <= 5}
    text = text.replace("stopbackward=3", "train_only_bn=1")
    rules = recipe(parse_cfg(text, "x.cfg"), Sources(NAMES, SOURCE, SOURCE)).experiment["trainer"]["layers"]
    assert {rule["learning_rate"] for rule in rules} == {0.0}


def test_patterns_name_just_the_layers_asked_for():
    wanted = [0, 1, 2, 9, 10, 11, 13, 19, 20, 21, 136]
    names = [f"L{index:03d}_convolutional" for index in range(200)]
    found = [index for index, name in enumerate(names) if any(fnmatch.fnmatch(name, p) for p in patterns(wanted))]
    assert found == wanted
    assert patterns([3, 4, 5]) == ["L00[3-5]_*"] and patterns([]) == []


def test_another_number_of_classes():
    made = recipe(network(), Sources(("a", "b", "c"), SOURCE, SOURCE))
    assert sum("classes=2: the data have 3" in note.message for note in made.not_honoured) == 2
    assert made.experiment["task"]["data"]["classes"] == ["a", "b", "c"]


def test_weights_to_start_from():
    initialise = {"checkpoint": "x.conv.7", "start_step": "from_file"}
    assert make(initialise=initialise)[0].trainer.initialise.model_dump() == {
        **initialise, "prefer_moving_average": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("channels=1\n", r"x\.cfg:1: \[net\] channels=1: images are read as RGB"),
        ("max_batches=0\n", r"x\.cfg:1: \[net\] max_batches=0: no training at all"),
        ("learning_rate=0\n", r"x\.cfg:1: \[net\] learning_rate=0"),
    ],
)
def test_a_cfg_that_cannot_be_trained_is_one_clear_error(net, message):
    with pytest.raises(CfgError, match=message):
        recipe(network(net), Sources(NAMES, SOURCE, SOURCE))


def test_no_head_and_heads_of_several_kinds():
    text = NET + CFG_LAYERS.format(classes=2, filters=21)
    with pytest.raises(CfgError, match="no section that detects"):
        recipe(parse_cfg(text.partition("[yolo]")[0], "x.cfg"), Sources(NAMES, SOURCE, SOURCE))


def test_each_known_option_is_honoured_or_has_a_reason():
    """Of every section that can be built: no option is without an entry, and no entry without its option."""
    for kind in (Net, *LAYERS):
        if kind.section in REFUSED:
            continue
        options = {field.name for field in dataclasses.fields(kind) if "option" in field.metadata}
        without = [name for name in options if reason(kind.section, name) == "it has no counterpart here"]
        assert not without, f"[{kind.section}]"
        stated = {*HONOURED.get(kind.section, ()), *REASONS.get(kind.section, {})}
        assert stated <= options, f"[{kind.section}]: {stated - options}"


def test_blur_and_noise_are_honoured():
    experiment, notes = make("blur=5\ngaussian_noise=300\n")
    colour = experiment.task.data.train.augmentation.colour
    assert (colour.type, colour.blur, colour.gaussian_noise) == ("darknet_opencv", 5, 127)  # Darknet's own limit
    assert not [note for note in notes if "blur" in note or "noise" in note]


def test_what_nothing_is_known_about_is_listed():
    made = recipe(network("cutmix=1\nnew_idea=3\nangle=7\n"), Sources(NAMES, SOURCE, SOURCE))
    listed = [str(note) for note in made.not_honoured]
    for text in (
        "x.cfg:1: [net] cutmix=1: not here; Darknet does not support it for detectors either",
        "x.cfg:1: [net] angle=7.0: has no effect",
        "[net] Darknet does not know new_idea here and ignores it",
    ):
        assert any(text in note for note in listed), text


def test_every_option_of_all_detector_cfgs_is_honoured_listed_or_says_nothing(shared):
    """Reads each cfg's lines afresh, so that no reader in between can lose one."""
    seen = set()
    for path in detector_cfgs(shared):
        made = read_cfg(str(path))
        sections, _ = read_sections(path.read_text(), str(path))
        try:
            notes = recipe(made, Sources(tuple(map(str, range(made.heads[-1].classes))), SOURCE, SOURCE)).not_honoured
        except CfgError as error:
            assert path.name == "yolo9000.cfg" and "tree" in str(error)
            continue
        listed = {(note.section, note.key) for note in notes}
        for section, values in zip(sections, (made.net, *made.layers), strict=True):
            fields = {
                field.metadata["option"].key or field.name: field
                for field in dataclasses.fields(values)
                if "option" in field.metadata
            }
            for key in section.options:
                if (values.section, key) in listed or values.section in REFUSED:
                    continue
                field = fields[key]
                value, default = getattr(values, field.name), field.metadata["option"].default
                assert reason(values.section, field.name) is None or value == default, f"{path}: [{section.name}] {key}"
                seen.add((values.section, key))
    assert {("net", "track"), ("yolo", "random")} & seen == {("yolo", "random")}  # 0 says nothing
    assert len(seen) > 100


def test_the_recipe_of_every_detector_cfg_is_an_experiment(shared):
    for path in detector_cfgs(shared):
        made = read_cfg(str(path))
        if path.name == "yolo9000.cfg":
            continue
        names = tuple(map(str, range(made.heads[-1].classes)))
        experiment = check_config(recipe(made, Sources(names, SOURCE, SOURCE)).experiment, Experiment, str(path))
        assert len(experiment.task.data.classes) == made.heads[0].classes
        assert experiment.trainer.duration.steps == made.net.max_batches
        kinds = {"yolo": "yolo", "Gaussian_yolo": "gaussian_yolo", "region": "region", "detection": "detection"}
        assert experiment.task.model.head.type == kinds[made.heads[0].section]
    assert set(SECTIONS) >= set(kinds)
