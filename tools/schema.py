"""JSON Schema of experiment files, for editors that complete and check YAML: `python -m tools.schema > FILE`."""

import json
from typing import Any

from configs.experiment import Experiment


def experiment_schema() -> dict[str, Any]:
    """The schema; an included or including file may leave any key out, so nothing is required in it."""
    schema = Experiment.model_json_schema()
    schema["properties"]["include"] = {
        "description": "A file or list of files, relative to this one, whose keys this file's override.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for part in [schema, *schema["$defs"].values()]:
        part.pop("required", None)
    return schema


if __name__ == "__main__":
    print(json.dumps(experiment_schema(), indent=1))
