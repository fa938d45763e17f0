"""The tiny models of `families` as GGUF files laid out as by llama.cpp's converter, and transformers' logits for them.

What a GGUF file cannot say is taken as llama.cpp assumes it: see CHANGES.

To regenerate: cargo xtask golden families_gguf
"""

import importlib.util
import math
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REFS = HERE.parent
sys.path[:0] = [str(REFS), str(REFS / "families"), str(REFS / "llama_tiny")]

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

import dump
from common import save
from configs import CASES
from to_gguf import add_tokenizer, permute

spec = importlib.util.spec_from_file_location("families", REFS / "families" / "make.py")
families = importlib.util.module_from_spec(spec)
spec.loader.exec_module(families)

# file: (architecture, case)
FILES = {
    "gpt2": ("gpt2", "gpt2"),
    "gptneox": ("gptneox", "gpt_neox"),
    "gptneox_sequential": ("gptneox", "gpt_neox_sequential"),
    "llama2": ("llama", "llama2"),
    "llama3": ("llama", "llama3"),
    "mistral": ("llama", "mistral_nemo"),
    "qwen2": ("qwen2", "qwen2"),
    "qwen3": ("qwen3", "qwen3"),
    "qwen3moe": ("qwen3moe", "qwen3_moe"),
    "gemma": ("gemma", "gemma"),
    "gemma2": ("gemma2", "gemma2"),
    "gemma3": ("gemma3", "gemma3"),
    "phi3_short": ("phi3", "phi3_short"),
    "phi3_long": ("phi3", "phi3_long"),
    "olmo2": ("olmo2", "olmo2"),
    "smollm3": ("smollm3", "smollm3"),
}

# GGUF has no query_pre_attn_scalar (the scale is that of head_dim, but for the 27B models), the converter writes no
# window pattern for Gemma 3 (every sixth layer is global), and the qwen3moe architecture has no dense layers.
CHANGES = {
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3": {"query_pre_attn_scalar": 8, "num_hidden_layers": 7, "sliding_window_pattern": 6},
    "qwen3_moe": {"mlp_only_layers": [], "num_hidden_layers": 2},
}

# The architectures whose converter writes its own list of keys instead of the common one.
OWN_KEYS = ["gpt2", "gptneox", "gemma", "gemma2", "phi3"]
PERMUTED = ["llama", "smollm3"]


def write_keys(writer, arch, config):
    get = config.get
    heads = get("num_attention_heads", get("n_head"))
    width = get("hidden_size", get("n_embd"))
    writer.add_block_count(get("num_hidden_layers", get("n_layer")))
    writer.add_context_length(get("max_position_embeddings", get("n_ctx")))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(get("intermediate_size", 4 * width))
    writer.add_head_count(heads)
    if "num_key_value_heads" in config:
        writer.add_head_count_kv(config["num_key_value_heads"])
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(get("layer_norm_eps", get("layer_norm_epsilon")))
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if arch != "gptneox":
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    if arch not in OWN_KEYS:
        if get("rope_theta") is not None:
            writer.add_rope_freq_base(float(config["rope_theta"]))
        if get("rope_local_base_freq") is not None:
            writer.add_rope_freq_base_swa(float(config["rope_local_base_freq"]))
        scaling = get("rope_scaling") or {}
        if scaling.get("rope_type", scaling.get("type")) == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling["factor"])
        if "num_experts" in config:
            writer.add_expert_count(config["num_experts"])
            writer.add_expert_used_count(config["num_experts_per_tok"])
            writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if arch in PERMUTED:
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(get("head_dim", width // heads))
    if arch == "gptneox":
        writer.add_rope_dimension_count(int(config["rotary_pct"] * (width // heads)))
        writer.add_parallel_residual(config["use_parallel_residual"])
    if arch in ["gemma2", "gemma3"]:
        writer.add_sliding_window(config["sliding_window"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "phi3":
        original = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_dimension_count(int(get("partial_rotary_factor", 1.0) * width) // heads)
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_sliding_window(get("sliding_window") or 0)
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))


def rope_tensors(arch, config):
    scaling = config.get("rope_scaling") or {}
    if arch == "phi3":
        yield "rope_factors_long.weight", torch.tensor(scaling["long_factor"])
        yield "rope_factors_short.weight", torch.tensor(scaling["short_factor"])
    if scaling.get("rope_type") == "llama3":
        dim, original, factor = config["head_dim"], scaling["original_max_position_embeddings"], scaling["factor"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        factors = []
        for frequency in 1.0 / (config["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
            wavelength = 2 * math.pi / frequency
            if wavelength < original / high:
                factors.append(1.0)
            elif wavelength > original / low:
                factors.append(factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                factors.append(1 / ((1 - smooth) / factor + smooth))
        yield "rope_freqs.weight", torch.tensor(factors)


def weight_tensors(arch, config, tensors):
    """The hub file's tensors under their GGUF names."""
    heads = config.get("num_attention_heads", config.get("n_head"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(key, layers)

    def named(name):
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, f"{arch}: no GGUF name for {name}"
        return found

    for name, x in tensors.items():
        if name.endswith((".attn.bias", ".attention.bias", ".masked_bias", ".inv_freq")) or ".experts." in name:
            continue
        if arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            x = x.T
        if ".query_key_value." in name:
            x = x.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        if arch in PERMUTED and ".q_proj." in name:
            x = permute(x, heads)
        if arch in PERMUTED and ".k_proj." in name:
            x = permute(x, config["num_key_value_heads"])
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            x = x + 1
        yield named(name), x
    for layer in range(layers if arch == "qwen3moe" else 0):
        for kind in ["down_proj", "gate_proj", "up_proj"]:
            stem = f"model.layers.{layer}.mlp.experts"
            stacked = torch.stack([tensors[f"{stem}.{e}.{kind}.weight"] for e in range(config["num_experts"])])
            yield named(f"{stem}.{kind}.weight"), stacked


def write_gguf(path, arch, config, tensors):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(path.stem)
    write_keys(writer, arch, config)
    add_tokenizer(writer, config["vocab_size"])
    for name, x in [*rope_tensors(arch, config), *weight_tensors(arch, config, tensors)]:
        writer.add_tensor(name, np.ascontiguousarray(x.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.chmod(0o644)


if __name__ == "__main__":
    out = {"tokens": families.TOKENS}
    for file, (arch, case) in FILES.items():
        config, seed = CASES[case]
        config = {**config, **CHANGES.get(case, {})}
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / case
            families.write_model(folder, config, seed)
            tensors = load_file(folder / "model.safetensors")
            out[f"{file}/logits"] = dump.record(dump.load(folder), families.TOKENS, "none")["hook_logits"]
        write_gguf(HERE / f"{file}.gguf", arch, config, tensors)
    save(__file__, "golden.safetensors", out)
