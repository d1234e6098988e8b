"""Writes a checkpoint of ours without quantisation, for Hugging Face transformers (its own FP8 loader gets partial blocks wrong).

python dequantize.py CHECKPOINT OUT_DIR [--check]     --check: load it with transformers and compare logits with model.py
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

from model import Config, dequant


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
    """Prints the largest difference of logits between transformers and model.py, on one chat and one long text."""
    import transformers

    import evaluate
    from corpus import chat, ledgers, source

    torch.set_grad_enabled(False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    runner = evaluate.Runner(folder, "cpu", Config().itop)
    g = source.Source(99, True)
    for name, text in (("chat", chat.conversation(g)["text"]), ("long", ledgers.conversation(g, 1000)["text"])):
        ids = torch.tensor([runner.tokens.enc(text)])
        a, b = theirs(ids).logits, runner.all_logits(ids)
        equal = (a.argmax(-1) == b.argmax(-1)).float().mean()
        print(f"{name}: {ids.shape[1]} tokens, max |dlogit| {(a - b).abs().max():.2e}, argmax equal {equal:.4f}")


if __name__ == "__main__":
    dequantize(sys.argv[1], sys.argv[2])
    if "--check" in sys.argv:
        check(sys.argv[1], sys.argv[2])
