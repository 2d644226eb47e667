"""[net] of a Darknet cfg: optimiser, schedule, input and augmentation (Darknet parser.c parse_net_options)."""

import dataclasses
from typing import ClassVar

from modeling.darknet.options import option

POLICIES = ("constant", "steps", "step", "exp", "sigmoid", "poly", "random", "sgdr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """[net]. `batch` is as written: an update sees batch examples in `subdivisions` parts of `mini_batch`."""

    section: ClassVar[str] = "net"

    line: int
    batch: int = option(1, at_least=1)
    subdivisions: int = option(1, at_least=1)
    time_steps: int = option(1, at_least=1)
    width: int = option(0, at_least=0)
    height: int = option(0, at_least=0)
    channels: int = option(0, at_least=0)
    inputs: int = option(None, then=lambda n, o: o["width"] * o["height"] * o["channels"] if n is None else n)
    max_batches: int = option(0)
    learning_rate: float = option(0.001)
    learning_rate_min: float = option(0.00001)
    momentum: float = option(0.9)
    decay: float = option(0.0001)
    adam: int = option(0)
    B1: float = option(0.9)
    B2: float = option(0.999)
    eps: float = option(0.000001)
    policy: str = option("constant", choices=POLICIES, otherwise="constant")
    burn_in: int = option(0)
    power: float = option(4.0)
    step: int = option(1)
    scale: float = option(1.0)
    gamma: float = option(1.0)
    steps: tuple[int, ...] | None = option(None, until_hash=True)
    scales: tuple[float, ...] | None = option(None)
    seq_scales: tuple[float, ...] | None = option(None)
    sgdr_cycle: int = option(None, then=lambda cycle, o: o["max_batches"] if cycle is None else cycle)
    sgdr_mult: int = option(2)
    ema_alpha: float = option(0.0)
    loss_scale: float = option(1.0)
    flip: int = option(1)
    angle: float = option(0.0)
    aspect: float = option(1.0)
    saturation: float = option(1.0)
    exposure: float = option(1.0)
    hue: float = option(0.0)
    blur: int = option(0)
    gaussian_noise: int = option(0)
    cutmix: int = option(0)
    mosaic: int = option(0)
    mosaic_bound: int = option(0)
    # What is mixed: 1 two images, 2 cutmix, 3 mosaic, 4 mosaic or cutmix; `cutmix` and `mosaic` override `mixup`.
    mixup: int = option(0, then=lambda n, o: (4 if o["mosaic"] else 2) if o["cutmix"] else 3 if o["mosaic"] else n)
    letter_box: int = option(0)
    resize_step: int = option(32, at_least=1)
    dynamic_minibatch: int = option(0)
    max_crop: int = option(None, then=lambda n, o: 2 * o["width"] if n is None else n)
    min_crop: int = option(None, then=lambda n, o: o["width"] if n is None else n)
    label_smooth_eps: float = option(0.0)
    track: int = option(0)
    augment_speed: int = option(2)
    sequential_subdivisions: int = option(
        None, then=lambda n, o: o["subdivisions"] if n is None else min(n, o["subdivisions"])
    )
    try_fix_nan: int = option(0)
    weights_reject_freq: int = option(0)
    equidistant_point: int = option(0)
    badlabels_rejection_percentage: float = option(0.0)
    num_sigmas_reject_badlabels: float = option(0.0)
    contrastive: int = option(0)
    contrastive_jit_flip: int = option(0)
    contrastive_color: int = option(0)
    unsupervised: int = option(0)
    attention: int = option(0)
    adversarial_lr: float = option(0.0)
    max_chart_loss: float = option(20.0)
    use_cuda_graph: int = option(0)
    optimized_memory: int = option(0)
    workspace_size_limit_mb: float = option(1024.0, key="workspace_size_limit_MB")
    show_receptive_field: float = option(0.0)

    @property
    def mini_batch(self) -> int:
        """Examples per forward pass, batch // subdivisions, at least 1."""
        return max(self.batch // self.subdivisions, 1)
