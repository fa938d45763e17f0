"""SmolLM2-135M-Instruct (Q4_1 GGUF) through transformers in f32: logits, greedy text, gradient, tokens, chat.

To regenerate: cargo xtask models && cargo xtask golden smollm2
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save
from real_model import GGUF, MODELS, load_tokenizer

PASSAGE = """\
The lighthouse stood at the end of a long spit of stones, and for most of the year nobody went there except the \
keeper and the woman who brought the mail. In the spring the birds came back from the south and nested in the cracks \
of the wall, so that the whole tower seemed to talk. The keeper had learned to know the hours by the sound of them. \
He wrote down the weather three times a day in a book with a green cover: the height of the water, the direction of \
the wind, the colour of the sky before the sun went down. On the 14th of March, in the year 1887, he wrote only one \
word, and that word was "fog". It had come in during the night, thick and quite still, and it stayed for nine days. \
The mail did not come. The birds were silent. He kept the lamp burning, although no ship could have seen it, because \
that was what he had promised to do, and each evening he carried forty litres of oil up one hundred and twelve steps. \
When the fog lifted at last, there was a small boat drawn up on the stones below the tower. Nobody was in it. On the \
seat lay a coat, folded with care, and a letter that was addressed to him. He read it twice, and then he sat down on \
the wet grass and laughed until the birds began to sing again.
"""

CONVERSATIONS = [
    [{"role": "user", "content": "What is the capital of Norway?"}],
    [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "Name a river.\nAny river will do."},
        {"role": "assistant", "content": "The Danube flows through ten countries."},
        {"role": "user", "content": "And a mountain? {{ not a template }} <b>&</b>"},
    ],
]

STRINGS = [
    "",
    " ",
    "Hello, world!",
    "  two spaces  and   three",
    "\ttab\nnewline\r\nreturn\n\n\nthree",
    "digits 2024, 3.14159 and 1000000",
    "spaces before  12 and\n 7",
    "½ ² ٣ Ⅷ 三 numbers of other kinds",
    "don't we'll I'VE they're it's 'tis",
    "naïve café Ångström straße",
    "cafe\u0301 decomposed",
    "Привет, мир! Γειά σου. שלום עולם مرحبا",
    "日本語のテキスト、中文，한국어",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️",
    "zero\u200bwidth\u00a0nbsp\ufeffbom\u2028line",
    "<|im_start|>user\nhi<|im_end|>\n",
    "a<|endoftext|>b <|endoftext|> <|im_ end|> <file_sep><gh_stars>",
    "def f(x):\n    return x**2  # squared\n",
    "https://example.org/a_b?c=d&e=%20#f",
    "UPPER lower MiXeD snake_case camelCase " + "a" * 40 + "!?!?...---___",
]


def write_json(name, value):
    (HERE / name).write_text(json.dumps(value) + "\n")


torch.set_num_threads(2)
tokenizer = load_tokenizer()
chats = [
    {"messages": chat, "rendered": tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)}
    for chat in CONVERSATIONS
]
for chat in chats:
    chat["ids"] = tokenizer.encode(chat["rendered"])
write_json("chat.json", chats)
write_json("tokens.json", [{"text": text, "ids": tokenizer.encode(text)} for text in STRINGS])

model = AutoModelForCausalLM.from_pretrained(MODELS, gguf_file=GGUF, dtype=torch.float32).eval()
tokens = torch.tensor(tokenizer.encode(PASSAGE))
assert len(tokens) >= 256, f"the passage has only {len(tokens)} tokens"
tokens = tokens[:256]

with torch.inference_mode():
    out = model(tokens[None], output_hidden_states=True, use_cache=False)
    logits = out.logits[0]
    greedy, gaps, text = [], [], tokens
    for _ in range(64):
        last = model(text[None], use_cache=False).logits[0, -1]
        top = last.topk(2)
        greedy.append(top.indices[0])
        gaps.append(top.values[0] - top.values[1])
        text = torch.cat([text, top.indices[:1]])
    # The last hidden state comes after the final norm; the others are the residual stream.
    residuals = torch.stack([state[0, -1] for state in out.hidden_states[:-1]])

embeds = model.get_input_embeddings()(tokens[None, :64]).detach().requires_grad_(True)
short = model(inputs_embeds=embeds, use_cache=False).logits[0]
loss_64 = torch.nn.functional.cross_entropy(short[:-1], tokens[1:64])
loss_64.backward()

columns = torch.arange(0, 49152, 96)
positions = torch.tensor([0, 1, 100, 255])
save(__file__, "golden.safetensors", {
    "tokens": tokens,
    "columns": columns,
    "logits_cols": logits[:, columns],
    "logsumexp": logits.logsumexp(-1),
    "max_logit": logits.max(-1).values,
    "argmax": logits.argmax(-1),
    "full_positions": positions,
    "logits_full": logits[positions],
    "resid_pre_last": residuals,
    "loss": torch.nn.functional.cross_entropy(logits[:-1], tokens[1:]).reshape(1),
    "greedy": torch.stack(greedy),
    "greedy_gap": torch.stack(gaps),
    "loss_64": loss_64.reshape(1),
    "grad_embed": embeds.grad[0],
})
print(f"loss {logits[:-1].sub(logits[:-1].logsumexp(-1, True)).gather(1, tokens[1:, None]).mean().neg():.4f}, smallest greedy gap {min(gaps):.4f}")
print(repr(tokenizer.decode(torch.stack(greedy))))
