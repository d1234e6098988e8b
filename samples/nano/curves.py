"""Draws log.jsonl as curves.png: losses, the index KL, and the learning rate, over tokens."""

import json
import os
import sys

COLOURS = (("dense", "tab:blue"), ("indexer", "tab:green"), ("sparse", "tab:red"), ("sparse-long", "tab:orange"))


def draw(folder):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in open(os.path.join(folder, "log.jsonl"))]
    figure, axes = pyplot.subplots(3, 1, figsize=(9, 9), sharex=True)
    for stage, colour in COLOURS:
        mine = [r for r in rows if r["stage"] == stage]
        tokens = [r["tokens"] / 1e6 for r in mine]
        axes[0].plot(tokens, [r["lm"] for r in mine], color=colour, label=stage)
        axes[0].plot(tokens, [r["mtp"] for r in mine], color=colour, linestyle=":", label=f"{stage}, MTP")
        if mine and stage != "dense":
            axes[1].plot(tokens, [r["kl"] for r in mine], color=colour, label=stage)
        axes[2].plot(tokens, [r["lr"] for r in mine], color=colour, label=stage)
    for axis, title in zip(axes, ("loss per token", "index KL, mean of layers", "learning rate (Muon)")):
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    if axes[1].lines:
        axes[1].set_yscale("log")
    axes[0].legend()
    axes[2].set_xlabel("million tokens")
    figure.tight_layout()
    figure.savefig(os.path.join(folder, "curves.png"), dpi=100)


if __name__ == "__main__":
    draw(sys.argv[1])
