"""What SAEBench, dictionary_learning and scikit-learn make of seeded arrays: metrics, probes, absorption, TPP and SCR.

The functions that are called are theirs, all of them. Models and dictionaries are stand-ins that return our arrays, so that
no weights are needed.

SAEBench is installed without its dependencies (no-deps.txt), which ask for older versions than the ones here.

To regenerate: cargo xtask golden sae_metrics
"""

import sys
import types
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common
from common import save

common.PACKAGES += ["sae-bench", "scikit-learn"]

# dictionary_learning imports it for its activation buffers, which are not used here.
sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).LanguageModel = object

import sae_bench.evals.core.main as core
import sae_bench.evals.scr_and_tpp.main as scr_and_tpp
from dictionary_learning.evaluation import evaluate
from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator
from sae_bench.evals.absorption.k_sparse_probing import LETTERS, add_feature_splits_to_metrics_df
from sae_bench.evals.sparse_probing import probe_training
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

assert metadata.version("sae-bench") == "0.6.0"
torch.manual_seed(20)
D, F = 10, 24
out = {}


def sparse(n):
    return torch.relu(torch.randn(n, F) - 0.8)


# A dictionary, by its arrays.
w_enc, w_dec, b_dec = torch.randn(D, F), torch.randn(F, D), 0.3 * torch.randn(D)
out |= {"w_enc_FD": w_enc.T, "w_dec_FD": w_dec, "b_dec": b_dec}

# Core metrics: three batches of 4 windows of 8 tokens.
BATCHES, WINDOWS, CTX = 3, 4, 8
acts = [sparse(WINDOWS * CTX).reshape(WINDOWS, CTX, F) for _ in range(BATCHES)]
xs = [a @ w_dec + b_dec + 0.7 * torch.randn(WINDOWS, CTX, D) + 0.5 for a in acts]
decode = lambda f: f @ w_dec + b_dec


class StandIn:
    """A dictionary whose codes are those that were drawn, and a model whose activations are."""

    def __init__(self):
        self.cfg = SimpleNamespace(
            hook_name="site", hook_head_index=None, hook_layer=0, d_sae=F, architecture_str="standard"
        )
        self.device, self.step = "cpu", -1
        self.W_enc, self.W_dec, self.b_enc = w_enc, w_dec, torch.zeros(F)
        self.dict_size, self.activation_dim = F, D

    def get_batch_tokens(self, _):
        self.step += 1
        return torch.zeros(WINDOWS, CTX, dtype=torch.long)

    def run_with_cache(self, *_, **__):
        return None, {"site": xs[self.step]}

    def encode(self, _):
        return acts[self.step]

    def decode(self, f):
        return decode(f)

    def __call__(self, x, output_features):
        self.step += 1
        return decode(acts[self.step]).reshape(-1, D), acts[self.step].reshape(-1, F)


one = StandIn()
got, features = core.get_sparsity_and_variance_metrics(
    one, one, one, BATCHES, True, True, True, True, WINDOWS, {}
)
out |= {"core/x": torch.stack(xs), "core/acts": torch.stack(acts)}
out |= {f"core/{name}": [value] for name, value in got.items()}
out["core/density"] = features["feature_density"]
weights = core.get_featurewise_weight_based_metrics(one)
out["core/encoder_decoder_cosine"] = weights["encoder_decoder_cosine_sim"]
out["core/max_decoder_cosine"] = weights["max_decoder_cosine_sim"]
got = evaluate(StandIn(), iter([x.reshape(-1, D) for x in xs]), n_batches=BATCHES)
names = ["l2_loss", "l1_loss", "l0", "frac_variance_explained", "cossim", "l2_ratio", "relative_reconstruction_bias"]
out |= {f"dl/{name}": [got[name]] for name in names}

# Losses: logits of the model as it is, with the reconstruction, and with zeros.
VOCAB = 7
tokens = torch.randint(VOCAB, (WINDOWS, CTX))
logits = [2 * torch.randn(WINDOWS, CTX, VOCAB) for _ in range(3)]


