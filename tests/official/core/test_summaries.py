"""What a run draws: files in pictures/, the same in TensorBoard, and the losses of all its parts."""

import tensorflow as tf

from official.core.evaluation import Evaluation
from official.core.summaries import Summaries, read_history
from tests.official.core.toy_task import ToyTask, make_run, trained

EVERY = {"summary_every": {"steps": 1}, "steps_per_loop": 1}


def images(directory) -> set[str]:
    paths = tf.io.gfile.glob(f"{directory}/tensorboard/*/events*")
    events = [event for path in paths for event in tf.compat.v1.train.summary_iterator(path)]
    found = [value for event in events for value in event.summary.value]
    return {value.tag for value in found if value.metadata.plugin_data.plugin_name == "images"}


def test_an_evaluation_draws_its_figures_and_the_training_curves(tmp_path):
    run = trained(tmp_path, **EVERY)
    Evaluation(ToyTask(), str(tmp_path))(run.checkpoints.latest())
    names = {"train_batch.jpg", "train_curves.png", "evaluation_detections.jpg", "evaluation_errors.png"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == names
    assert images(tmp_path) == {name.rpartition(".")[0].replace("_", "/", 1) for name in names}


def test_an_evaluation_beside_a_run_has_no_training_to_draw(tmp_path):
    run = trained(tmp_path / "run")
    Evaluation(ToyTask(), str(tmp_path / "out"))(run.checkpoints.latest())
    assert not (tmp_path / "out/pictures/train_curves.png").exists()


def test_the_history_goes_on_over_restarts_and_a_step_made_again_counts_once(tmp_path):
    first = make_run(tmp_path, **EVERY, duration={"steps": 3}, checkpoint={"every": {"steps": 2}})
    first.resume_or_initialise()
    first.train()  # written up to 3, saved at 2
    trained(tmp_path, **EVERY, duration={"steps": 5})
    steps, losses = read_history(f"{tmp_path}/tensorboard/train")["loss"]
    assert steps == [1, 2, 3, 4, 5] and len(losses) == 5


def test_what_is_whole_of_a_damaged_file_is_read(tmp_path):
    summaries = Summaries(str(tmp_path), "train")
    for step in (1, 2, 3):
        summaries.scalars({"loss": 1.0 / step}, step)
    (path,) = (tmp_path / "tensorboard/train").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert read_history(f"{tmp_path}/tensorboard/train") == {"loss": ([1, 2], [1.0, 0.5])}
