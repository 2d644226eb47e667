"""What a run starts from: fine-tuning, another task's file, another run."""

import json
from pathlib import Path

import numpy as np
import pytest

from official.core.checkpoint import CheckpointError
from official.core.config_io import ConfigError
from tests.official.core.toy_task import OtherClasses, assert_close, make_run, trained, weights


def test_fine_tuning_lists_what_was_not_loaded_and_averages_from_there(tmp_path):
    first = trained(tmp_path / "first")
    second = make_run(
        tmp_path / "second",
        OtherClasses(),
        moving_average={"decay": 0.9},
        initialise={"checkpoint": str(tmp_path / "first")},
    )
    report = second.resume_or_initialise()
    assert "head_conv/kernel: here [1, 1, 4, 3], there [1, 1, 4, 1]" in report
    np.testing.assert_array_equal(weights(second)["body_conv/kernel"], weights(first)["body_conv/kernel"])
    np.testing.assert_array_equal(second.variables.average[0].numpy(), weights(first)["body_conv/kernel"])


def foreign(directory: Path, seen: int | None) -> str:
    """A file that the toy task reads: of weights that have seen so many examples."""
    directory.mkdir(exist_ok=True)
    (directory / "foreign.json").write_text(json.dumps({"kernel": 0.25} | ({} if seen is None else {"seen": seen})))
    return str(directory / "foreign.json")


def test_a_foreign_file_is_read_by_the_task_and_its_examples_count_only_if_asked(tmp_path):
    path = foreign(tmp_path, seen=18)  # 4 steps of 4, and two examples more
    average = {"decay": 0.9}
    for start_step, expected in ((0, 0), (2, 2), ("from_file", 4)):
        initialise = {"checkpoint": path, "start_step": start_step}
        run = make_run(tmp_path / str(start_step), initialise=initialise, moving_average=average)
        assert f"loaded head_conv from {path}" in run.resume_or_initialise()
        assert run.step == expected
        assert (weights(run)["head_conv/kernel"] == 0.25).all()
        names = [variable.path for variable in run.model.trainable_variables]
        assert (run.variables.average[names.index("head_conv/kernel")].numpy() == 0.25).all()
    assert next(run.inputs()).example_id.numpy()[0] == 16  # the data go on from there too


@pytest.mark.slow
def test_another_run_may_be_continued_at_its_step_and_is_resumed_from_then_on(tmp_path):
    first = trained(tmp_path / "first")
    options = {"initialise": {"checkpoint": str(tmp_path / "first"), "start_step": "from_file"}}
    second = make_run(tmp_path / "second", duration={"steps": 9}, **options)
    report = second.resume_or_initialise()
    assert "goes on after the 6 steps of 4 examples it has seen" in report and second.step == 6
    assert_close(weights(second), weights(first), 0)
    second.train()
    assert make_run(tmp_path / "second", duration={"steps": 9}, **options).resume_or_initialise().endswith("at step 9")


@pytest.mark.parametrize(("seen", "step"), [(24, 6), (4 * 10**12, 10**12)])
def test_weights_trained_past_the_duration_are_an_error_that_names_the_way_out(tmp_path, seen, step):
    path = foreign(tmp_path, seen)
    run = make_run(tmp_path / "run", initialise={"checkpoint": path, "start_step": "from_file"})
    with pytest.raises(
        ConfigError,
        match=rf"foreign.json: its weights count as trained for {step} steps .*start_step is from_file.* at step 6: "
        r"nothing would be trained. Set trainer.initialise.start_step=0 .*--clear.* or a longer trainer.duration",
    ):
        run.resume_or_initialise()


def test_a_file_that_does_not_say_how_long_it_was_trained_is_an_error_only_if_asked(tmp_path):
    path = foreign(tmp_path, None)
    make_run(tmp_path / "a", initialise={"checkpoint": path}).resume_or_initialise()
    run = make_run(tmp_path / "b", initialise={"checkpoint": path, "start_step": "from_file"})
    with pytest.raises(
        CheckpointError, match=r"does not say how long .* set trainer.initialise.start_step to a number"
    ):
        run.resume_or_initialise()


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file or folder"), ("empty", "no complete")])
def test_nothing_to_start_from_is_an_error(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "run", initialise={"checkpoint": str(tmp_path / name)})
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        run.resume_or_initialise()
