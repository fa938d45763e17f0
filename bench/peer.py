"""The peer of `cargo xtask bench`: one case, run once for each line `run` on standard input.

    peer.py CASE VARIANT FOLDER MODEL

Answers, one line each: `ready {"peer": PROGRAM}` once loaded, then to `run` the seconds it took, to `peak` the peak resident
memory since loading in KiB, to `result PATH` an empty line once the last result is written there as raw f32.
"""

import contextlib
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(2)
PROMPT, STEPS = 32, 32
TEXT = "The capital of France is"


def token_ids(rows, length, vocab=49152):
    """The same scattered ids as the other side's."""
    flat = np.arange(rows * length, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32) % np.uint64(vocab)
    return torch.from_numpy(flat.astype(np.int64)).reshape(rows, length)


def load_model(path, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    path = Path(path)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, attn_implementation="sdpa"
    )
    # transformers can keep the weights of a GGUF file packed and decode them in each product, and warns of that even
    # where it does not. The peer must multiply plain matrices.
    layers = [m for m in model.modules() if hasattr(m, "in_features")]
    assert all(type(m) is torch.nn.Linear and m.weight.dtype == dtype and m.weight.is_contiguous() for m in layers)
    return model.eval().requires_grad_(False)


def rope_base(config):
    # transformers 5 keeps it in another place than 4.
    parameters = getattr(config, "rope_parameters", None)
    return parameters["rope_theta"] if parameters else config.rope_theta


