"""The peers' side of the reference run: one dictionary, trained by SAELens's or dictionary_learning's own code.

`reference.py FOLDER SETTINGS OUT`: FOLDER holds x.f32 (activations, scaled, in their order) and w_dec.f32 (the decoder to
start from; the encoder is its transpose, biases are 0); SETTINGS is JSON; OUT is made, in the layout of the peer, with biases
and thresholds in the units of the activations as they are.

Gradients are clipped at a norm of 1 by both projects, which Adam all but undoes, and which is left out on both sides. AuxK is off.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

folder, told, out = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).LanguageModel = object
torch.set_num_threads(told["threads"])
torch.nn.utils.clip_grad_norm_ = lambda *_, **__: None
D, F, scale = told["d"], told["latents"], told["scale"]
x = torch.from_numpy(np.fromfile(folder / "x.f32", dtype=np.float32)).reshape(-1, D)
W_dec = torch.from_numpy(np.fromfile(folder / "w_dec.f32", dtype=np.float32)).reshape(F, D)
batches = x.split(told["batch"]) * told["epochs"]


def lens(name, **more):
    from sae_lens import saes
    from sae_lens.saes.sae import TrainStepInput

    sae = getattr(saes, f"{name}TrainingSAE")(getattr(saes, f"{name}TrainingSAEConfig")(d_in=D, d_sae=F, **more))
    with torch.no_grad():
        sae.W_dec.copy_(W_dec)
        sae.W_enc.copy_(W_dec.T)
    adam = torch.optim.Adam(sae.parameters(), lr=told["lr"], betas=(0.9, 0.999))
    coefficients = {key: c.value if hasattr(c, "value") else c for key, c in sae.get_coefficients().items()}
    dead = torch.zeros(F, dtype=torch.bool)
    for step, batch in enumerate(batches):
        given = TrainStepInput(
            sae_in=batch, dead_neuron_mask=dead, coefficients=coefficients, n_training_steps=step, is_logging_step=False
        )
        adam.zero_grad()
        sae.training_forward_pass(step_input=given).loss.backward()
        adam.step()
    with torch.no_grad():
        for bias in (sae.b_enc, sae.b_dec, *([sae.threshold] if hasattr(sae, "threshold") else [])):
            bias /= scale
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold /= scale
    out.mkdir()
    sae.save_inference_model(out)


def learning(trainer):
    ae = trainer.ae
    with torch.no_grad():
        ae.encoder.weight.copy_(W_dec)
        ae.decoder.weight.copy_(W_dec.T)
        ae.encoder.bias.zero_()
    for step, batch in enumerate(batches):
        # Its first step, numbered 0, would set the decoder's bias anew.
        trainer.update(step + 1, batch)
    ae.scale_biases(1 / scale)
    out.mkdir()
    torch.save(ae.state_dict(), out / "ae.pt")
    (out / "config.json").write_text(json.dumps({"trainer": trainer.config}))


def dictionary_learning(name, **more):
    from dictionary_learning.trainers import standard, top_k

    both = {"steps": 1 << 20, "activation_dim": D, "dict_size": F, "layer": 0, "lm_name": "none", "device": "cpu"}
    both |= {"lr": told["lr"], "warmup_steps": 0}
    learning({"topk": top_k.TopKTrainer, "relu": standard.StandardTrainerAprilUpdate}[name](**both, **more))


torch.manual_seed(0)
CASES = {
    "topk": lambda: dictionary_learning("topk", k=told["k"], auxk_alpha=0.0),
    "relu": lambda: dictionary_learning("relu", l1_penalty=told["sparsity"], sparsity_warmup_steps=0),
    "batchtopk": lambda: lens("BatchTopK", k=told["k"], rescale_acts_by_decoder_norm=False),
    "jumprelu": lambda: lens(
        "JumpReLU", jumprelu_init_threshold=told["threshold"], jumprelu_bandwidth=told["bandwidth"], l0_coefficient=told["sparsity"]
    ),
}
CASES[told["case"]]()
