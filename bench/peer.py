"""The peer of `cargo xtask bench`: one case, run once for each line `run` on standard input.

    peer.py CASE VARIANT FOLDER MODEL

Answers, one line each: `ready {}` once loaded, then to `run` the seconds it took, to `peak` the peak resident
memory since loading in KiB, to `result PATH` an empty line once the last result is written there as raw f32.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(2)
PROMPT, STEPS = 32, 32


def token_ids(rows, length, vocab=49152):
    """The same scattered ids as the other side's."""
    flat = np.arange(rows * length, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32) % np.uint64(vocab)
    return torch.from_numpy(flat.astype(np.int64)).reshape(rows, length)


def load_model(path):
    from transformers import AutoModelForCausalLM

    path = Path(path)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.eval().requires_grad_(False)


class Prefill:
    """Logits of the last position."""

    def __init__(self, model, rows, length):
        self.model, self.ids = load_model(model), token_ids(rows, length)

    def run(self):
        start = time.perf_counter()
        with torch.inference_mode():
            self.logits = self.model(input_ids=self.ids, use_cache=False, logits_to_keep=1).logits
        return time.perf_counter() - start

    def result(self):
        return self.logits


class Decode:
    """Greedy steps behind a prompt; seconds of one step."""

    def __init__(self, model, rows, variant):
        self.model, self.prompt = load_model(model), token_ids(rows, PROMPT)
        self.run = {"loop": self.loop, "generate": self.generate}[variant]

    @torch.inference_mode()
    def loop(self):
        out = self.model(input_ids=self.prompt, use_cache=True, logits_to_keep=1)
        ids = [out.logits[:, -1].argmax(-1, keepdim=True)]
        start = time.perf_counter()
        for _ in range(STEPS):
            out = self.model(input_ids=ids[-1], past_key_values=out.past_key_values, use_cache=True)
            ids.append(out.logits[:, -1].argmax(-1, keepdim=True))
        secs = time.perf_counter() - start
        self.ids = torch.cat(ids, 1)
        return secs / STEPS

    @torch.inference_mode()
    def generate(self):
        times = []

        def clock(ids, scores, **_):
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        out = self.model.generate(
            self.prompt,
            attention_mask=torch.ones_like(self.prompt),
            max_new_tokens=STEPS + 1,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=[clock],
        )
        self.ids = out[:, PROMPT:]
        return (times[-1] - times[0]) / STEPS

    @torch.inference_mode()
    def result(self):
        """The tokens, and the logits behind them from a run without a cache."""
        whole = torch.cat([self.prompt, self.ids], 1)
        logits = self.model(input_ids=whole, use_cache=False, logits_to_keep=1).logits
        return torch.cat([self.ids[:, 1:].reshape(-1).float(), logits.reshape(-1)])


class Gradient:
    """Mean next-token loss and its gradient at the input embeddings."""

    def __init__(self, model, rows, length):
        self.model, self.ids = load_model(model), token_ids(rows, length)

    def run(self):
        start = time.perf_counter()
        embeds = self.model.get_input_embeddings()(self.ids).detach().requires_grad_(True)
        logits = self.model(inputs_embeds=embeds, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), self.ids[:, 1:].reshape(-1))
        (self.grad,) = torch.autograd.grad(loss, embeds)
        return time.perf_counter() - start

    def result(self):
        return self.grad


class DenseStep:
    """A training step of a TopK dictionary, its decoder and its gradients dense."""

    def __init__(self, folder, d, latents, k, variant):
        def read(name):
            return torch.from_numpy(np.fromfile(Path(folder) / name, dtype=np.float32)).reshape(-1, d)

        self.x, w_dec, self.k, self.losses = read("x.f32"), read("w_dec.f32"), k, []
        start = {"W_enc": w_dec.clone(), "b_enc": torch.zeros(latents), "W_dec": w_dec, "b_dec": torch.zeros(d)}
        self.p = {name: value.requires_grad_(True) for name, value in start.items()}
        kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}}
        self.adam = torch.optim.Adam(self.p.values(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, **kinds[variant])

    def run(self):
        p, x, start = self.p, self.x, time.perf_counter()
        pre = torch.addmm(p["b_enc"], x - p["b_dec"], p["W_enc"].T)
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        codes = torch.zeros_like(pre).scatter(-1, indices, values.relu())
        x_hat = torch.addmm(p["b_dec"], codes, p["W_dec"])
        loss = (x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        self.adam.zero_grad()
        loss.backward()
        W, g = p["W_dec"], p["W_dec"].grad
        with torch.no_grad():
            g.addcmul_((g * W).sum(-1, keepdim=True), W, value=-1)
        self.adam.step()
        with torch.no_grad():
            W.div_(W.norm(dim=-1, keepdim=True))
        secs = time.perf_counter() - start
        self.losses.append(loss.item())
        return secs

    def result(self):
        return torch.tensor(self.losses)


def case_of(name, variant, folder, model):
    match name:
        case "prefill_8x128_f32":
            return Prefill(model, 8, 128)
        case "decode_b1_f32":
            return Decode(model, 1, variant)
        case "decode_b16_f32":
            return Decode(model, 16, variant)
        case "fwdbwd_8x64_f32":
            return Gradient(model, 8, 64)
        case "train_topk_768x16384":
            return DenseStep(folder, 768, 16384, 32, variant)
    raise SystemExit(f"unknown case {name}")


def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))


case = case_of(*sys.argv[1:])
Path("/proc/self/clear_refs").write_text("5")
print("ready {}", flush=True)
for line in sys.stdin:
    match line.split():
        case ["run"]:
            print(case.run(), flush=True)
        case ["peak"]:
            print(peak_kib(), flush=True)
        case ["result", path]:
            case.result().detach().reshape(-1).float().numpy().tofile(path)
            print(flush=True)
