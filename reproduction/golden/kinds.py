"""The table of what can be compared. A kind's name is what `--kinds` and the JSON call it.

Traces of Darknet lie in folders, those of CenterNet side by side: no file is of both.
"""

from reproduction.golden import (
    boxes,
    centernet_augment,
    centernet_decode,
    centernet_deformable,
    centernet_losses,
    centernet_network,
    centernet_targets,
    centernet_training,
    detection,
    layers,
    losses,
    training,
    vision,
)
from reproduction.golden.case import Kind

DARKNET = {
    "layers_eval": Kind("networks of one layer, evaluation mode", "layers/*.npz", layers.evaluation),
    "layers_train": Kind(
        "networks of one layer, training mode and gradients", "layers*/*.npz", layers.training, layers.training_cases
    ),
    "assignment": Kind("which slots answer for an object", "loss/*.npz", losses.assignment),
    "loss": Kind("delta and cost of the heads", "loss/*.npz", losses.deltas),
    "gradients": Kind("parameter gradients of whole networks", "loss_cudnn_emulated/*.npz", training.gradients),
    "optimiser": Kind("steps of the trainer", "optim/*_cudnn_emulated.npz", training.steps),
    "updates": Kind("the optimiser alone, on recorded gradients", "optim/*_cudnn_emulated.npz", training.updates),
    "learning_rate": Kind(
        "learning rates of all policies", "misc/learning_rate.npz", training.learning_rates, training.rate_cases
    ),
    "activations": Kind("activation functions", "misc/activations.npz", vision.activation, vision.activation_cases),
    "iou": Kind("IoU, GIoU, DIoU, CIoU and Darknet's derivatives", "misc/iou.npz", vision.iou_family),
    "nms": Kind("what each kind of NMS keeps", "misc/nms.npz", vision.nms, vision.nms_cases),
    "images": Kind(
        "resize, letterbox, crop, HSV, flip", "misc/image_ops.npz", vision.image_operation, vision.image_cases
    ),
    "infer": Kind("real detectors: layers, heads, boxes, NMS", "infer/*.npz", detection.inference, needs_assets=True),
    "boxes": Kind("boxes of grids that are not square, beside the formula", "loss/*.npz", boxes.decoding),
    "decode": Kind("boxes and NMS alone, from recorded outputs", "infer/*.npz", detection.decoding),
    "coco_val": Kind(
        "COCO AP beside that of recorded detections", "coco_val/*.json", detection.coco, needs_assets=True
    ),
}
CENTERNET = {
    "centernet_gaussian": Kind(
        "radii and heatmaps", "gaussian*.npz", centernet_targets.gaussian, centernet_targets.folders, about="targets"
    ),
    "centernet_targets": Kind(
        "targets of images", "targets_*.npz", centernet_targets.targets, centernet_targets.folders, about="targets"
    ),
    "centernet_train_targets": Kind(
        "targets of augmented images",
        "augment_train_*.npz",
        centernet_targets.targets,
        centernet_targets.folders,
        about="targets",
    ),
    "centernet_train_inputs": Kind(
        "pixels of augmented images",
        "augment_train_*.npz",
        centernet_augment.train_inputs,
        centernet_targets.folders,
        about="image",
    ),
    "centernet_augment": Kind(
        "maps, warps, colours, test images",
        "augment_units*.npz",
        centernet_augment.units,
        centernet_augment.unit_parts,
        about="image",
    ),
    "centernet_loss": Kind("loss terms and their gradients", "loss_*.npz", centernet_losses.losses, about="gradient"),
    "centernet_decode": Kind(
        "peaks, boxes, flip test, soft-NMS", "decode_*.npz", centernet_decode.decoding, about="boxes"
    ),
    "centernet_dcn": Kind(
        "deformable convolution and its gradients", "dcnv2_*.npz", centernet_deformable.operator, about="layer"
    ),
    "centernet_network": Kind(
        "networks: stages, heads, moving statistics",
        "*_trace.npz",
        centernet_network.network,
        beside=("*_state_dict.npz",),
    ),
    "centernet_updates": Kind(
        "Adam alone, on recorded gradients", "*_trace.npz", centernet_training.updates, about="parameters"
    ),
    "centernet_adam": Kind("steps of the trainer with Adam", "*_trace.npz", centernet_training.steps, about="steps"),
}
KINDS = DARKNET | CENTERNET
