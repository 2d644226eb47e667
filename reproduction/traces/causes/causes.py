"""What a difference can come from: the key that hints carry, and a sentence that says how it shows and what to do.

Most are mistakes that ports of these detectors made (their users' reports, or measured in public projects); the last
group only says where a difference is, for the case that no cause is known.
"""

from collections.abc import Mapping

_GEOMETRY = {
    "height_width_swapped": "Rows and columns are exchanged: sizes are (height, width) and arrays [rows, columns], "
    "a cfg's options are width, height; try an input that is not square.",
    "channels_reversed": "Channels are in reverse order: some originals take RGB, some BGR; read the image in "
    "the order the original was trained with.",
    "image_mirrored": "The array is mirrored left to right: a flip that was not drawn, or drawn and not applied.",
    "image_upside_down": "The array is mirrored top to bottom: look at the origin and the direction of rows.",
    "one_pixel_shift": "Everything lies one place off: look at the resize convention (corners or centres aligned), at "
    "the side that is padded first, and at where a pooling window starts.",
    "resize_align_corners": "The image is resized with its corner pixels aligned, as cfgs have it; the original here "
    "does not: choose the protocol's interpolation.",
    "resize_half_pixel": "The image is resized with pixel centres aligned (OpenCV, TensorFlow 2, PyTorch); the "
    "original aligns corners: choose interpolation align_corners.",
    "resize_nearest": "The image is resized by the nearest pixel where the original interpolates.",
    "resize_area": "The image is reduced by the mean of an area, where the original interpolates between four pixels.",
    "letterbox_or_stretch": "One is letterboxed (aspect kept, grey bars), the other stretched: cfgs differ in "
    "letter_box; set the protocol's resize.",
    "letterbox_value": "The bars beside a letterboxed image hold another value: 0.5 with a cfg, 114/255 with "
    "Ultralytics.",
    "image_range": "The pixels have another range or normalisation: 0..1, 0..255, or mean and deviation "
    "subtracted: as the original was trained.",
    "preprocessing_missing": "The image arrives without the evaluation's preprocessing: serve with the same protocol.",
}
_BOXES = {
    "box_format": "The boxes are equal once they are converted: a function was given another box format than it takes.",
    "box_units": "The boxes are equal but for a constant factor on a side: pixels taken as relative, or grid cells as "
    "pixels.",
    "image_size_of_another": "Boxes are taken back to an image of another size: in a batch each image has its own "
    "(height, width).",
    "box_inclusive": "The boxes differ by a pixel in their far corner: one side counts the last pixel, or counts from "
    "1 (VOC).",
    "anchor_units": "Widths and heights are off by one factor: anchors are in pixels of the network's input (v3, v4) "
    "or in grid cells (v2), and are divided accordingly.",
    "anchor_mask": "Widths and heights are those of other anchors: take the mask of this head's section (a "
    "tiny cfg and its weights may differ in it: 1,2,3 or 0,1,2).",
    "anchors_permuted": "The anchors of the head are in another order: the channel is anchor * entries + entry, "
    "in the order of the mask.",
    "scale_x_y": "Centres are off from the middle of their cells by one factor: scale_x_y (or its shift by half of "
    "scale - 1) is left out or applied twice.",
    "activation_missing": "One array is the activation of the other: a sigmoid or exponential is missing here.",
    "activation_twice": "The activation has been applied a second time: the layer gives probabilities, not logits.",
    "class_ids_91": "Classes are COCO's 91 category ids on one side, and 80 contiguous ids on the other.",
    "class_ids_shifted": "Classes are off by one: ids from 1, or a background class in front.",
    "score_floor": "The rows that are missing all score less than those that are there: a score floor (OpenCV drops "
    "below 0.2; evaluate at 0.001 or 0.005).",
    "nms_kind": "The rows that one has alone overlap better ones of their class: another kind of NMS or threshold "
    "(greedynms in a cfg is DIoU-NMS with exponent 0.6).",
    "nms_threshold": "The kind of NMS is right, and its threshold another: the usual 0.45, a cfg's nms_thresh?",
    "detections_limit": "The rows that are missing are the lowest of all: a limit on detections per image.",
    "offset_missing": "The centre's offset in its cell (the map reg) is not added, or the middle of the cell is.",
    "score_product": "Scores differ by the objectness: class probability on one side, objectness times it on the "
    "other.",
}
_LAYERS = {
    "batch_norm_epsilon": "Batch-norm has another epsilon: 1e-5 inside the root (cfgs, PyTorch); Keras's default "
    "is 1e-3, OpenCV's 1e-6.",
    "batch_norm_epsilon_outside": "Batch-norm adds its epsilon outside the root: an older original, with 1e-6.",
    "fold_statistics": "Folding batch-norm into the convolution takes other statistics: scale is gamma / sqrt(moving "
    "variance + epsilon), and the bias is beta - moving mean * scale.",
    "statistics_of_one_part": "Batch-norm's moving statistics follow one micro-batch of a step alone; each moves "
    "them in its turn.",
    "batch_norm_variance": "The variance is divided by n - 1 on one side and by n on the other: batch-norm normalises "
    "with the biased one and moves the unbiased one.",
    "batch_norm_momentum": "The moving statistics take the wrong share of the batch: PyTorch's momentum 0.1 is 0.9 in "
    "Keras.",
    "batch_norm_training_mode": "Batch-norm uses the batch's statistics where the moving ones belong, or the reverse.",
    "padding_same": "The border and the grid are those of SAME padding, which at stride 2 pads right and bottom only; "
    "a cfg's layer pads size // 2 on every side.",
    "padding_missing": "The convolution has no padding at the border, or padding that it should not have.",
    "maxpool_zero_padding": "Max-pooling sees zeros outside the image, not minus infinity.",
    "pooling_shift": "Pooling windows start at another place: half of the padding, rounded down, is left and top.",
    "average_counts_padding": "Average pooling divides by the whole window at the border, too.",
    "route_groups": "The route takes another group of channels: group_id counts from 0.",
    "route_order": "The route joins its layers in another order: that of the cfg.",
    "shortcut_channels": "The shortcut's inputs are fitted to each other otherwise: the first input has the shape; the "
    "other is cut, or counts as 0 beyond its channels.",
    "shortcut_missing": "The shortcut passes one of its inputs alone, or adds one twice.",
    "shortcut_activation": "The shortcut's activation is missing, or applied before the sum.",
    "upsample_bilinear": "The upsampling interpolates; the original repeats every number.",
    "upsample_scale": "The upsampled numbers are off by the option scale.",
    "mish_softplus_clipped": "Mish is computed through a softplus that is clipped at a threshold.",
    "leaky_slope": "The slope of leaky ReLU is another: a cfg's is 0.1; TensorFlow's default is 0.2, Keras's 0.3.",
    "activation_other": "The layer's activation is another function than the cfg says.",
    "bias_missing": "The layer's bias (or batch-norm's offset) is not added.",
    "weights_layout": "The kernel's axes are in another order: files have OIHW, Keras HWIO; rows and columns "
    "exchanged, or a kernel flipped.",
    "channels_permuted": "The same channels in another order: look at how groups, routes or weights are read.",
    "channel_halves_swapped": "The halves of the channels are exchanged: a route's order, or its group_id.",
    "reorg_order": "Blocks become channels in another order: a cfg's [reorg] is no space-to-depth; [reorg3d] is.",
    "flatten_order": "A map is flattened row by row; the original flattens channel by channel.",
    "stride_alignment": "The grid starts at another pixel of the same stride: padding asymmetric at stride 2.",
}
_LOSS = {
    "loss_scale": "The numbers are off by a count: the loss is divided (or not) by the images, the subdivisions or "
    "the replicas.",
    "normaliser": "One group of entries is off by a constant factor: iou_normalizer (0.75 by default), obj_normalizer "
    "or cls_normalizer (which the original ignores without counters_per_class).",
    "ciou_gradient_wh": "The gradient of widths and heights is off by 2 or by the anchors: the original's hand-written "
    "CIoU gradient is twice the true one and lacks the anchor factor; choose its own gradient (loss.gradient).",
    "ignore_rule": "Objectness differs where one side ignores a prediction and the other does not: the ignore "
    "rule looks at every truth, and asks for a class probability above 0.25, too.",
    "second_truth_overwrites": "A second truth in the same cell and anchor replaces the first; it should add its "
    "class.",
    "padded_rows_scatter": "A padded truth writes into the first or last cell: mask rows that are not valid.",
    "cropped_boxes_counted": "Boxes that a crop removed still make positives.",
    "iou_kind": "Box gradients are those of another IoU loss: an unknown name must not fall back to another silently.",
    "gradient_sign": "The sign is the opposite: what the original calls delta or update is minus the gradient.",
    "nan_zero_width": "Width and height alone are not finite: a box of zero width or height in an IoU or a logarithm.",
    "not_finite": "One side is not finite: a logarithm of 0, a division by 0 or an overflow before it.",
    "cell_offset": "The cell that answers for a truth is one beside that of its centre.",
    "negatives_missing": "Nothing is asked of the background: objectness or heat without a truth has no gradient.",
    "second_anchor": "With iou_thresh below 1 other anchors than the best answer for a truth, too; here none does.",
    "label_smoothing_missing": "Class targets are 0 and 1, where label smoothing draws them towards 1/2.",
    "class_ids_permuted": "Classes are in another order: names and ids come from different lists.",
    "input_size_fixed": "The loss takes one input size for all; it depends on that of the step (multi-scale training).",
    "box_mean": "A slot that several truths ask for has the sum of their box losses, where it is their mean; or the "
    "reverse.",
    "box_count": "The box loss is divided by the truths that are matched; it is a mean over the examples.",
    "loss_part_missing": "A part of the loss is left out, or has no weight: these entries have no gradient.",
    "second_truth_ignored": "A truth that shares its cell with another makes no positive.",
    "focal_loss_positives": "The focal loss is divided by another count of positives.",
    "gaussian_radius": "Heatmaps have the right centres and another radius: look at int() of it and at the overlap of "
    "0.7.",
}
_TRAINING = {
    "weight_decay_missing": "The step lacks the weight decay.",
    "weight_decay_everywhere": "Biases or batch-norm's parameters are decayed, too; the original's SGD decays "
    "kernels only.",
    "weight_decay_scale": "The decay is scaled otherwise: a cfg's is times the batch before the division by it.",
    "momentum_form": "The momentum buffer has another form: the rate inside or outside of it, or another momentum.",
    "weight_decay_form": "The decay goes another way: into the gradient and its moments (Adam), or past them (AdamW).",
    "layer_rules_missing": "Rates or waits of single layers (trainer.layers; a cfg's learning_rate=, stopbackward=) "
    "are not applied.",
    "bias_group": "Biases and offsets do not have the warm-up of their own.",
    "gradient_clip": "The gradient is not clipped, or each weight's by itself instead of all by their common norm.",
    "learning_rate_scale": "Steps are off by a factor: the rate is not divided by subdivisions, images or replicas.",
    "schedule_position": "The schedule counts something else than updates: the rate is that of twice or half the step "
    "(micro-batches, replicas or images for steps).",
    "warmup_missing": "The rate does not rise at first: the burn-in is left out.",
    "warmup_power": "The warm-up has another power: a cfg's default is 4, not linear.",
    "first_step_zero": "The schedule is one step late or early: the first update is batch number 1.",
    "moving_average_decay": "The moving average has another decay (0.9998 or 0.9999), or none of the early warm-up.",
    "batch_size": "The batch is another: gradients, batch-norm's statistics and what a rate means change with it.",
    "recipe_value": "A value of the recipe is another than the original's: take that, or name the reason.",
    "moving_average_statistics": "Batch-norm's moving statistics are left out of the average, or taken as they are "
    "where they are averaged.",
    "moving_average_missing": "The moving average stays as it is, or is the weights themselves.",
    "resume_state": "The run goes on without part of its state: optimiser, moving average, schedule or position.",
    "augmentation_repeats": "Two epochs see the same draws: a cache behind the augmentation.",
    "seed_ignored": "Two runs of one seed differ, or of two seeds do not.",
    "metric_protocol": "The score is that of another protocol: an original's own mAP is not COCO's AP.",
}
_PLACES = {
    "constant_ratio": "All numbers are off by one factor: an epsilon, a normaliser, a scale.",
    "constant_offset": "All numbers are off by one summand: a bias, a mean that is not subtracted.",
    "per_channel_affine": "Each channel is off by its own factor and summand: batch-norm's statistics, epsilon or "
    "parameters.",
    "border_only": "Only the border differs: padding.",
    "one_anchor": "Only one anchor of the head differs: its mask or its size.",
    "one_channel": "Only a few channels differ: look at what writes them.",
    "one_image": "Only some images of the batch differ: state that leaks between images, or padding by example.",
    "entries_xy": "Only the entries x and y differ: sigmoid, scale_x_y, grid offset.",
    "entries_wh": "Only the entries w and h differ: exponential, anchors, clipping.",
    "entries_objectness": "Only objectness differs: ignore rule, positives, obj_normalizer, focal loss.",
    "entries_classes": "Only the class entries differ: label smoothing, multi-label, class ids, cls_normalizer.",
    "positives_extra": "There are positives that the original has not: padded or cropped boxes, the mask, iou_thresh.",
    "positives_missing": "Positives of the original are missing: a second truth in the cell, the mask, iou_thresh.",
    "few_elements": "Very few elements differ: a decision (maximum, threshold, assignment) that came out otherwise.",
}
PLACES = frozenset(_PLACES)  # they come after every cause proper
CAUSES: Mapping[str, str] = _GEOMETRY | _BOXES | _LAYERS | _LOSS | _TRAINING | _PLACES
