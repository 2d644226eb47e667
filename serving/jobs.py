"""What the export door does: from a checkpoint to an export."""

from configs.experiment import Experiment
from official.core.initialise import find_weights, load_trained
from official.core.progress import say
from serving.formats import write_export
from serving.formats.graph import detection_graph
from tasks import build_task
from tasks.jobs import set_up_locally


def export_checkpoint(experiment: Experiment, checkpoint: str, directory: str, name: str = "saved_model") -> None:
    """Exports one checkpoint (or the best of a run folder), or file of weights, in the format of this name."""
    path = find_weights(checkpoint)
    set_up_locally(experiment)
    task, config = build_task(experiment), experiment.task
    trained, inference = task.build_model(), task.build_inference_model()
    manifest = load_trained(trained, path, task)
    task.fold(trained, inference)
    graph = detection_graph(
        inference,
        task.decode,
        config.evaluation,
        config.data.classes,
        config.model.input_size,
        manifest.get("category_ids"),
    )
    write_export(graph, name, directory)
    say(f"exported {path} to {directory}")
