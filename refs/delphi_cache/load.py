"""Opens a cache of `exegete export --format delphi` with delphi's own loader and compares it with the run: used by hand.

    pip install eai-delphi    # 0.1.3; what only its explainers and scorers need (vllm, sentence_transformers) may be missing
    python refs/delphi_cache/load.py CACHE RUN [PREFIX]

For every latent the loader's locations and activations must be those of RUN/PREFIX/activations/part-*.parquet, its tokens
those of RUN/tokens/part-*.parquet, and each explanation a JSON text.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

# The loader's package imports scorers and neighbours, whose models it does not use.
for name, members in (("sentence_transformers", ["SentenceTransformer"]), ("vllm", []), ("sparsify", ["Sae"])):
    if importlib.util.find_spec(name) is None:
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, type(member, (), {}))
        sys.modules[name] = module

from delphi.config import ConstructorConfig, SamplerConfig  # noqa: E402
from delphi.latents import LatentDataset  # noqa: E402

cache, run = Path(sys.argv[1]), Path(sys.argv[2])
prefix = sys.argv[3] if len(sys.argv) > 3 else ""


def parts(pattern):
    return [pq.read_table(path).to_pydict() for path in sorted(run.glob(pattern))]


raw = cache / "latents"
# A tokenizer is only asked for when texts are shown.
dataset = LatentDataset(raw, SamplerConfig(), ConstructorConfig(non_activating_source="random"), tokenizer=object())
kept = {}
for part in parts(f"{prefix}activations/part-*.parquet"):
    for row, position, latent, value in zip(part["row"], part["position"], part["latent"], part["value"]):
        kept.setdefault(latent, {})[(row, position)] = value
n = 0
for buffer in dataset.buffers:
    for data in buffer:
        found = data.activation_data
        expected = kept.pop(data.latent.latent_index)
        places = [tuple(place) for place in found.locations[:, :2].tolist()]
        assert len(places) == len(set(places)) == len(expected), data.latent
        values = torch.tensor([expected[place] for place in places])
        assert torch.equal(values, found.activations.float()), data.latent
        n += len(places)
assert not kept, f"{len(kept)} latents are missing"
windows = [ids for part in parts("tokens/part-*.parquet") for ids in part["token_ids"]]
tokens = dataset.tokens.numpy()
assert tokens.shape == (len(windows), dataset.cache_config["ctx_len"])
for row, window in enumerate(windows):
    assert np.array_equal(tokens[row, : len(window)], window), row
said = [json.loads(path.read_text()) for path in (cache / "explanations").glob("*.txt")]
assert all(isinstance(text, str) for text in said)
print(f"{len(dataset.buffers)} files, {n} firings, {len(windows)} rows of tokens, {len(said)} explanations: all as in the run")
