"""Forward and backward goldens of every differentiable op, from PyTorch in f32.

To regenerate: cargo xtask golden ops
Names are `case/tensor`; the gradient that enters a case is `case/grad_out`.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import save

torch.manual_seed(1)
torch.set_num_threads(1)
OUT = {}


def case(name, op, inputs, extra=None):
    """Runs `op(**inputs)`, back-propagates a random gradient, and records everything."""
    leaves = {key: value.clone().requires_grad_(True) for key, value in inputs.items()}
    out = op(**leaves)
    # A scalar loss starts its own backward pass; a 1 there keeps the reader's side plain.
    grad_out = torch.ones(()) if out.dim() == 0 else torch.randn_like(out)
    out.backward(grad_out)
    OUT[f"{name}/out"] = out.reshape(1) if out.dim() == 0 else out
    OUT[f"{name}/grad_out"] = grad_out.reshape(1) if out.dim() == 0 else grad_out
    for key, leaf in leaves.items():
        OUT[f"{name}/{key}"] = leaf
        OUT[f"{name}/grad_{key}"] = leaf.grad
    for key, value in (extra or {}).items():
        OUT[f"{name}/{key}"] = value


def rmsnorm(x, gain, eps=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rope_tables(positions, head_dim, theta=10000.0):
    """cos and sin, [T, C], each half repeated as Hugging Face lays them out."""
    inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(positions.float(), inv_freq)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def attention(q, k, v, n_heads, n_kv, starts=None):
    """Causal grouped-query attention over q [B,T,H*C] and k, v [B,T,G*C].

    `starts[b]` is the first key that row b may see. Rows before it have no key; here they see
    themselves, so that they stay finite, and their gradient is set to zero by the caller.
    """
    B, T, _ = q.shape
    C = q.shape[-1] // n_heads
    q = q.view(B, T, n_heads, C).transpose(1, 2)
    k = k.view(B, T, n_kv, C).transpose(1, 2).repeat_interleave(n_heads // n_kv, dim=1)
    v = v.view(B, T, n_kv, C).transpose(1, 2).repeat_interleave(n_heads // n_kv, dim=1)
    rows, cols = torch.arange(T)[:, None], torch.arange(T)[None, :]
    allowed = (cols <= rows).expand(B, T, T)
    if starts is not None:
        allowed = allowed & ((cols >= starts[:, None, None]) | (cols == rows))
    scores = (q @ k.transpose(-1, -2)) * C**-0.5
    pattern = scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1)
    return (pattern @ v).transpose(1, 2).reshape(B, T, n_heads * C)


case("linear", lambda x, w: F.linear(x, w), {"x": torch.randn(7, 33), "w": torch.randn(19, 33)})
case("linear_bias", lambda x, w, b: F.linear(x, w, b),
     {"x": torch.randn(7, 33), "w": torch.randn(19, 33), "b": torch.randn(19)})
case("rmsnorm", rmsnorm, {"x": torch.randn(5, 37), "gain": 1 + 0.3 * torch.randn(37)})
case("layernorm", lambda x, gain, bias: F.layer_norm(x, (37,), gain, bias, 1e-5),
     {"x": 2 * torch.randn(5, 37) + 0.5, "gain": 1 + 0.3 * torch.randn(37), "bias": torch.randn(37)})

cos, sin = rope_tables(torch.arange(3, 10), 12)
case("rope", lambda x: x * cos[None, :, None] + rotate_half(x) * sin[None, :, None],
     {"x": torch.randn(2, 7, 3, 12)}, {"cos": cos, "sin": sin, "positions": torch.arange(3, 10)})

qkv = {"q": torch.randn(2, 11, 6 * 16), "k": torch.randn(2, 11, 2 * 16), "v": torch.randn(2, 11, 2 * 16)}
case("attention", lambda q, k, v: attention(q, k, v, 6, 2), qkv)

starts = torch.tensor([0, 4])
real = (torch.arange(11)[None, :] >= starts[:, None]).float()[..., None]
# Rows before the start are don't-care: `out` and `grad_out` are zero there.
case("attention_padded", lambda q, k, v: attention(q, k, v, 6, 2, starts) * real, qkv, {"starts": starts})
OUT["attention_padded/grad_out"] = OUT["attention_padded/grad_out"] * real

case("swiglu", lambda gate, up: F.silu(gate) * up, {"gate": 2 * torch.randn(7, 29), "up": torch.randn(7, 29)})

targets = torch.randint(0, 37, (9,))
case("cross_entropy", lambda logits: F.cross_entropy(logits, targets), {"logits": 3 * torch.randn(9, 37)},
     {"targets": targets})

tokens = torch.tensor([[3, 0, 3, 12], [7, 12, 3, 1]])
case("embedding", lambda w: F.embedding(tokens, w), {"w": torch.randn(13, 10)}, {"tokens": tokens})

x = torch.randn(5, 101)
values, indices = x.topk(7, dim=-1, sorted=True)
OUT |= {"row_topk/x": x, "row_topk/values": values, "row_topk/indices": indices}

w = torch.randn(13, requires_grad=True)
adam = torch.optim.Adam([w], lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
OUT["adam/w"] = w.detach().clone()
for step in range(3):
    w.grad = torch.randn(13)
    OUT[f"adam/grad_{step}"] = w.grad.clone()
    adam.step()
    OUT[f"adam/w_{step}"] = w.detach().clone()

save(__file__, "out.safetensors", OUT)
