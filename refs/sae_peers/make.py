"""Tiny random dictionaries written by SAELens, dictionary_learning and sparsify, with what each makes of an input.

To regenerate: cargo xtask golden sae_peers
"""

import json
import sys
import types
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

# dictionary_learning imports it for its activation buffers, which are not used here.
sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).LanguageModel = object

import sae_lens as sl
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from sparsify import SparseCoder, SparseCoderConfig, sparse_coder
from sparsify.utils import eager_decode

# Its own decoder for machines without Triton's GPU, which it chooses by what is installed and not by what is there.
sparse_coder.decoder_impl = eager_decode

D, F, K = 12, 40, 5


def randomise(module, threshold=0.3):
    """Random parameters, with decoder rows of different lengths; thresholds and log thresholds near `threshold`."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
            if "threshold" in name:
                spread = threshold * torch.exp(0.2 * torch.randn_like(parameter))
                parameter.copy_(spread.log() if "log" in name else spread)


def keep(case, x, acts, recon):
    for file in (HERE / case).iterdir():
        file.chmod(0o644)
    save(__file__, f"{case}/golden.safetensors", {"x": x, "acts": acts, "recon": recon})


def input_of(case):
    torch.manual_seed(sum(map(ord, case)))
    return torch.randn(9, D) + 0.2


def saelens(case, kind, config, as_trained=False, **options):
    x = input_of(case)
    centred = "Transcoder" not in kind.__name__
    sae = kind(config(d_in=D, d_sae=F, dtype="float32", device="cpu", apply_b_dec_to_input=centred, **options))
    sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = "tiny", "blocks.1.hook_resid_post"
    randomise(sae)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    (HERE / case).mkdir(exist_ok=True)
    if isinstance(sae, sl.TrainingSAE):
        # As it is published: the form for inference, which SAELens itself makes.
        sae.save_inference_model(HERE / case)
        inference = sl.SAE.load_from_disk(HERE / case)
        if as_trained:
            # A checkpoint of the training, which computes the same.
            sae.save_model(HERE / case)
        sae = inference
    else:
        sae.save_model(HERE / case)
    # Some of its configurations are written in the order of a set, which is another each time.
    config = HERE / case / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()), sort_keys=True))
    with torch.no_grad():
        acts = sae.encode(x)
        recon = sae(x)
    keep(case, x, acts, recon)


saelens("saelens_standard", sl.StandardSAE, sl.StandardSAEConfig)
saelens("saelens_uncentred", sl.StandardSAE, lambda **o: sl.StandardSAEConfig(**{**o, "apply_b_dec_to_input": False}))
saelens("saelens_layer_norm", sl.StandardSAE, sl.StandardSAEConfig, normalize_activations="layer_norm")
saelens("saelens_rescaled", sl.StandardSAE, sl.StandardSAEConfig, normalize_activations="constant_norm_rescale")
saelens("saelens_jumprelu", sl.JumpReLUSAE, sl.JumpReLUSAEConfig)
saelens("saelens_gated", sl.GatedSAE, sl.GatedSAEConfig)
saelens("saelens_transcoder", sl.Transcoder, sl.TranscoderConfig, d_out=10)
saelens("saelens_skip", sl.SkipTranscoder, sl.SkipTranscoderConfig, d_out=10)
saelens("saelens_jump_skip", sl.JumpReLUSkipTranscoder, sl.JumpReLUSkipTranscoderConfig, d_out=10)
saelens("saelens_batchtopk", sl.BatchTopKTrainingSAE, sl.BatchTopKTrainingSAEConfig, k=K)
saelens("saelens_checkpoint", sl.BatchTopKTrainingSAE, sl.BatchTopKTrainingSAEConfig, as_trained=True, k=K)
saelens(
    "saelens_matryoshka", sl.MatryoshkaBatchTopKTrainingSAE, sl.MatryoshkaBatchTopKTrainingSAEConfig, k=K,
    matryoshka_widths=[16, F],
)


def old_saelens(case, tensors, **config):
    """A directory of a release before version 6, whose numbers come from today's class with the same weights."""
    x = input_of(case)
    (HERE / case).mkdir(exist_ok=True)
    if "activation_fn_str" in config and config["activation_fn_str"] == "topk":
        new = sl.TopKSAE(sl.TopKSAEConfig(d_in=D, d_sae=F, k=config["activation_fn_kwargs"]["k"], device="cpu"))
    else:
        new = sl.StandardSAE(sl.StandardSAEConfig(d_in=D, d_sae=F, device="cpu"))
    randomise(new)
    from safetensors.torch import save_file

    own = {name: value.contiguous() for name, value in new.state_dict().items()}
    save_file({**own, **tensors}, HERE / case / "sae_weights.safetensors")
    old = {"d_in": D, "d_sae": F, "dtype": "torch.float32", "device": "cuda", "hook_point": "blocks.2.hook_resid_pre"}
    (HERE / case / "cfg.json").write_text(json.dumps({**old, **config}))
    with torch.no_grad():
        keep(case, x, new.encode(x), new(x))


