"""What the export door does: from a checkpoint to a SavedModel."""

from configs.experiment import Experiment
from official.core.checkpoint import find_checkpoint, load_for_inference
from official.core.initialise import variables_by_path
from serving.export import export_saved_model
from tasks.jobs import build_task, say, start


def export_checkpoint(experiment: Experiment, checkpoint: str, directory: str) -> None:
    """Exports one checkpoint (or the best of a run folder), its batch-norm folded into the convolutions."""
    start(experiment.runtime)
    task, path = build_task(experiment), find_checkpoint(checkpoint)
    model = task.build_model()
    load_for_inference(path, variables_by_path(model))
    config = experiment.task
    export_saved_model(
        task.fold(model), task.decode, config.evaluation, config.data.classes, config.model.input_size, directory,
        config.data.category_ids,
    )  # fmt: skip
    say(f"exported {path} to {directory}")
