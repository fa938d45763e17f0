"""The peer of `cargo xtask bench explain`: delphi's detection with llama-cpp-python's server as the judge.

    python peer_delphi.py FOLDER MODEL

FOLDER/task.json holds the examples and the explanations; a run scores the next explanation on all examples. What is changed of delphi as
it is installed, each for its own good: vllm is not there (an empty module stands in for it, since nothing of it is used), the client of
OpenRouter is pointed at loopback, temperature 0, and an answer has at most 64 tokens instead of 3,000.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path

for name in ["vllm", "vllm.distributed", "vllm.distributed.parallel_state", "vllm.inputs"]:
    sys.modules[name] = types.ModuleType(name)
for module, names in {
    "vllm": ["LLM", "SamplingParams"],
    "vllm.distributed.parallel_state": ["destroy_distributed_environment", "destroy_model_parallel"],
    "vllm.inputs": ["TokensPrompt"],
}.items():
    for name in names:
        setattr(sys.modules[module], name, object)

import torch
from delphi.clients import OpenRouter
from delphi.latents import ActivatingExample, Latent, LatentRecord, NonActivatingExample
from delphi.scorers import DetectionScorer

PORT = 8617 + 31
# delphi's default, `--num_examples_per_scorer_prompt`.
SHOWN = 5

folder, model = Path(sys.argv[1]), sys.argv[2]
task = json.loads((folder / "task.json").read_text())
logging.disable(logging.CRITICAL)
server = subprocess.Popen(
    [sys.executable, "-m", "llama_cpp.server", "--model", model, "--host", "127.0.0.1", "--port", str(PORT)]
    + ["--n_ctx", "2048", "--n_threads", "2", "--n_threads_batch", "2", "--verbose", "false"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)


def wait():
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/models", timeout=2).read()
            return
        except OSError:
            time.sleep(0.5)
    sys.exit("the server of llama-cpp-python did not start")


def example(one, fires):
    values = torch.tensor(one["values"])
    tokens = torch.zeros(len(one["tokens"]), dtype=torch.long)
    kind = ActivatingExample if fires else NonActivatingExample
    return kind(tokens=tokens, activations=values, str_tokens=one["tokens"])


def record(explanation):
    record = LatentRecord(latent=Latent("bench", 0))
    record.test = [example(one, True) for one in task["firing"]]
    record.not_active = [example(one, False) for one in task["silent"]]
    record.explanation = explanation
    return record


def run(n):
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    client = OpenRouter("smollm2", api_key="none", base_url=url, max_tokens=64, temperature=0.0)
    scorer = DetectionScorer(client, n_examples_shown=SHOWN)
    start = time.perf_counter()
    result = scorer.call_sync(record(task["explanations"][n % len(task["explanations"])]))
    secs = time.perf_counter() - start
    judged = [one.prediction for one in result.score]
    return secs, sum(one is not None for one in judged), len(judged)


try:
    wait()
    from importlib.metadata import version

    peer = f"delphi {version('eai-delphi')} with llama-cpp-python {version('llama-cpp-python')}"
    print("ready", json.dumps({"peer": peer}), flush=True)
    n, answered = 0, [0, 0]
    for line in sys.stdin:
        match line.split():
            case ["run"]:
                secs, judged, of = run(n)
                n, answered = n + 1, [answered[0] + judged, answered[1] + of]
                print(secs, flush=True)
            case ["peak"]:
                lines = Path("/proc/self/status").read_text().splitlines()
                print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), flush=True)
            case ["result", path]:
                torch.tensor(answered, dtype=torch.float32).numpy().tofile(path)
                print(flush=True)
finally:
    server.terminate()
    server.wait()
