"""Training of a TopK dictionary with AuxK in PyTorch, on synthetic activations.

To regenerate: cargo xtask golden sae_topk

W_enc and W_dec are both [F, d]. Inside the dictionary everything is in scaled units, x_s = scale * x:

    pre   = (x_s - b_dec) W_enc^T + b_enc
    f     = relu(top k of pre)
    x_hat = f W_dec + b_dec
    main  = sum |x_s - x_hat|^2 / sum |x_s - batch mean of x_s|^2
    aux   = sum |e - e_hat|^2 / sum |e - batch mean of e|^2,  e = (x_s - x_hat).detach(),
            e_hat = relu(top k_aux of pre among the dead latents) W_dec
    loss  = main + alpha * aux      (aux is 0 while no latent is dead)

`aux_few` is a step with fewer dead latents than k_aux, `aux_many` one with more. In so small a problem AuxK
mostly makes the dead latents explain what is left over and leaves them dead; what is pinned here is its gradient.

Recorded gradients are those of the loss, before the part along each decoder row is taken out of W_dec's.

A latent is dead in a step when it had not fired (f > 0) for more than DEAD_AFTER tokens before it.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch
import xxhash

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import save

D, F, K, K_AUX, ALPHA = 32, 128, 6, 16, 1 / 32
N_TRAIN, N_HELD, BATCH, EPOCHS, SEED, DEAD_AFTER, LR = 4096, 1024, 128, 12, 17, 2048, 1e-3
STEPS = N_TRAIN // BATCH * EPOCHS
WARM, DECAY = int(0.05 * STEPS), int(0.2 * STEPS)


def activations(rng, n_true=48):
    """Sparse combinations of unit directions, some of them rare, about a mean, with noise."""
    directions = rng.standard_normal((n_true, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    mean = rng.standard_normal(D)
    n = N_TRAIN + N_HELD
    # Common directions are strong and rare ones weak, so that some latents starve and die.
    chance, size = np.geomspace(0.2, 0.01, n_true), np.geomspace(8, 0.02, n_true)
    strength = (rng.random((n, n_true)) < chance) * (1 + 2 * rng.random((n, n_true))) * size
    x = strength @ directions + mean + 0.05 * rng.standard_normal((n, D))
    return torch.from_numpy(x.astype(np.float32)).split([N_TRAIN, N_HELD])


def order(epoch):
    """The rows of an epoch, sorted by the hash of (seed, epoch, row)."""
    keys = [xxhash.xxh3_64_intdigest(struct.pack("<QQQ", SEED, epoch, row)) for row in range(N_TRAIN)]
    return torch.from_numpy(np.argsort(np.array(keys, dtype=np.uint64), kind="stable"))


def schedule(step):
    """Warm-up, constant, then down to zero: the factor on the learning rate."""
    return min((step + 1) / WARM, 1.0, (STEPS - step) / DECAY)


def top(pre, k):
    """relu of the k largest of each row, zero elsewhere."""
    values, indices = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, indices, values.relu())


def encode(p, x):
    pre = (x - p["b_dec"]) @ p["W_enc"].T + p["b_enc"]
    return pre, top(pre, K)


def unexplained(x, x_hat):
    """The fraction of the variance about the mean that is not explained."""
    return (x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()


def losses(p, x, dead):
    """Main loss, auxiliary loss, and which latents fired."""
    pre, f = encode(p, x)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    aux = torch.zeros(())
    if n_dead := int(dead.sum()):
        e = (x - x_hat).detach()
        f_aux = top(pre.masked_fill(~dead, float("-inf")), min(K_AUX, n_dead))
        aux = unexplained(e, f_aux @ p["W_dec"])
    return unexplained(x, x_hat), aux, (f > 0).any(0)


torch.set_num_threads(1)
rng = np.random.Generator(np.random.PCG64(SEED))
x_train, x_held = activations(rng)
scale = torch.tensor(D**0.5) / x_train.norm(dim=-1).mean()
xs_train, xs_held = scale * x_train, scale * x_held
W_dec = torch.from_numpy(rng.standard_normal((F, D)).astype(np.float32))
W_dec /= W_dec.norm(dim=-1, keepdim=True)
p = {"W_enc": W_dec.clone(), "W_dec": W_dec, "b_enc": torch.zeros(F), "b_dec": xs_train.mean(0)}
p = {name: value.clone().requires_grad_(True) for name, value in p.items()}
adam = torch.optim.Adam(p.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8)

OUT = {"x_train": x_train, "x_held": x_held, "scale": scale.reshape(1)}
OUT |= {"W_dec_init": W_dec, "b_dec_init": p["b_dec"].detach().clone()}
since_fired = torch.zeros(F, dtype=torch.int64)
# Steps that are recorded whole: name and the least number of dead latents.
history, wanted = [], {"first": 0, "aux_few": 4, "aux_many": K_AUX + 1}
for step in range(STEPS):
    epoch, at = divmod(step * BATCH, N_TRAIN // BATCH * BATCH)
    if at == 0:
        rows_of_epoch = order(epoch)
    rows = rows_of_epoch[at : at + BATCH]
    dead = since_fired > DEAD_AFTER
    main, aux, fired = losses(p, xs_train[rows], dead)
    adam.zero_grad()
    (main + ALPHA * aux).backward()
    for name in [name for name, least in wanted.items() if int(dead.sum()) >= least]:
        del wanted[name]
        OUT |= {f"{name}/rows": rows, f"{name}/dead": dead.int(), f"{name}/step": torch.tensor([step])}
        OUT |= {f"{name}/losses": torch.stack([main + ALPHA * aux, main, aux])}
        OUT |= {f"{name}/{key}": value.detach().clone() for key, value in p.items()}
        OUT |= {f"{name}/grad_{key}": value.grad.clone() for key, value in p.items()}
        gap = encode(p, xs_train[rows])[0].sort(descending=True).values
        print(f"{name}: step {step}, {int(dead.sum())} dead, smallest gap at k {(gap[:, K - 1] - gap[:, K]).min():.1e}")
    # Only the part of the gradient that turns a decoder row may move it.
    with torch.no_grad():
        W, g = p["W_dec"], p["W_dec"].grad
        g -= (g * W).sum(-1, keepdim=True) * W
    adam.param_groups[0]["lr"] = LR * schedule(step)
    adam.step()
    with torch.no_grad():
        p["W_dec"] /= p["W_dec"].norm(dim=-1, keepdim=True)
    since_fired = torch.where(fired, 0, since_fired + BATCH)
    history.append([*(v.item() for v in (main + ALPHA * aux, main, aux)), schedule(step), int(dead.sum())])

with torch.no_grad():
    _, f = encode(p, xs_held)
    fvu = unexplained(xs_held, f @ p["W_dec"] + p["b_dec"])
    l0 = (f > 0).sum(-1).float().mean()
history = torch.tensor(history)
OUT |= {"losses": history[:, :3], "lr_factor": history[:, 3], "n_dead_before": history[:, 4].int()}
OUT |= {f"final/{key}": value for key, value in p.items()}
OUT |= {"final/fvu": fvu.reshape(1), "final/l0": l0.reshape(1), "final/since_fired": since_fired}
OUT["final/n_dead"] = torch.tensor([int((since_fired > DEAD_AFTER).sum())])
for name in ("losses", "lr_factor", "n_dead_before"):
    OUT[name] = OUT[name].contiguous()
save(__file__, "golden.safetensors", OUT)
print(f"scale {scale.item():.5f} fvu {fvu:.5f} l0 {l0:.3f} dead {OUT['final/n_dead'].item()}, at most {history[:, 4].max():.0f} dead, left {list(wanted)}")
