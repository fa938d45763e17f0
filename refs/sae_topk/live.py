"""Trains a PyTorch TopK on a run's own cached activations and compares held-out FVU.

    python refs/sae_topk/live.py RUN [CACHE]

RUN is a finished `exegete tour ... --keep-cache` (or CACHE names its kept cache). Initial weights, split, order and
schedule are worked out here from the settings in RUN/manifest.json alone; only the dictionary's reported FVU is read
from the run. Dense autograd, `torch.optim.Adam`; AuxK is left out, so choose a run without dead latents.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import xxhash
from safetensors.torch import load_file

run = Path(sys.argv[1])
cache = Path(sys.argv[2]) if len(sys.argv) > 2 else run / "cache"
manifest = json.loads((run / "manifest.json").read_text())
train, seed = manifest["settings"]["train"], manifest["settings"]["seed"]
theirs = manifest["stages"]["train"]
torch.set_num_threads(2)


def pair_hash(a, b):
    return xxhash.xxh3_64_intdigest(struct.pack("<QQQ", seed, a, b))


docs = []
for part in sorted((run / "tokens").glob("part-*.parquet")):
    table = pq.read_table(part, columns=["doc", "token_ids"]).to_pydict()
    docs += [doc for doc, ids in zip(table["doc"], table["token_ids"]) for _ in ids[1:]]
docs = np.array(docs, dtype=np.uint64)
x = torch.cat([load_file(part)["acts"] for part in sorted(cache.glob("part-*.safetensors"))])
assert len(x) == len(docs), (len(x), len(docs))
held = {int(doc) for doc in np.unique(docs) if pair_hash(int(doc), 2**64 - 1) % 10 == 0}
assert held and theirs["fvu_measured_on"] == "held-out documents", "no documents are held out: give more text"
assert theirs["dead"] == 0, "latents died, so AuxK acted: train for fewer tokens than --dead-after-tokens"
is_held = np.array([int(doc) in held for doc in docs])
rows = np.flatnonzero(~is_held)
d, f, k, batch = x.shape[1], train["latents"], train["k"], train["batch"]
sample = x[rows].double()
scale = (d**0.5 / sample.norm(dim=-1).mean()).float()
mean = sample.mean(0).float()
del sample


def gaussian(i):
    h = pair_hash(i, 0x676175737369616E)
    a, b = ((h >> 32) + 0.5) / (2**32 - 1), ((h & 0xFFFFFFFF) + 0.5) / (2**32 - 1)
    return np.sqrt(-2 * np.log(min(a, 1 - 1e-12))) * np.cos(2 * np.pi * b)


W = torch.tensor([gaussian(i) for i in range(f * d)], dtype=torch.float32).reshape(f, d)
W /= W.norm(dim=-1, keepdim=True)
p = {"W_enc": W.clone(), "W_dec": W, "b_enc": torch.zeros(f), "b_dec": mean * scale}
p = {name: value.clone().requires_grad_(True) for name, value in p.items()}
per_epoch = len(rows) // batch
steps = per_epoch * train["epochs"]
lr = train["lr"] or 2e-4 / (f / 16384) ** 0.5
warm, decay = max(int(train["warmup"] * steps), 1), max(int(train["decay"] * steps), 1)
adam = torch.optim.Adam(p.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8)


def reconstruct(xs):
    pre = (xs - p["b_dec"]) @ p["W_enc"].T + p["b_enc"]
    values, idx = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, idx, values.relu()) @ p["W_dec"] + p["b_dec"]


for step in range(steps):
    epoch, at = divmod(step, per_epoch)
    if at == 0:
        keys = np.array([pair_hash(epoch, int(row)) for row in rows], dtype=np.uint64)
        order = rows[np.argsort(keys, kind="stable")]
    xs = scale * x[order[at * batch : (at + 1) * batch]]
    loss = (xs - reconstruct(xs)).pow(2).sum() / (xs - xs.mean(0)).pow(2).sum()
    adam.zero_grad()
    loss.backward()
    with torch.no_grad():
        g, w = p["W_dec"].grad, p["W_dec"]
        g -= (g * w).sum(-1, keepdim=True) * w
    adam.param_groups[0]["lr"] = lr * min((step + 1) / warm, (steps - step) / decay, 1.0)
    adam.step()
    with torch.no_grad():
        p["W_dec"] /= p["W_dec"].norm(dim=-1, keepdim=True)
    if step % 100 == 0:
        print(f"step {step}/{steps}: {loss.item():.4f}", file=sys.stderr)

with torch.no_grad():
    held_x = scale * x[np.flatnonzero(is_held)]
    error = sum((part - reconstruct(part)).pow(2).sum().double() for part in held_x.split(4096))
    fvu = (error / (held_x - held_x.mean(0)).pow(2).sum().double()).item()
ours = theirs["fvu"]["value"]
print(f"held-out FVU: exegete {ours:.5f}, PyTorch {fvu:.5f}, ratio {ours / fvu:.4f} ({len(held)} documents, {steps} steps)")
sys.exit(abs(ours / fvu - 1) > 0.05)
