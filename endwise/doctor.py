"""What is installed, what an extra would add, and what this machine can do. Changes nothing, needs no network."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endwise

# What each extra is for; what it holds is read from the installed package's own metadata.
PURPOSES = {
    "vision": "faster JPEG decoding",
    "hub": "Hugging Face data sets as hf://name, and pretrained encoders",
    "export": "endwise export: ONNX bundles that run without torch",
    "search": "endwise search: nearest rows in the space of an embedding",
    "serve": "endwise serve: a model behind HTTP",
    "postgres": "decision logs in PostgreSQL",
    "frames": "pandas and polars frames as data",
    "dev": "everything that tests and linters need",
}


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found; `problems` is empty on a machine where everything works."""

    machine: dict[str, Any]
    packages: dict[str, str | None]
    extras: dict[str, dict[str, Any]]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "packages": self.packages,
            "extras": self.extras,
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        lines = [f"{name:<12} {value}" for name, value in self.machine.items()]
        lines.append("")
        lines += [f"{name:<16} {version or 'MISSING'}" for name, version in self.packages.items()]
        lines.append("")
        for name, extra in self.extras.items():
            state = (
                "installed"
                if not extra["missing"]
                else f"pip install 'endwise[{name}]' adds {', '.join(extra['missing'])}"
            )
            lines.append(f"{name:<12} {extra['purpose']}: {state}")
        lines += (
            ["", *(f"problem: {problem}" for problem in self.problems)] if self.problems else ["", "no problem found"]
        )
        return "\n".join(lines)


def examine() -> Diagnosis:
    """Look at this machine and at what is installed."""
    required, extras = _requirements()
    packages = {name: _version(name) for name in required}
    found = {
        name: {"purpose": PURPOSES.get(name, ""), "missing": [item for item in items if _version(item) is None]}
        for name, items in extras.items()
    }
    machine = _machine()
    problems = [
        f"{name} is not installed: pip install endwise" for name, version in packages.items() if version is None
    ]
    if importlib.util.find_spec("torchvision") is not None and machine["accelerator"] == "none":
        problems.append(
            "torchvision is installed; a build for another torch breaks packages that probe for it (endwise needs none)"
        )
    if machine["free disk"].startswith(("0.", "1.")):
        problems.append(f"only {machine['free disk']} of disk is free where the prepared store lives")
    return Diagnosis(machine, packages, found, tuple(problems))


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The package's own requirements: core, and by extra."""
    core: list[str] = []
    extras: dict[str, list[str]] = {name: [] for name in PURPOSES}
    for line in importlib.metadata.requires("endwise") or []:
        found = re.match(r"[A-Za-z0-9_.-]+", line)
        assert found is not None
        wanted = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        if wanted is None:
            core.append(found[0])
        elif found[0] != "endwise":
            extras.setdefault(wanted[1], []).append(found[0])
    return core, extras


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    import torch

    from endwise.data.store import cache_root
    from endwise.plan import has_fast_bf16

    if torch.cuda.is_available():
        accelerator = torch.cuda.get_device_name(0)
    elif torch.backends.mps.is_available():
        accelerator = "Apple MPS"
    else:
        accelerator = "none"
    store = cache_root()
    existing = next(path for path in [store, *store.parents] if path.exists())
    return {
        "endwise": endwise.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory": _memory(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "fast bf16": "yes" if has_fast_bf16("cuda" if accelerator not in ("none", "Apple MPS") else "cpu") else "no",
        "store": str(store),
        "free disk": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB",
        "terminal": "yes" if sys.stderr.isatty() else "no",
    }


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.exists():
        return "unknown"
    values = dict(re.findall(r"(\w+):\s+(\d+) kB", info.read_text()))
    return f"{int(values['MemTotal']) / 1e6:.1f} GB, {int(values.get('MemAvailable', 0)) / 1e6:.1f} GB free"