class Losses(StandIn):
    cfg = SimpleNamespace()

    def both(self, logits):
        logp = torch.log_softmax(logits, -1)[:, :-1]
        return logits, -logp.gather(-1, tokens[:, 1:, None])[..., 0]

    def __call__(self, *_, **__):
        self.calls = iter(logits[1:])
        return self.both(logits[0])

    def run_with_hooks(self, *_, **__):
        return self.both(next(self.calls))

    def get_batch_tokens(self, _):
        return tokens


one = Losses()
got = core.get_downstream_reconstruction_metrics(one, one, one, True, True, 1, WINDOWS)
out |= {"losses/tokens": tokens, "losses/logits": torch.stack(logits)}
out |= {f"losses/{name}": [value] for name, value in got.items()}

# Sparse probing: selection by mean difference, and logistic regression to convergence.
N = 90
x, labels = sparse(N), (torch.arange(N) % 3 == 0).to(torch.int)
x[:, 5] += labels * (torch.rand(N) > 0.2) * 1.5
x[:, 9] -= x[:, 9] * labels * 0.9
test_x, test_labels = sparse(N), (torch.arange(N) % 2 == 0).to(torch.int)
test_x[:, 5] += test_labels * (torch.rand(N) > 0.3) * 1.5
out |= {"probe/x": x, "probe/labels": labels, "probe/test_x": test_x, "probe/test_labels": test_labels}
for k in (1, 2, 5):
    chosen = ~probe_training.get_top_k_mean_diff_mask(x, labels, k)
    out[f"probe/top_{k}"] = torch.nonzero(chosen).flatten()
    _, accuracy = probe_training.train_sklearn_probe(x[:, chosen], labels, test_x[:, chosen], test_labels)
    out[f"probe/accuracy_{k}"] = [float(accuracy)]
chosen = out["probe/top_5"]
for name, options in [("plain", {}), ("weak", {"C": 100.0}), ("balanced", {"class_weight": "balanced"})]:
    fitted = LogisticRegression(tol=1e-10, max_iter=10000, **options).fit(x[:, chosen], labels)
    out |= {f"logistic/{name}_w": fitted.coef_[0], f"logistic/{name}_b": fitted.intercept_}
    scores = fitted.decision_function(test_x[:, chosen])
    out[f"logistic/{name}_f1"] = [float(f1_score(test_labels, scores > 0))]
    out[f"logistic/{name}_auc"] = [float(roc_auc_score(test_labels, scores))]

# Absorption on words whose codes and activations are drawn; every eighth is made to be carried by latent 7 alone.
WORDS, MAIN = 64, [3, 11]
direction = torch.randn(D)
direction /= direction.norm()
decoder = 0.5 * torch.randn(F, D)
for latent, cosine in [(3, 2.0), (11, 1.5), (7, 1.5), (8, 0.5), (15, 0.3)]:
    decoder[latent] += cosine * direction
codes = 0.6 * sparse(WORDS)
codes[::8, MAIN] = 0
codes[::8, 7] = 2.5
word_acts = codes @ decoder + 0.15 * torch.randn(WORDS, D) + 0.3 * direction
word_acts[5] = -direction


class Words:
    W_dec, device = decoder, "cpu"

    def encode(self, _):
        return codes

    def to_tokens(self, _):
        return [[0]]

    def run_with_cache(self, *_, **__):
        return None, {"blocks.0.hook_resid_post": word_acts[:, None]}


names = [f"word{i}" for i in range(WORDS)]
calculator = FeatureAbsorptionCalculator(
    Words(), names + ["other"] * 20, max_icl_examples=2, word_token_pos=0, batch_size=WORDS
)
result = calculator.calculate_absorption(Words(), names, direction, MAIN, 0, show_progress=False)
out |= {"absorption/codes": codes, "absorption/decoder": decoder, "absorption/acts": word_acts}
out["absorption/direction"] = direction
out["absorption/main"] = MAIN
out["absorption/fraction"] = [float(word.absorption_fraction) for word in result.word_results]
out["absorption/full"] = [int(word.is_full_absorption) for word in result.word_results]
assert 0 < sum(out["absorption/full"]) < WORDS
assert any(0 < fraction < 1 for fraction in out["absorption/fraction"])

