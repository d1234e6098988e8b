"""Writes a checkpoint of ours without quantisation, for Hugging Face transformers (its own FP8 loader gets partial blocks wrong).

python dequantize.py CHECKPOINT OUT_DIR [--check]     --check: compare logits of transformers and model.py
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

from model import dequant


def dequantize(folder, out):
    os.makedirs(out, exist_ok=True)
    index = json.load(open(os.path.join(folder, "model.safetensors.index.json")))["weight_map"]
    stored = {}
    for file in sorted(set(index.values())):
        stored |= load_file(os.path.join(folder, file))
    plain = {}
    for name, value in stored.items():
        if name.endswith("_scale_inv"):
            continue
        scale = stored.get(name + "_scale_inv")
        plain[name] = (value.float() if scale is None else dequant(value, scale)).contiguous()
    save_file(plain, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    config = json.load(open(os.path.join(folder, "config.json")))
    config.pop("quantization_config")
    config["torch_dtype"] = "float32"
    with open(os.path.join(out, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(os.path.join(folder, name), out)


def check(folder, out):
    """Compares logits of transformers and model.py on a chat and on a text far longer than index_topk, there with
    transformers' selections in both: a near tie in the selection is no difference of the models. -> whether they agree."""
    import transformers

    import evaluate
    from corpus import chat, ledgers, source

    torch.set_grad_enabled(False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    runner = evaluate.Runner(folder, "cpu", theirs.config.index_topk)
    selections = []
    for layer in theirs.model.layers:
        layer.self_attn.indexer.register_forward_hook(lambda module, arguments, indices: selections.append(indices.long()))
    g, good = source.Source(99, True), True
    for name, text in (("chat", chat.conversation(g)["text"]), ("long", ledgers.conversation(g, 1000)["text"])):
        ids = torch.tensor([runner.tokens.enc(text)])
        selections.clear()
        a = theirs(ids).logits
        runner.forced = selections
        b = runner.all_logits(ids)
        difference, equal = (a - b).abs().max().item(), bool((a.argmax(-1) == b.argmax(-1)).all())
        print(f"{name}: {ids.shape[1]} tokens, max |dlogit| {difference:.2e}, argmax {'equal' if equal else 'not equal'}")
        good = good and equal and difference <= 1e-3
    return good


if __name__ == "__main__":
    dequantize(sys.argv[1], sys.argv[2])
    if "--check" in sys.argv and not check(sys.argv[1], sys.argv[2]):
        sys.exit("transformers and model.py do not agree")
