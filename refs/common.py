"""What every golden generator shares: saving tensors, and the versions that made them."""

import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

PACKAGES = [
    "accelerate", "gguf", "numpy", "safetensors", "tokenizers", "torch", "transformers", "xxhash", "sae-lens",
    "transformer-lens", "dictionary-learning", "eai-sparsify", "circuit-tracer", "llamascopium",
]


def array(value):
    """A contiguous f32, i32 or (from bytes) u8 numpy array from a tensor, an array, or a list."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    value = np.asarray(value)
    kept = value.dtype == np.uint8
    return np.ascontiguousarray(value, dtype=np.uint8 if kept else np.float32 if value.dtype.kind == "f" else np.int32)


def save(case_file, name, tensors):
    """Writes `name` and versions.json beside the generator `case_file`."""
    folder = Path(case_file).resolve().parent
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: array(value) for key, value in sorted(tensors.items())}, path)
    path.chmod(0o644)
    write_versions(folder)
    print(f"{path.relative_to(folder.parent)}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def write_versions(folder):
    """Records the Python and package versions of this environment in versions.json."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    (Path(folder) / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