def load_hooked(path, kind=None):
    """The same weights in TransformerLens, converted by its own function and not processed further."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    original = load_model(path)
    c = original.config
    d_head = c.hidden_size // c.num_attention_heads
    config = HookedTransformerConfig(
        n_layers=c.num_hidden_layers, d_model=c.hidden_size, n_heads=c.num_attention_heads, d_head=d_head,
        n_key_value_heads=c.num_key_value_heads, d_mlp=c.intermediate_size, act_fn=c.hidden_act, eps=c.rms_norm_eps,
        normalization_type="RMS", final_rms=True, gated_mlp=True, positional_embedding_type="rotary",
        rotary_adjacent_pairs=False, rotary_dim=d_head, rotary_base=rope_base(c), n_ctx=2048,
        d_vocab=c.vocab_size, device="cpu", dtype=torch.float32, seed=0,
    )
    model = (kind or HookedTransformer)(config)
    model.load_and_process_state_dict(
        convert_llama_weights(original, config), fold_ln=False, center_writing_weights=False, center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval().requires_grad_(False)


class Prefill:
    """Logits of the last position."""

    def __init__(self, model, rows, length, dtype=torch.float32):
        self.model, self.ids = load_model(model, dtype), token_ids(rows, length)

    def run(self):
        start = time.perf_counter()
        with torch.inference_mode():
            self.logits = self.model(input_ids=self.ids, use_cache=False, logits_to_keep=1).logits
        return time.perf_counter() - start

    def result(self):
        return self.logits


class Hooked:
    """The same in TransformerLens, with the residual stream behind every layer kept if asked for.

    `forward` computes the logits of all positions, which is all that it can do; `last` stops behind the blocks and
    takes the last position's through the final norm and the unembedding, as much work as the other side does.
    """

    def __init__(self, model, rows, length, variant, capture):
        self.model, self.ids, self.capture = load_hooked(model), token_ids(rows, length), capture
        self.stop = {"forward": None, "last": self.model.cfg.n_layers}[variant]
        self.names = [f"blocks.{layer}.hook_resid_post" for layer in range(self.model.cfg.n_layers)]

    def run(self):
        model, names, cache = self.model, set(self.names), {}
        start = time.perf_counter()
        with torch.inference_mode():
            if self.capture:
                out, cache = model.run_with_cache(self.ids, names_filter=lambda n: n in names, stop_at_layer=self.stop)
            else:
                out = model(self.ids, stop_at_layer=self.stop)
            out = out[:, -1:]
            self.logits = out if self.stop is None else model.unembed(model.ln_final(out))
        secs = time.perf_counter() - start
        self.kept = [cache[name][0, -1].clone() for name in self.names if self.capture]
        return secs

    def result(self):
        return torch.cat([self.logits.reshape(-1), *self.kept])


class FirstToken:
    """A process of its own that loads the model, takes a text apart, and says the first new token."""

    def __init__(self, model):
        self.command = [sys.executable, __file__, "first_token", model]

    def run(self):
        start = time.perf_counter()
        out = subprocess.run(self.command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        secs = time.perf_counter() - start
        self.ids = json.loads(out)
        return secs

    def result(self):
        return torch.tensor(self.ids)


def first_token(model):
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(Path(model).parent, gguf_file=Path(model).name)(TEXT, return_tensors="pt")
    with torch.inference_mode():
        out = load_model(model).generate(**ids, max_new_tokens=1, do_sample=False)
    print(out[0].tolist())


class Decode:
    """Greedy steps behind a prompt; seconds of one step."""

    def __init__(self, model, rows, variant, dtype=torch.float32):
        self.model, self.prompt = load_model(model, dtype), token_ids(rows, PROMPT)
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
        """The tokens, and the logits behind them from a run without a cache; in bf16 the logits behind given tokens."""
        if self.model.dtype == torch.bfloat16:
            given = token_ids(len(self.prompt), PROMPT + STEPS)
            return self.model(input_ids=given, use_cache=False, logits_to_keep=1).logits
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


# Latents kept, and the threshold, of `bench/src/worker/train.rs`.
K, SPARSE = 32, 2.66


def activations_and_decoder(folder, d):
    read = lambda name: torch.from_numpy(np.fromfile(Path(folder) / name, dtype=np.float32)).reshape(-1, d)
    return read("x.f32"), read("w_dec.f32")


class LensStep:
    """A training step of SAELens (its loss, clipping and Adam, as its trainer takes them), or its encoding."""

    def __init__(self, folder, kind, d, latents, encodes, variant):
        from sae_lens import saes

        top = {"k": K, "rescale_acts_by_decoder_norm": False, "use_sparse_activations": variant == "saelens_sparse"}
        relu = {"l1_coefficient": 0.1}
        jump = {"jumprelu_init_threshold": SPARSE, "jumprelu_bandwidth": 0.5, "l0_coefficient": 0.1}
        kinds = {"topk": ("TopK", top), "batchtopk": ("BatchTopK", top), "relu": ("Standard", relu)}
        name, more = (kinds | {"relu-dense": ("Standard", relu), "jumprelu": ("JumpReLU", jump)})[kind]
        config = getattr(saes, f"{name}TrainingSAEConfig")(d_in=d, d_sae=latents, **more)
        self.x, w_dec = activations_and_decoder(folder, d)
        self.sae, self.encodes, self.first = getattr(saes, f"{name}TrainingSAE")(config), encodes, None
        with torch.no_grad():
            self.sae.W_dec.copy_(w_dec)
            self.sae.W_enc.copy_(w_dec.T)
            self.sae.b_dec.zero_()
            self.sae.b_enc.fill_(-SPARSE if kind == "relu" else 0.0)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=1e-4, betas=(0.9, 0.999))
        # What its trainer gives each step: nothing is dead yet.
        self.dead = torch.zeros(latents, dtype=torch.bool)

    def run(self):
        from sae_lens.saes.sae import TrainStepInput

        start = time.perf_counter()
        if self.encodes:
            with torch.no_grad():
                acts = self.sae.encode(self.x)
            secs = time.perf_counter() - start
            acts = acts.to_dense() if acts.is_sparse else acts
            self.first = [acts.sum().item(), (acts > 0).sum().item()]
            return secs
        weights = {key: 0.1 for key in self.sae.get_coefficients()}
        given = TrainStepInput(
            sae_in=self.x, dead_neuron_mask=self.dead, coefficients=weights, n_training_steps=1, is_logging_step=False
        )
        out = self.sae.training_forward_pass(step_input=given)
        self.adam.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.adam.step()
        secs = time.perf_counter() - start
        if self.first is None:
            acts = out.feature_acts.detach()
            acts = acts.to_dense() if acts.is_sparse else acts
            self.first = [out.losses["mse_loss"].item(), (acts > 0).sum().item() / len(self.x)]
        return secs

    def result(self):
        return torch.tensor(self.first)


class LearningStep:
    """A training step of dictionary_learning, or its encoding."""

    def __init__(self, folder, kind, d, latents, encodes):
        # Its model wrappers need a package that dictionaries do not.
        sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).LanguageModel = object
        from dictionary_learning.trainers import batch_top_k, jumprelu, standard, top_k

        both = {"steps": 1 << 20, "activation_dim": d, "dict_size": latents, "layer": 0, "lm_name": "none"}
        both |= {"device": "cpu", "lr": 1e-4, "warmup_steps": 0}
        match kind:
            case "topk":
                self.trainer = top_k.TopKTrainer(k=K, auxk_alpha=0.0, **both)
            case "batchtopk":
                self.trainer = batch_top_k.BatchTopKTrainer(k=K, auxk_alpha=0.0, **both)
            case "jumprelu":
                self.trainer = jumprelu.JumpReluTrainer(bandwidth=0.5, sparsity_penalty=0.1, **both)
            case _:
                self.trainer = standard.StandardTrainerAprilUpdate(l1_penalty=0.1, sparsity_warmup_steps=0, **both)
        self.x, w_dec = activations_and_decoder(folder, d)
        self.encodes, ae = encodes, self.trainer.ae
        with torch.no_grad():
            if kind == "jumprelu":
                ae.W_enc.copy_(w_dec.T)
                ae.W_dec.copy_(w_dec)
                ae.threshold.fill_(SPARSE)
            else:
                ae.encoder.weight.copy_(w_dec)
                ae.decoder.weight.copy_(w_dec.T)
                ae.encoder.bias.fill_(-SPARSE if kind == "relu" else 0.0)
            acts, x_hat = self.encode(), ae(self.x)
        error = (self.x - x_hat).pow(2).sum(-1).mean()
        self.first = [acts.sum(), (acts > 0).sum()] if encodes else [error, (acts > 0).sum() / len(self.x)]
        # Its first step would set the decoder's bias anew.
        self.step = 1

    def encode(self):
        acts = self.trainer.ae.encode(self.x)
        return acts[0] if isinstance(acts, tuple) else acts

    def run(self):
        start = time.perf_counter()
        if self.encodes:
            with torch.no_grad():
                self.encode()
        else:
            self.trainer.update(self.step, self.x)
            self.step += 1
        return time.perf_counter() - start

    def result(self):
        return torch.tensor(self.first)


def dictionary_case(name, variant, folder):
    what, kind, sizes = name.split("_")
    d, latents = map(int, sizes.split("x"))
    if variant == "dictionary_learning":
        return LearningStep(folder, kind, d, latents, what == "encode")
    return LensStep(folder, kind, d, latents, what == "encode", variant)


class OrganismStep:
    """A training step of the organism: forward, backward, clipping and AdamW, without decay of vectors and the embedding."""

    def __init__(self, folder, rows, length, variant):
        from transformers import AutoModelForCausalLM

        path = Path(folder) / "organism" / "model"
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").train()
        ids = token_ids(rows, length + 1, self.model.config.vocab_size)
        self.inputs, self.targets, self.losses = ids[:, :-1].contiguous(), ids[:, 1:].reshape(-1).contiguous(), []
        decays = lambda name, p: p.dim() == 2 and "embed_tokens" not in name
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if decays(n, p)], "weight_decay": 0.1},
            {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
        ]
        kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}}
        self.adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, **kinds[variant])

    def run(self):
        start = time.perf_counter()
        logits = self.model(input_ids=self.inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), self.targets)
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        secs = time.perf_counter() - start
        self.losses.append(loss.item())
        return secs

    def result(self):
        return torch.tensor(self.losses)


class Dashboards:
    """From tokens to the batches that Neuronpedia reads, as SAEDashboard's own runner goes about it: 128 features together, the
    model's activations kept on the disk for the next ones, position 0 and long activations left out as on our side."""

    WINDOWS, LENGTH, LATENTS, TOGETHER = 1024, 128, 1024, 128

    def __init__(self, folder, path, dtype=torch.float32):
        from sae_lens import SAE, HookedSAETransformer
        from transformers import AutoTokenizer

        self.folder, path = Path(folder), Path(path)
        self.model = load_hooked(path, HookedSAETransformer)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        self.model.set_tokenizer(tokenizer, default_padding_side="right")
        self.vocabulary = {i: tokenizer.decode([i]) for i in range(self.model.cfg.d_vocab)}
        self.sae = SAE.load_from_disk(self.folder / "sae", device="cpu")
        # The runner folds decoder norms first, which SAELens refuses for TopK; these are 1, and there is nothing to fold.
        assert torch.allclose(self.sae.W_dec.norm(dim=1), torch.ones(self.LATENTS), atol=1e-4)
        self.sae.fold_W_dec_norm = lambda: None
        if dtype != torch.float32:
            # It tells of that on standard output, which is ours.
            with contextlib.redirect_stdout(sys.stderr):
                self.model.to(dtype)
            self.sae.to(dtype=dtype)
        self.dtype = str(dtype).removeprefix("torch.")
        flat = np.fromfile(self.folder / "tokens.i32", dtype=np.int32).astype(np.int64)
        self.tokens = torch.from_numpy(flat).reshape(self.WINDOWS, self.LENGTH)

    def run(self):
        import gc
        import shutil

        from sae_dashboard.components_config import (
            ActsHistogramConfig, Column, FeatureTablesConfig, LogitsHistogramConfig, LogitsTableConfig, SequencesConfig,
        )
        from sae_dashboard.layout import SaeVisLayoutConfig
        from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
        from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
        from sae_dashboard.sae_vis_data import SaeVisConfig
        from sae_dashboard.sae_vis_runner import SaeVisRunner

        out = self.folder / "theirs"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        named = NeuronpediaRunnerConfig(
            sae_set="bench", sae_path="", outputs_dir=str(out), n_prompts_total=self.WINDOWS,
            n_tokens_in_prompt=self.LENGTH, model_id="smollm2", layer=9,
        )
        self.largest, start = [], time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            for first in range(0, self.LATENTS, self.TOGETHER):
                groups = SequencesConfig(
                    stack_mode="stack-all", buffer=None, compute_buffer=True, n_quantiles=5, top_acts_group_size=20,
                    quantile_group_size=5,
                )
                column = Column(
                    groups, ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig(),
                    FeatureTablesConfig(n_rows=3),
                )
                config = SaeVisConfig(
                    hook_point="blocks.9.hook_resid_post", features=list(range(first, first + self.TOGETHER)),
                    minibatch_size_features=self.TOGETHER, minibatch_size_tokens=32, device="cpu", dtype=self.dtype,
                    feature_centric_layout=SaeVisLayoutConfig(columns=[column]), cache_dir=out / "cached",
                    ignore_positions=[0], ignore_high_activation_norm_multiple=10.0,
                )
                data = SaeVisRunner(config).run(encoder=self.sae, model=self.model, tokens=self.tokens)
                text = NeuronpediaConverter.convert_to_np_json(self.model, data, named, self.vocabulary)
                (out / f"batch-{first // self.TOGETHER}.json").write_text(text)
                for feature in json.loads(text)["features"]:
                    values = [max(a["values"]) for a in feature["activations"]]
                    self.largest.append(max(values, default=0.0))
                del data
                gc.collect()
        secs = time.perf_counter() - start
        shutil.rmtree(out)
        return secs

    def result(self):
        return torch.tensor(self.largest)


