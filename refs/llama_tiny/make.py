"""Tiny random Llama models as Hugging Face directories and GGUF files, with their goldens.

To regenerate: cargo xtask golden llama_tiny
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import torch
from common import save
from to_gguf import TYPES, write_gguf
from tiny import build, record

torch.set_num_threads(1)

CASES = {
    "mha_untied": dict(d_model=24, d_mlp=50, n_heads=4, n_kv=4, tied=False, seed=11),
    # 32 and 64 are multiples of the 32 values of a GGUF block.
    "gqa_tied": dict(d_model=32, d_mlp=64, n_heads=4, n_kv=2, tied=True, seed=12),
    "mqa_untied_sharded": dict(d_model=30, d_mlp=46, n_heads=5, n_kv=1, tied=False, seed=13),
}

for case, shape in CASES.items():
    model = build(**shape)
    model.save_pretrained(HERE / case, max_shard_size="12KB" if "sharded" in case else "1GB")
    for file in (HERE / case).glob("model*.safetensors"):
        file.chmod(0o644)
    (HERE / case / "generation_config.json").unlink(missing_ok=True)
    save(__file__, f"{case}/golden.safetensors", record(model))

OUT = {}
for kind in TYPES:
    model = build(**CASES["gqa_tied"])
    # `write_gguf` puts the rounded weights back into the model, so that the logits are theirs.
    matrix = write_gguf(model, kind, HERE / "gguf" / f"{kind}.gguf")
    golden = record(model)
    OUT["tokens"] = golden["tokens"]
    OUT[f"{kind}/logits"] = golden["hook_logits"]
    OUT[f"{kind}/blocks.1.w_gate"] = matrix
save(__file__, "gguf/golden.safetensors", OUT)