# Splits: F1 of probes on 1 to 10 latents, one row a letter.
f1 = 0.5 + 0.02 * torch.rand(len(LETTERS), 10).cumsum(1) * torch.randint(1, 6, (len(LETTERS), 1))
rows = []
for letter, row in zip(LETTERS, f1.tolist()):
    rows.append({"letter": letter})
    for k, score in enumerate(row, 1):
        rows[-1] |= {f"f1_sparse_sae_{k}": score, f"sparse_sae_k_{k}_feats": np.arange(k)}
frame = pd.DataFrame(rows)
add_feature_splits_to_metrics_df(frame, max_k_value=10)
out |= {"split/f1": f1, "split/n": frame["split_feats"].apply(len).to_numpy()}

# TPP and SCR: effects of latents on a probe, the strongest of them, and the scores of given accuracies.
inputs = torch.randn(40, 6, D)


class Ablated:
    """Encodes by its own arrays, so that any batch has its codes."""

    W_dec = torch.nn.Parameter(w_dec, requires_grad=False)

    def encode(self, x):
        return torch.relu(x @ w_enc - 1.0)

    def decode(self, f):
        return decode(f)


probe = probe_training.Probe(D, torch.float32)
# Their draw of negatives shuffles, and takes all of them where there are as many as positives.
out |= {"ablation/x": inputs, "ablation/probe": probe.net.weight.detach()[0], "ablation/bias": probe.net.bias.detach()}
out["ablation/codes"] = Ablated().encode(inputs)
for name, perform_scr, data in [
    ("tpp", False, {"a": inputs[:20], "b": inputs[20:]}),
    ("scr", True, {"male / female": inputs[:20], "female_data_only": inputs[20:]}),
]:
    first = next(iter(data))
    effects = scr_and_tpp.get_effects_per_class_precomputed_acts(Ablated(), probe, first, data, perform_scr, 125)
    out[f"ablation/effects_{name}"] = effects
    for n in (2, 5, 20):
        mask = scr_and_tpp.select_top_n_features(effects, n, first)
        out[f"ablation/{name}_top_{n}"] = torch.nonzero(mask).flatten()
        out[f"ablation/{name}_acts_{n}"] = scr_and_tpp.ablated_precomputed_activations(inputs, Ablated(), mask, 125)
clean, ablated = torch.rand(4), torch.rand(4, 4)
named = [f"class{i}" for i in range(4)]
overall, by_class = scr_and_tpp.create_tpp_plotting_dict(
    {a: {10: {b: float(ablated[i, j]) for j, b in enumerate(named)}} for i, a in enumerate(named)},
    {a: float(clean[i]) for i, a in enumerate(named)},
)
out |= {"tpp/clean": clean, "tpp/ablated": ablated, "tpp/mean": [overall["tpp_threshold_10_total_metric"]]}
out["tpp/each"] = [by_class[a]["tpp_threshold_10_total_metric"] for a in named]
# Clean accuracy, and that of the biased probe before and after.
cases = torch.tensor([[0.95, 0.7, 0.8], [0.9, 0.75, 0.7], [0.8, 0.8, 0.9], [0.7, 0.9, 0.6]])
pair = ["male / female", "professor / nurse"]
on = [f"male_professor / female_nurse probe on {name} data" for name in pair]
scores = []
for clean, before, after in cases.tolist():
    got = scr_and_tpp.get_scr_plotting_dict(
        {name: {10: dict.fromkeys(on, after)} for name in pair},
        dict.fromkeys(pair, clean) | dict.fromkeys(on, before),
    )
    scores.append(float(got["scr_dir1_threshold_10"]))
out |= {"scr/cases": cases, "scr/score": scores}

save(__file__, "golden.safetensors", out)
