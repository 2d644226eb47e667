"""What the export door does: from a checkpoint to a SavedModel."""

from configs.experiment import Experiment
from official.core.checkpoint import find_checkpoint, load_for_inference
from official.core.distribution import place_locally
from official.core.initialise import variables_by_path
from serving.export import export_saved_model
from tasks.jobs import build_task, say, set_up


def export_checkpoint(experiment: Experiment, checkpoint: str, directory: str) -> None:
    """Exports one checkpoint (or the best of a run folder), its batch-norm folded into the convolutions."""
    path = find_checkpoint(checkpoint)
    set_up(experiment.runtime, place_locally(experiment.runtime))
    task, config = build_task(experiment), experiment.task
    trained, inference = task.build_model(), task.build_inference_model()
    manifest = load_for_inference(path, variables_by_path(trained))
    task.fold(trained, inference)
    export_saved_model(
        inference,
        task.decode,
        config.evaluation,
        config.data.classes,
        config.model.input_size,
        directory,
        manifest["category_ids"],
    )
    say(f"exported {path} to {directory}")
