"""Training of dictionaries by SAELens's and dictionary_learning's own code, on the activations of `refs/sae_topk`.

To regenerate: cargo xtask golden sae_training

Each case starts from the decoder `W_dec_init` of `refs/sae_topk/golden.safetensors`, its transpose as encoder, and biases of
0 (thresholds and gates as given below), and sees `scale * x_train` in batches of 128 rows in order, epoch by epoch.
Recorded are the losses of all steps as the project computes them, the number of active latents, and what the trained
dictionary does on `scale * x_held`: FVU about the mean, and L0. Gradients are not clipped: both projects clip at a norm of 1,
which Adam all but undoes and which would hide what is compared.

AuxK is off (SAELens is told that no latent is dead, dictionary_learning has its weight at 0), but for Anthropic's recipe, whose
pre-activation loss is one of dead latents: there a latent is dead after DEAD tokens without a firing. SAELens ranks
activations as they are (rescale_acts_by_decoder_norm off).
"""

import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import save

sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).LanguageModel = object
from dictionary_learning.trainers import batch_top_k, standard, top_k
from sae_lens import saes
from sae_lens.saes.sae import TrainStepInput

D, F, K, BATCH, EPOCHS, LR = 32, 128, 6, 128, 6, 1e-3
L1, L0, THETA, BANDWIDTH, DEAD = 0.3, 0.05, 0.5, 0.4, 1024

torch.set_num_threads(1)
torch.nn.utils.clip_grad_norm_ = lambda *_, **__: None
data = load_file(Path(__file__).resolve().parent.parent / "sae_topk" / "golden.safetensors")
x_train, x_held, W_dec = data["scale"] * data["x_train"], data["scale"] * data["x_held"], data["W_dec_init"]
batches = [x for _ in range(EPOCHS) for x in x_train.split(BATCH)]


def unexplained(x, x_hat):
    return ((x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).reshape(1)


def lens(name, dead_after=None, **more):
    config = getattr(saes, f"{name}TrainingSAEConfig")(d_in=D, d_sae=F, **more)
    sae = getattr(saes, f"{name}TrainingSAE")(config)
    with torch.no_grad():
        sae.W_dec.copy_(W_dec)
        sae.W_enc.copy_(W_dec.T)
    adam = torch.optim.Adam(sae.parameters(), lr=LR, betas=(0.9, 0.999))
    since, losses, l0s = torch.zeros(F), [], []
    coefficients = {key: c.value if hasattr(c, "value") else c for key, c in sae.get_coefficients().items()}
    for step, x in enumerate(batches):
        dead = since > (dead_after or float("inf"))
        given = TrainStepInput(
            sae_in=x, dead_neuron_mask=dead, coefficients=coefficients, n_training_steps=step, is_logging_step=False
        )
        out = sae.training_forward_pass(step_input=given)
        adam.zero_grad()
        out.loss.backward()
        adam.step()
        losses.append(out.loss.item())
        l0s.append((out.feature_acts > 0).sum().item() / BATCH)
        since = torch.where((out.feature_acts > 0).any(0), 0, since + BATCH)
    with torch.no_grad():
        acts = sae.encode(x_held)
        return losses, l0s, unexplained(x_held, sae.decode(acts)), (acts > 0).sum(-1).float().mean().reshape(1)


def learning(trainer):
    ae, losses, l0s = trainer.ae, [], []
    with torch.no_grad():
        ae.encoder.weight.copy_(W_dec)
        ae.decoder.weight.copy_(W_dec.T)
        ae.encoder.bias.zero_()
    # In training BatchTopK keeps the largest of the batch, and no threshold.
    encode = lambda x: ae.encode(x, use_threshold=False) if hasattr(ae, "threshold") else ae.encode(x)
    for step, x in enumerate(batches):
        with torch.no_grad():
            l0s.append((encode(x) > 0).sum().item() / BATCH)
            losses.append(trainer.loss(x, step=step + 1).item())
        # Its first step would set the decoder's bias anew.
        trainer.update(step + 1, x)
    with torch.no_grad():
        acts = encode(x_held)
        return losses, l0s, unexplained(x_held, ae.decode(acts)), (acts > 0).sum(-1).float().mean().reshape(1)


both = {"steps": 1 << 20, "activation_dim": D, "dict_size": F, "layer": 0, "lm_name": "none", "device": "cpu"}
both |= {"lr": LR, "warmup_steps": 0}
CASES = {
    "lens_standard": lambda: lens("Standard", l1_coefficient=L1),
    "lens_topk": lambda: lens("TopK", k=K, rescale_acts_by_decoder_norm=False),
    "lens_batchtopk": lambda: lens("BatchTopK", k=K, rescale_acts_by_decoder_norm=False),
    "lens_matryoshka": lambda: lens(
        "MatryoshkaBatchTopK", k=K, rescale_acts_by_decoder_norm=False, matryoshka_widths=[16, 48, F]
    ),
    "lens_jumprelu": lambda: lens(
        "JumpReLU", jumprelu_init_threshold=THETA, jumprelu_bandwidth=BANDWIDTH, l0_coefficient=L0
    ),
    "lens_anthropic": lambda: lens(
        "JumpReLU", DEAD, jumprelu_init_threshold=THETA, jumprelu_bandwidth=BANDWIDTH, l0_coefficient=0.3,
        jumprelu_sparsity_loss_mode="tanh", jumprelu_tanh_scale=4.0, jumprelu_ste_to_input=True,
        pre_act_loss_coefficient=0.1,
    ),
    "lens_quadratic": lambda: lens(
        "JumpReLU", jumprelu_init_threshold=THETA, jumprelu_bandwidth=BANDWIDTH, l0_coefficient=0.01,
        jumprelu_sparsity_loss_mode="quadratic", target_l0=8.0,
    ),
    # Its encoder is its decoder.
    "lens_matching_pursuit": lambda: lens("MatchingPursuit", max_iterations=K, residual_threshold=0.01),
    "dl_standard": lambda: learning(standard.StandardTrainerAprilUpdate(l1_penalty=L1, sparsity_warmup_steps=0, **both)),
    "dl_topk": lambda: learning(top_k.TopKTrainer(k=K, auxk_alpha=0.0, **both)),
    "dl_batchtopk": lambda: learning(batch_top_k.BatchTopKTrainer(k=K, auxk_alpha=0.0, **both)),
}

OUT = {}
for name, run in CASES.items():
    torch.manual_seed(0)
    losses, l0s, fvu, l0 = run()
    OUT |= {f"{name}/losses": torch.tensor(losses), f"{name}/l0s": torch.tensor(l0s), f"{name}/fvu": fvu, f"{name}/l0": l0}
    print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}, held out: FVU {fvu.item():.5f}, L0 {l0.item():.3f}")
save(__file__, "golden.safetensors", OUT)
