"""EfficientNet-Lite (Tan & Le 2019, without squeeze-and-excitation and with ReLU6), in plain torch under timm's names.

Here because its ImageNet weights are small, free and strong on a CPU, and timm cannot be imported without torchvision.
Only the part that looks: no classifier. Not here: reading weights (nn/pretrained.py).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.vision import BatchNorm

# name -> (width, depth, side in pixels the weights were trained on)
LITE: dict[str, tuple[float, float, int]] = {
    "tf_efficientnet_lite0": (1.0, 1.0, 224),
    "tf_efficientnet_lite1": (1.0, 1.1, 240),
    "tf_efficientnet_lite2": (1.1, 1.2, 260),
    "tf_efficientnet_lite3": (1.2, 1.4, 280),
    "tf_efficientnet_lite4": (1.4, 1.8, 300),
}
# blocks, kernel, stride, times wider inside, channels
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM, FEATURES = 32, 1280
SEEN = (1, 2, 4)  # stages whose maps are given, beside the last one
EPSILON, MOMENTUM = 1e-3, 0.01


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow pads it: the odd pixel goes to the right and the bottom."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inward, outward, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "batch inward height width"]) -> Float[Tensor, "batch outward h w"]:
        """ceil(side / stride) pixels a side."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, right = (
            max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in (x.shape[2], x.shape[3])
        )
        if right % 2 == 0 and down % 2 == 0:  # as all are that do not halve: no copy for the padding
            return F.conv2d(x, self.weight, stride=stride, padding=(down // 2, right // 2), groups=self.groups)
        return super().forward(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))


def _mixing(inward: int, outward: int) -> nn.Conv2d:
    """Over channels alone; a plain one, so that adapters can be put beside it."""
    return nn.Conv2d(inward, outward, 1, bias=False)


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, eps=EPSILON, momentum=MOMENTUM)


class Separable(nn.Module):
    """A convolution of each channel, then one over channels."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.straight = stride == 1 and inward == outward
        self.conv_dw, self.bn1 = Same(inward, inward, kernel, stride, groups=inward), _norm(inward)
        self.conv_pw, self.bn2 = _mixing(inward, outward), _norm(outward)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inward, height, width] -> [batch, outward, ...]."""
        out: Tensor = self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))
        return x + out if self.straight else out


class Inverted(nn.Module):
    """Wider inside than outside, with a straight way where the shape stays (Sandler et al. 2018)."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int, times: int) -> None:
        super().__init__()
        wide = inward * times
        self.straight = stride == 1 and inward == outward
        self.conv_pw, self.bn1 = _mixing(inward, wide), _norm(wide)
        self.conv_dw, self.bn2 = Same(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.conv_pwl, self.bn3 = _mixing(wide, outward), _norm(outward)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inward, height, width] -> [batch, outward, ...]."""
        inside = F.relu6(self.bn2(self.conv_dw(F.relu6(self.bn1(self.conv_pw(x))))))
        out: Tensor = self.bn3(self.conv_pwl(inside))
        return x + out if self.straight else out


class EfficientNetLite(nn.Module):
    """The network of one of the names in LITE, without its classifier."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        width, depth, _ = LITE[name]
        self.conv_stem, self.bn1 = Same(3, STEM, 3, 2), _norm(STEM)
        stages, before = [], STEM
        for index, (count, kernel, stride, times, channels) in enumerate(STAGES):
            ends = index in (0, len(STAGES) - 1)  # the first and the last stage are never repeated
            after, blocks = rounded(channels * width), []
            for block in range(count if ends else math.ceil(count * depth)):
                step = stride if block == 0 else 1
                blocks.append(
                    Separable(before, after, kernel, step)
                    if times == 1
                    else Inverted(before, after, kernel, step, times)
                )
                before = after
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.map_channels = (*(rounded(STAGES[stage][4] * width) for stage in SEEN), FEATURES)
        self.conv_head, self.bn2 = _mixing(before, FEATURES), _norm(FEATURES)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """The feature maps at a quarter, an eighth, a sixteenth and a thirty-second of the side; the last one has
        1280 channels."""
        x = F.relu6(self.bn1(self.conv_stem(x)))
        maps = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in SEEN:
                maps.append(x)
        return [*maps, F.relu6(self.bn2(self.conv_head(x)))]


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, never less than 90 % of it (Howard et al. 2017)."""
    found = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * channels else found
