"""The names of published dictionaries, as SAELens gives them: which repository, which path, which model, and what is stated.

A release is a line without a tab before it: name, repository, model, layout, then the site and the conventions that its
files do not state. The lines below it, with a tab, are its dictionaries: a pattern of ids, the pattern of their paths
(nothing where it is the id), and items `a,b:l0:variance explained:factor of the input`, of which whatever is at the end and
not stated is left out. `{a}` and `{b}` in a pattern stand for an item's two numbers, mostly the layer and one more.

To regenerate: cargo xtask golden releases
"""

import re
import sys
from importlib import metadata
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import write_versions

# The table lies beside the package, which need not be imported.
TABLE = metadata.distribution("sae-lens").locate_file("sae_lens/pretrained_saes.yaml")

# Loader of SAELens: our layout, and the site where the files do not name it.
LAYOUTS = {
    "sae_lens": ("saelens", ""),
    "gemma_2": ("gemma-scope", ""),
    "gemma_2_transcoder": ("gemma-scope", ""),
    "gemma_3": ("gemma-scope-2", ""),
    "llama_scope": ("llama-scope", ""),
    "llama_scope_r1_distill": ("llama-scope", ""),
    "dictionary_learning_1": ("dictionary-learning", "blocks.{a}.hook_resid_post"),
    "goodfire": ("linear-layers", "blocks.{a}.hook_resid_post"),
    "deepseek_r1": ("linear-layers", "blocks.{a}.hook_resid_post"),
    "qwen_scope": ("named-tensors", ""),
    "connor_rob_hook_z": ("named-tensors", ""),
    "mwhanna_transcoder": ("circuit-tracer", "blocks.{a}.mlp.hook_in"),
    # Of no layout that is read; the name says what they are.
    "mntss_clt_layer_transcoder": ("cross-layer-transcoder", ""),
    "temporal": ("temporal", ""),
}
# The files of these state the factor of the input themselves.
STATE_THEIR_FACTOR = {"llama_scope"}

LAYER = re.compile(
    r"(?<=blocks\.)\d+|(?<=layer_)\d+|(?<=layer)\d+(?=\b)|(?<=[-/]L)\d+(?=[RMA])|(?<=_L)\d+(?=_)|(?<=^l)\d+(?=[rma]_)"
    r"|^\d+(?=-)|(?<=SAE-l)\d+"
)
SECOND = re.compile(r"(?<=average_l0_)\d+|(?<=trainer_)\d+")


def pattern(text, numbers):
    """`text` with holes where its numbers stand."""
    for hole, regex in (("{a}", LAYER), ("{b}", SECOND)):
        text = regex.sub(lambda m: hole if m.group() == numbers[hole] else m.group(), text)
    return text


def filled(text, numbers):
    return text.replace("{a}", numbers["{a}"]).replace("{b}", numbers["{b}"])


def number(value):
    return "" if value is None else f"{value:.9g}"


def item(sae, numbers, factor):
    keys = numbers["{a}"] + ("," + numbers["{b}"] if numbers["{b}"] else "")
    stated = [number(sae.get("l0")), number(sae.get("variance_explained")), number(factor)]
    return ":".join([keys, *stated]).rstrip(":")


def block(name, release):
    loader = release.get("conversion_func") or "sae_lens"
    layout, site = LAYOUTS[loader]
    overrides = release.get("config_overrides") or {}
    conventions = []
    if overrides.get("model_from_pretrained_kwargs", {}).get("center_writing_weights"):
        conventions.append("centred-writing")
    if "normalize_activations" in overrides:
        conventions.append(overrides["normalize_activations"])
    groups = {}
    for sae in release["saes"]:
        id, path = sae["id"], str(sae["path"])
        found = [LAYER.search(id), SECOND.search(id) or SECOND.search(path)]
        numbers = {hole: m.group() if m else "" for hole, m in zip(("{a}", "{b}"), found)}
        id_pattern, path_pattern = pattern(id, numbers), pattern(path, numbers)
        assert (filled(id_pattern, numbers), filled(path_pattern, numbers)) == (id, path)
        factor = None if loader in STATE_THEIR_FACTOR else sae.get("norm_scaling_factor")
        key = (id_pattern, "" if path_pattern == id_pattern else path_pattern)
        order = [int(n or -1) for n in numbers.values()]
        groups.setdefault(key, []).append((order, item(sae, numbers, factor)))
    head = "\t".join([name, release["repo_id"], release["model"], layout, site, " ".join(conventions)]).rstrip()
    return [head, *("\t".join(["", *key, " ".join(text for _, text in sorted(items))]) for key, items in groups.items())]


def main():
    releases = yaml.safe_load(Path(TABLE).read_text())
    lines = [line for name, release in sorted(releases.items()) for line in block(name, release)]
    path = HERE / "table.tsv"
    path.write_text("\n".join(lines) + "\n")
    write_versions(HERE)
    n = sum(len(release["saes"]) for release in releases.values())
    print(f"releases/table.tsv: {len(releases)} releases, {n} dictionaries, {path.stat().st_size} bytes")


main()
