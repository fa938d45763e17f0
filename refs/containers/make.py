"""Files of arrays as NumPy and PyTorch write them, with their contents as f32.

To regenerate: cargo xtask golden containers
"""

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

rng = np.random.default_rng(5)


def put(name, write):
    path = HERE / name
    write(path)
    path.chmod(0o644)


def numbers(*shape):
    return rng.standard_normal(shape).astype(np.float32)


# NumPy: every order and type that weights come in.
plain = {
    "W_enc": numbers(5, 3), "threshold": numbers(3), "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32),
    "columns": np.asfortranarray(numbers(4, 2, 3)), "half": numbers(2, 2).astype(np.float16),
    "double": numbers(3).astype(np.float64), "big": numbers(3).astype(">f4"), "long": np.array([[-5, 7]], np.int64),
    "byte": np.array([0, 255], np.uint8), "truth": np.array([True, False]),
}
put("plain.npz", lambda path: np.savez(path, **plain))
put("packed.npz", lambda path: np.savez_compressed(path, **plain))
put("one.npy", lambda path: np.save(path, plain["W_enc"]))
put("objects.npz", lambda path: np.savez(path, names=np.array(["a", None], dtype=object)))

# PyTorch: a state dictionary with views, shared storages, parameters and facts, in two protocols.
base = torch.from_numpy(numbers(6, 4))
state = OrderedDict(
    weight=base, turned=base.T, part=base[1:3, 2:], bias=torch.nn.Parameter(torch.from_numpy(numbers(4))),
    half=torch.from_numpy(numbers(3)).half(), brain=torch.from_numpy(numbers(3)).bfloat16(),
    double=torch.from_numpy(numbers(2)).double(), k=torch.tensor(32), yes=torch.tensor([True, False]),
    none=torch.zeros(0, 3),
)
state._metadata = OrderedDict({"": {"version": 1}})
nested = {
    "encoder": dict(state), "layers": [torch.from_numpy(numbers(2)), torch.from_numpy(numbers(2))], "k": 32,
    "large": 1 << 40, "negative": -70000, "rate": 0.25, "name": "topk", "centred": True, "nothing": None,
    "device": torch.device("cpu"), "dtype": torch.float32, 7: torch.from_numpy(numbers(1)),
}
put("state.pt", lambda path: torch.save(state, path))
put("nested.pt", lambda path: torch.save(nested, path))
put("protocol4.pt", lambda path: torch.save(nested, path, pickle_protocol=4))


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


put("evil.pt", lambda path: torch.save({"w": base, "x": Evil()}, path))
put("old.pt", lambda path: torch.save(state, path, _use_new_zipfile_serialization=False))

flat = {f"plain.{name}": array.astype(np.float32) for name, array in plain.items()}
flat |= {f"state.{name}": tensor.detach().float() for name, tensor in state.items()}
flat |= {f"nested.encoder.{name}": tensor.detach().float() for name, tensor in state.items()}
flat |= {f"nested.layers.{i}": tensor for i, tensor in enumerate(nested["layers"])} | {"nested.7": nested[7]}
save(__file__, "golden.safetensors", flat)
