"""The real model of the tests as transformers loads it from its GGUF file."""

from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

MODELS = Path.home() / ".cache/exegete/models"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_tokenizer():
    """The tokenizer of the GGUF file, with the digits split as the model was trained.

    transformers drops the `smollm` pre-tokenizer's first step, which makes every digit a piece of its
    own, when it reads a GGUF file; "  12" then differs from the model's own tokenizer.json.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODELS, gguf_file=GGUF)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer
