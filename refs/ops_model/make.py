"""Forward and backward goldens of the ops that came with the families, from PyTorch in f32.

To regenerate: cargo xtask golden ops_model
Names are `case/tensor`; the gradient that enters a case is `case/grad_out`.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import save

torch.manual_seed(7)
torch.set_num_threads(1)
OUT = {}


def case(name, op, inputs):
    """Runs `op(**inputs)`, back-propagates a random gradient, and records everything."""
    leaves = {key: value.clone().requires_grad_(True) for key, value in inputs.items()}
    out = op(**leaves)
    grad_out = torch.randn_like(out)
    out.backward(grad_out)
    OUT[f"{name}/out"], OUT[f"{name}/grad_out"] = out, grad_out
    for key, leaf in leaves.items():
        OUT[f"{name}/{key}"], OUT[f"{name}/grad_{key}"] = leaf, leaf.grad


ACTS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
}
for act, f in ACTS.items():
    case(f"activate_{act}", lambda x, f=f: f(x), {"x": 3 * torch.randn(7, 29)})
    case(f"gated_{act}", lambda gate, up, f=f: f(gate) * up,
         {"gate": 3 * torch.randn(7, 29), "up": torch.randn(7, 29)})

case("soft_cap", lambda x: 2.5 * torch.tanh(x / 2.5), {"x": 4 * torch.randn(5, 33)})
case("affine", lambda x, gain, bias: x * gain + bias,
     {"x": torch.randn(5, 37), "gain": torch.randn(37), "bias": torch.randn(37)})
case("softmax", lambda x: x.view(5, 3, 11).softmax(-1).view(5, 33), {"x": 2 * torch.randn(5, 33)})

LENS, H, G, C, WINDOW, CAP, SCALE = [9, 4], 6, 2, 8, 4, 1.5, 0.4


def attention(q, k, v, what):
    """Windowed, capped attention over rows of several lengths: the mix, or the scores (0 where masked)."""
    outs, at, S = [], 0, max(LENS)
    for n in LENS:
        rows = slice(at, at + n)
        heads = lambda x, h: x[rows].view(n, h, C).transpose(0, 1).repeat_interleave(H // h, dim=0)
        scores = CAP * torch.tanh(heads(q, H) @ heads(k, G).transpose(-1, -2) * SCALE / CAP)
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        seen = (j <= i) & (i - j < WINDOW)
        if what == "scores":
            padded = F.pad(scores * seen, (0, S - n))
            outs.append(padded.transpose(0, 1).reshape(n, H * S))
        else:
            pattern = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            outs.append((pattern @ heads(v, G)).transpose(0, 1).reshape(n, H * C))
        at += n
    return torch.cat(outs)


N = sum(LENS)
qkv = {"q": torch.randn(N, H * C), "k": torch.randn(N, G * C), "v": torch.randn(N, G * C)}
case("attention_window_cap", lambda q, k, v: attention(q, k, v, "mix"), qkv)
case("attention_scores", lambda q, k: attention(q, k, None, "scores"), {"q": qkv["q"], "k": qkv["k"]})


def mixture(x, logits, w, normalise):
    """Two of four experts, each a linear map."""
    probs = logits.softmax(-1)
    weights, idx = probs.topk(2, dim=-1)
    if normalise:
        weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros(x.shape[0], w.shape[1])
    for t in range(x.shape[0]):
        for place in range(2):
            out[t] = out[t] + weights[t, place] * (w[idx[t, place]] @ x[t])
    return out


for normalise in (True, False):
    case(f"mixture_{'normalised' if normalise else 'raw'}",
         lambda x, logits, w, n=normalise: mixture(x, logits, w, n),
         {"x": torch.randn(6, 5), "logits": torch.randn(6, 4), "w": torch.randn(4, 3, 5)})

save(__file__, "out.safetensors", OUT)