# Neither names its architecture, nor whether the decoder's bias is taken off the input: both did.
old_saelens("saelens_old", {"scaling_factor": torch.ones(F)}, normalize_activations=None)
old_saelens("saelens_old_topk", {}, activation_fn_str="topk", activation_fn_kwargs={"k": K})


def dictionary_learning(case, ae, by=lambda ae, x: (ae.encode(x), ae(x)), **trainer):
    x = input_of(case)
    randomise(ae)
    (HERE / case).mkdir(exist_ok=True)
    torch.save(ae.state_dict(), HERE / case / "ae.pt")
    config = {"dict_class": type(ae).__name__, "activation_dim": D, "dict_size": F, "layer": 3, "lm_name": "tiny",
              "submodule_name": "resid_post_layer_3", **trainer}
    (HERE / case / "config.json").write_text(json.dumps({"trainer": config, "buffer": {"d_submodule": D, "io": "out"}}))
    # As it is used: loading may change it (AutoEncoder gets a decoder of unit columns).
    ae = type(ae).from_pretrained(str(HERE / case / "ae.pt"))
    with torch.no_grad():
        keep(case, x, *by(ae, x))


def with_threshold(ae, value):
    ae.threshold.fill_(value)
    return ae


dictionary_learning("dl_standard", AutoEncoder(D, F))
dictionary_learning("dl_new", AutoEncoderNew(D, F))
dictionary_learning("dl_gated", GatedAutoEncoder(D, F))
dictionary_learning("dl_jumprelu", JumpReluAutoEncoder(D, F))
dictionary_learning("dl_topk", AutoEncoderTopK(D, F, K), k=K)
dictionary_learning("dl_batchtopk", with_threshold(BatchTopKSAE(D, F, K), 0.6), k=K)
over_batch = lambda ae, x: (ae.encode(x, use_threshold=False), ae.decode(ae.encode(x, use_threshold=False)))
dictionary_learning("dl_batchtopk_unset", BatchTopKSAE(D, F, K), by=over_batch, k=K)
dictionary_learning("dl_matryoshka", with_threshold(MatryoshkaBatchTopKSAE(D, F, K, [16, 24]), 0.6), k=K)


def sparsify(case, **config):
    x = input_of(case)
    coder = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K, **config))
    randomise(coder)
    coder.save_to_disk(HERE / case / "layers.2")
    with torch.no_grad():
        top, idx, _ = coder.encode(x)
        recon = coder.decode(top, idx)
        if coder.W_skip is not None:
            recon = recon + x @ coder.W_skip.mT
        acts = torch.zeros(9, F).scatter_(1, idx, top)
    keep(case + "/layers.2", x, acts, recon)


sparsify("sparsify_sae")
sparsify("sparsify_transcoder", transcode=True, skip_connection=True)
