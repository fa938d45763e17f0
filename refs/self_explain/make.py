"""Self-explanation of 20 directions at 64 scales on SmolLM2-135M-Instruct, in transformers with hooks: curves and greedy answers.

The residual entering layer 2 is replaced by scale * unit direction at every token that spells X. Read at the prompt's last token: the cosine of the
residual entering the last layer but one with the direction, less that at scale 0; the entropy of the next token, less that at scale 0; the
cross-entropy to its distribution under the mean token embedding at unit length. Ten directions are those of words (residual of " The WORD"
after layer 8, less the mean over the ten), ten are drawn at random.

To regenerate: cargo xtask models && cargo xtask golden self_explain
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save
from real_model import GGUF, MODELS, load_tokenizer

SCALES, MAX_SCALE, LAYER = 64, 400.0, 2
ANSWERED = [8, 16, 24, 40]
NEW = 8
WORDS = ["ocean", "doctor", "music", "winter", "horse", "money", "teacher", "fire", "river", "bread"]
QUESTION = 'What is the meaning of the word "X"?'
BEGUN = 'The meaning of the word "X" is "'

torch.set_grad_enabled(False)
torch.set_num_threads(2)
tokenizer = load_tokenizer()
model = AutoModelForCausalLM.from_pretrained(MODELS, gguf_file=GGUF, dtype=torch.float32).eval()
layers = model.model.layers
n = len(layers)

text = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True)
ids = tokenizer(text + BEGUN, add_special_tokens=False)["input_ids"]
places = [i for i, token in enumerate(ids) if tokenizer.decode([token]).strip() == "X"]
assert len(places) == 2, places


def run(rows, vectors):
    """Logits of the last position and the residual entering the last layer but one there."""
    kept = {}

    def insert(_, args, kwargs):
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        for place in places:
            hidden[:, place] = vectors
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def read(_, args, kwargs):
        kept["resid"] = (args[0] if args else kwargs["hidden_states"])[:, -1]

    handles = [
        layers[LAYER].register_forward_pre_hook(insert, with_kwargs=True),
        layers[n - 2].register_forward_pre_hook(read, with_kwargs=True),
    ]
    logits = model(torch.tensor(rows), use_cache=False, logits_to_keep=1).logits[:, -1]
    for handle in handles:
        handle.remove()
    return logits, kept["resid"]


def word(text):
    tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    return model(tokens, output_hidden_states=True).hidden_states[9][0, -1]


words = torch.stack([word(f" The {w}") for w in WORDS])
directions = torch.cat([words - words.mean(0), torch.tensor(np.random.RandomState(0).randn(10, words.shape[1])).float()])
units = directions / directions.norm(dim=1, keepdim=True)
scales = torch.linspace(0, MAX_SCALE, SCALES, dtype=torch.float64)
mean = model.model.embed_tokens.weight.mean(0)
neutral, _ = run([ids], (mean / mean.norm())[None])
neutral = neutral[0].double().log_softmax(-1)

curves = {"self_similarity": [], "entropy": [], "cross_entropy": []}
answers = []
for unit in units:
    logits, resid = run([ids] * SCALES, (scales[:, None] * unit.double()).float())
    p = logits.double().softmax(-1)
    entropy = -(p * logits.double().log_softmax(-1)).sum(-1)
    similarity = torch.nn.functional.cosine_similarity(resid.double(), unit.double()[None], dim=-1)
    curves["self_similarity"].append(similarity - similarity[0])
    curves["entropy"].append(entropy - entropy[0])
    curves["cross_entropy"].append(-(p * neutral).sum(-1))
    rows = [list(ids) for _ in ANSWERED]
    vectors = (scales[ANSWERED][:, None] * unit.double()).float()
    for _ in range(NEW):
        logits, _ = run(rows, vectors)
        for row, token in zip(rows, logits.argmax(-1).tolist()):
            row.append(token)
    answers.append([row[len(ids):] for row in rows])

save(
    __file__,
    "golden.safetensors",
    {
        "directions": directions,
        "scales": scales,
        "answered": ANSWERED,
        "answers": answers,
        **{name: torch.stack(values) for name, values in curves.items()},
    },
)
