"""The table of what can be compared. A kind's name is what `--kinds` and the JSON call it."""

from reproduction.golden import detection, layers, losses, training, vision
from reproduction.golden.case import Kind

KINDS = {
    "layers_eval": Kind("networks of one layer, evaluation mode", "layers/*.npz", layers.evaluation),
    "layers_train": Kind(
        "networks of one layer, training mode and gradients", "layers*/*.npz", layers.training, layers.training_cases
    ),
    "loss": Kind("delta and cost of the heads", "loss/*.npz", losses.deltas),
    "gradients": Kind("parameter gradients of whole networks", "loss_cudnn_emulated/*.npz", training.gradients),
    "optimiser": Kind("steps of the trainer", "optim/*_cudnn_emulated.npz", training.steps),
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
    "coco_val": Kind(
        "COCO AP beside that of recorded detections", "coco_val/*.json", detection.coco, needs_assets=True
    ),
}
