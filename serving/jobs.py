"""What the export door does: from a checkpoint to a SavedModel."""

from configs.experiment import Experiment
from official.core.initialise import find_weights, load_trained
from official.core.progress import say
from serving.formats.saved_model import export_saved_model
from tasks import build_task
from tasks.jobs import set_up_locally


def export_checkpoint(experiment: Experiment, checkpoint: str, directory: str) -> None:
    """Exports one checkpoint (or the best of a run folder), or file of weights, batch-norm folded into convolutions."""
    path = find_weights(checkpoint)
    set_up_locally(experiment)
    task, config = build_task(experiment), experiment.task
    trained, inference = task.build_model(), task.build_inference_model()
    manifest = load_trained(trained, path, task)
    task.fold(trained, inference)
    export_saved_model(
        inference,
        task.decode,
        config.evaluation,
        config.data.classes,
        config.model.input_size,
        directory,
        manifest.get("category_ids"),
    )
    say(f"exported {path} to {directory}")
