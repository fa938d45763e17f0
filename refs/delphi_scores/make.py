"""What delphi makes of answers and activations: verdicts of its detection scorer, its balanced accuracy and AUC, marks, correlations of simulations.

    python -m pip install --no-deps eai-delphi==0.1.3   (beside bench/requirements-explain.txt)
    python refs/delphi_scores/make.py

vllm and plotly are not installed: nothing of them is used, and empty modules stand in for them.
"""

import asyncio
import json
import logging
import sys
import types
from importlib.metadata import version
from pathlib import Path

for module, names in {
    "vllm": ["LLM", "SamplingParams"],
    "vllm.distributed": [],
    "vllm.distributed.parallel_state": ["destroy_distributed_environment", "destroy_model_parallel"],
    "vllm.inputs": ["TokensPrompt"],
    # Its figures, which are not drawn here.
    "plotly": [],
    "plotly.express": [],
    "plotly.graph_objects": [],
    "plotly.io": [],
}.items():
    sys.modules[module] = types.ModuleType(module)
    for name in names:
        setattr(sys.modules[module], name, object)

import pandas as pd
import torch
from delphi.clients.client import Client, Response
from delphi.latents import ActivatingExample, Latent, LatentRecord, NonActivatingExample
from delphi.log.result_analysis import compute_auc, compute_classification_metrics, compute_confusion
from delphi.scorers import DetectionScorer
from delphi.scorers.classifier.sample import _prepare_text
from delphi.scorers.simulator.simulation.scoring import _calculate_correlation

HERE = Path(__file__).resolve().parent
logging.disable(logging.CRITICAL)
SHOWN = 5

ANSWERS = [
    "[1, 0, 1, 1, 0]",
    "[true, false, true, false, false]",
    "Sure: [0,1,0,1,1]. Texts 2, 4 and 5 show it.",
    "[1, 0, 1]",
    "1 0 1 1 0",
    "[1, 0, maybe, 1, 0]",
    "",
    "[[1, 0], 1, 1, 0]",
]


class Canned(Client):
    """Gives one answer."""

    def __init__(self, text):
        super().__init__("canned")
        self.text = text

    async def generate(self, prompt, **kwargs):
        return Response(text=self.text)


def example(i, fires):
    kind = ActivatingExample if fires else NonActivatingExample
    values = torch.zeros(4)
    values[i % 4] = float(fires)
    return kind(tokens=torch.zeros(4, dtype=torch.long), activations=values, str_tokens=[f"w{i}", " a", " b", " c"])


def verdicts(answer):
    scorer = DetectionScorer(Canned(answer), n_examples_shown=SHOWN)
    record = LatentRecord(latent=Latent("x", 0))
    record.test, record.not_active, record.explanation = [example(i, True) for i in range(SHOWN)], [], "a thing"
    # In the order in which they are shown, so that an answer's place is known.
    scorer.rng.shuffle = lambda samples: None
    result = asyncio.run(scorer(record))
    return [one.prediction for one in result.score]


torch.manual_seed(0)
labels = (torch.arange(40) % 2).tolist()
values = (torch.rand(40) + 0.3 * torch.arange(40).remainder(2)).double().tolist()
said = [int(value > 0.6) for value in values]
table = pd.DataFrame({"activating": [bool(label) for label in labels], "prediction": said, "probability": values})

marks = []
for activations in [[0, 1, 0, 5, 4, 0], [2, 2, 2, 2, 2, 2], [0, 0, 10, 3, 2.9, 0], [1, 0, 0, 0, 0, 1]]:
    tokens = [" the", " old", " sea", " was", " calm", "."]
    one = ActivatingExample(
        tokens=torch.zeros(6, dtype=torch.long), activations=torch.tensor(activations, dtype=torch.float), str_tokens=tokens
    )
    marks.append({"tokens": tokens, "activations": activations, "text": _prepare_text(one, 0, 0.3, True)[0]})

true, simulated = torch.rand(12).double(), torch.rand(12).double()
golden = {
    "answers": [{"text": text, "verdicts": verdicts(text)} for text in ANSWERS],
    "labels": labels,
    "values": values,
    "auc": compute_auc(table),
    "balanced_accuracy": float(compute_classification_metrics(compute_confusion(table))["accuracy"]),
    "said": said,
    "marks": marks,
    "simulation": {
        "true": true.tolist(),
        "simulated": simulated.tolist(),
        "correlation": float(_calculate_correlation(true.tolist(), simulated.tolist())),
    },
}
(HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
versions = {name: version(name) for name in ["eai-delphi", "torch", "scikit-learn"]}
(HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