def case_of(name, variant, folder, model):
    match name:
        case "prefill_8x128_f32":
            return Prefill(model, 8, 128)
        case "prefill_8x128_bf16":
            return Prefill(model, 8, 128, torch.bfloat16)
        case "prefill_8x128_tl_f32":
            return Hooked(model, 8, 128, variant, capture=False)
        case "capture_all_layers_tl_f32":
            return Hooked(model, 8, 128, variant, capture=True)
        case "decode_b1_f32":
            return Decode(model, 1, variant)
        case "decode_b16_f32":
            return Decode(model, 16, variant)
        case "decode_b16_bf16":
            return Decode(model, 16, variant, torch.bfloat16)
        case "fwdbwd_8x64_f32":
            return Gradient(model, 8, 64)
        case "first_token_cold":
            return FirstToken(model)
        case "dashboards_1k_128k":
            return Dashboards(folder, model)
        case "dashboards_1k_128k_bf16":
            return Dashboards(folder, model, torch.bfloat16 if variant == "sae_dashboard_bf16" else torch.float32)
        case "train_organism_32x128_f32":
            return OrganismStep(folder, 32, 128, variant)
        case _ if name.startswith(("train_", "encode_")):
            return dictionary_case(name, variant, folder)
    raise SystemExit(f"unknown case {name}")


def program_of(served):
    """The program whose code a case runs, with its version."""
    from importlib.metadata import version

    match served:
        case Hooked():
            return f"TransformerLens {version('transformer-lens')}"
        case Dashboards():
            return f"SAEDashboard {version('sae-dashboard')}"
        case LensStep():
            return f"SAELens {version('sae-lens')}"
        case LearningStep():
            return f"dictionary_learning {version('dictionary-learning')}"
    return f"transformers {version('transformers')}"


def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))


def serve(served):
    Path("/proc/self/clear_refs").write_text("5")
    print("ready", json.dumps({"peer": program_of(served)}), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["run"]:
                print(served.run(), flush=True)
            case ["peak"]:
                print(peak_kib(), flush=True)
            case ["result", path]:
                served.result().detach().reshape(-1).float().numpy().tofile(path)
                print(flush=True)


if sys.argv[1] == "first_token":
    first_token(sys.argv[2])
else:
    serve(case_of(*sys.argv[1:]))
