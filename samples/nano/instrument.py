"""What sparse attention does in nano, measured: accuracy against index_topk, how much attention the indexer's choice holds,
attention sinks, and what goes wrong in retrieval. FINDINGS.md says what was found.

python instrument.py CHECKPOINT --out DIR [--other CHECKPOINT] [--cases 32] [--dsv BIN] [--backend cuda:0] [--jobs 6]

Writes DIR/instrument.json and PNGs. Answers come from `dsv eval` in `official`; PyTorch looks at attention only. --other: a
checkpoint that was trained without the indexer's warm-up (train.py --seconds with 0 for that stage). All cases have held-out
values; greedy.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import time

import torch

import evaluate
import report
import suites

DENSE = 0
TOPK = (16, 32, 64, 128, 256, DENSE)
FEWER = (2, 4, 8)  # of retrieval only: where does it break?
PLAIN = ("facts", "multi_turn", "persona", "known_tools", "fitting_tools", "opaque_tools", "several_fitting", "results",
         "sums_direct", "outside", "text")  # fmt: skip
LENGTHS = (512, 1024, 2048, 4096, 8192)
RECALL = (16, 64, 256)
SINK = 4
SEED = 500


def name(k):
    return "dense" if k == DENSE else str(k)


def cases(tokens, count):
    """-> {suite: cases}; the same for every checkpoint with this tokenizer."""
    size = lambda text: len(tokens.enc(text))
    plain = suites.plain_suites()
    out = {s: suites.generate(s, plain[s], count, seed=SEED) for s in PLAIN}
    for length in LENGTHS:
        s = f"retrieval_{length}"
        out[s] = suites.generate(s, suites.retrieval(size, length), max(1, count // 2 if length > 4096 else count), seed=SEED)
    return out


def answers(runner, label, rows, k):
    """-> [(case, output ids, passed)], by the library with another index_topk"""
    folder = os.path.join(runner.out, f"{runner.mark}-{name(k)}")
    cases = os.path.join(folder, label + ".jsonl")
    with open(cases, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(c, ensure_ascii=False) + "\n" for c in rows)
    command = [runner.dsv, "eval", cases, "--json", "--model", folder, "--backend", runner.backend, "--sessions", "8"]
    done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["results"]
    by_id = {r["id"]: r for r in done}
    said = lambda r: (r["reasoning"] + "</think>" if r.get("reasoning") else "") + r.get("content", "")
    return [(c, runner.tokens.enc(said(by_id[c["id"]])), by_id[c["id"]]["passed"]) for c in rows]


def accuracy(runner, by_suite, topk, clock):
    """-> {k: {suite: [passed, cases]}}, {(length, k): answers}"""
    table, kept, runs = {}, {}, {}
    with concurrent.futures.ThreadPoolExecutor(runner.jobs) as pool:
        for k in topk:
            report.with_topk(runner.folder, os.path.join(runner.out, f"{runner.mark}-{name(k)}"), k)
            for label in ([] if k in FEWER else ["plain"]) + [f"retrieval_{length}" for length in reversed(LENGTHS)]:
                rows = [c for s in PLAIN for c in by_suite[s]] if label == "plain" else by_suite[label]
                runs[k, label] = pool.submit(answers, runner, label, rows, k)
        for k in topk:
            shares = table[name(k)] = {}
            if k not in FEWER:
                for case, _, passed in runs[k, "plain"].result():
                    share = shares.setdefault(case["suite"], [0, 0])
                    share[0] += passed
                    share[1] += 1
            for length in LENGTHS:
                done = kept[length, k] = runs[k, f"retrieval_{length}"].result()
                shares[f"retrieval_{length}"] = [sum(passed for *_, passed in done), len(done)]
            clock(f"k {name(k)}: " + ", ".join(f"{s} {a}/{b}" for s, (a, b) in shares.items()))
    return table, kept


def walk(runner, ids, k, first, see):
    """One forward pass. For the query rows from `first` on, see(layer, rows, dense, index, used): attention [B, heads, rows, T]
    over all earlier tokens, the index scores [B, rows, T], and the attention over the selected ones."""
    m, c = runner.m, runner.c
    B, T = ids.shape
    position = torch.arange(T, device=ids.device)
    cos, sin = m.cs(position.expand(B, -1))
    x = m.embed[ids].to(torch.bfloat16 if ids.is_cuda else torch.float32)
    for layer, b in enumerate(m.blocks):
        at, h = b.self_attn, b.input_layernorm(x)
        q, keys, v, ql = at.proj(h, cos, sin)
        qi, ki, w = at.indexer.qkw(h, ql, cos, sin)
        out = []
        for start in range(0, T, 512):
            rows = slice(start, min(T, start + 512))
            causal = position[None, :] <= position[rows, None]
            logits = ((q[:, :, rows] @ keys.transpose(-1, -2)).float() * at.scale).masked_fill(~causal, -1e30)
            index = at.indexer.score(qi[:, :, rows], ki, w[:, rows]).masked_fill(~causal, -1e30)
            used = torch.softmax(logits if not k or k >= T else chosen_only(logits, index, k), -1)
            out.append(used.to(v.dtype) @ v)
            if rows.stop > first:
                late = slice(max(0, first - start), rows.stop - start)
                dense = torch.softmax(logits[:, :, late], -1)
                see(layer, range(start + late.start, rows.stop), dense, index[:, late], used[:, :, late])
        x = x + at.o_proj(torch.cat(out, 2).transpose(1, 2).reshape(B, T, -1))
        h = b.post_attention_layernorm(x)
        x = x + (b.mlp(h) if b.dense else b.mlp(h)[0])


def chosen_only(logits, index, k):
    mask = torch.zeros_like(index, dtype=torch.bool).scatter_(-1, index.topk(k, -1).indices, True)
    return logits.masked_fill(~mask[:, None], -1e30)


def texts(runner, by_suite, suite, count):
    """Prompts of one suite with their right kind of ending, cut to one length: [count, T]."""
    rows = [runner.tokens.enc(evaluate.prompt(c)) for c in by_suite[suite][:count]]
    least = min(map(len, rows))
    return torch.tensor([r[-least:] if r[0] != runner.tokens.bos else r[:least] for r in rows], device=runner.dev)


def mass(runner, ids, k):
    """Per layer: recall of dense attention by the indexer's choice, the best possible, and what goes to the first tokens."""
    layers = runner.c.layers
    sums = [dict(rows=0, sink_dense=0.0, sink=0.0, first_chosen=0.0) for _ in range(layers)]
    for row in sums:
        row |= {f"{kind}_{n}": 0.0 for kind in ("recall", "best") for n in RECALL}
    heads = [0.0] * layers

    def see(layer, rows, dense, index, used):
        s, n = sums[layer], dense.shape[0] * dense.shape[2]
        mean = dense.mean(1)
        s["rows"] += n
        s["sink_dense"] += dense[..., :SINK].sum().item() / dense.shape[1]
        s["sink"] += used[..., :SINK].sum().item() / used.shape[1]
        heads[layer] = max(heads[layer], used[..., :SINK].sum(-1).mean((0, 2)).max().item())
        s["first_chosen"] += (index.topk(min(64, index.shape[-1]), -1).indices == 0).any(-1).sum().item()
        for t in RECALL:
            t_ = min(t, index.shape[-1])
            s[f"recall_{t}"] += mean.gather(-1, index.topk(t_, -1).indices).sum().item()
            s[f"best_{t}"] += mean.topk(t_, -1).values.sum().item()

    T = ids.shape[1]
    for i in range(0, len(ids), 4):
        walk(runner, ids[i : i + 4], k, max(T // 2, T - 512), see)
    for row, head in zip(sums, heads):
        n = row.pop("rows")
        for key in row:
            row[key] = round(row[key] / n, 4)
        row["sink_strongest_head"] = round(head, 4)
    return dict(tokens=T, texts=len(ids), uniform_sink=round(SINK / (0.75 * T), 5), layers=sums)


def places(runner, text, value):
    """Positions of the tokens that spell `value` in the prompt."""
    encoding = runner.tokens.t.encode(text, add_special_tokens=False)
    out, at = [], text.lower().find(value.lower())
    while at >= 0:
        out += [i for i, (a, b) in enumerate(encoding.offsets) if a < at + len(value) and b > at]
        at = text.lower().find(value.lower(), at + 1)
    return sorted(set(out))


def look(runner, case, output, k):
    """While the answer was written: in which layers was the fact among the selected tokens, and how much attention did it get?"""
    text = evaluate.prompt(case)
    prompt = runner.tokens.enc(text)
    fact = torch.tensor(places(runner, text, case["check"]["values"][0]), device=runner.dev)
    ids = torch.tensor([prompt + output], device=runner.dev)
    found, most = [False] * runner.c.layers, [0.0] * runner.c.layers

    def see(layer, rows, dense, index, used):
        if k and k < ids.shape[1]:
            chosen = torch.zeros_like(index, dtype=torch.bool).scatter_(-1, index.topk(k, -1).indices, True)
            found[layer] |= bool(chosen[..., fact].any())
        else:
            found[layer] = True
        most[layer] = max(most[layer], used[..., fact].sum(-1).max().item())

    walk(runner, ids, k, len(prompt) - 1, see)
    return found, most


def failures(runner, kept, clock, passed_too=4):
    """-> rows per (length, k): how many failed because no layer selected the fact, how many although one did."""
    out = []
    for (length, k), done in kept.items():
        row = dict(length=length, k=name(k), cases=len(done), missed=0, wrong_choice=0, layers_found=[], attention_failed=[],
                   attention_passed=[], samples=[])  # fmt: skip
        good = 0
        for case, output, passed in done:
            good += passed
            if passed and good > passed_too:
                continue
            found, most = look(runner, case, output, k)
            row["attention_passed" if passed else "attention_failed"].append(round(max(most), 3))
            if passed:
                continue
            row["missed" if not any(found[1:]) else "wrong_choice"] += 1
            row["layers_found"].append([i for i, f in enumerate(found) if f])
            if len(row["samples"]) < 8:
                row["samples"].append(dict(said=runner.tokens.dec(output), wanted=case["check"]["values"][0]))
        out.append(row)
    clock("failures: " + ", ".join(f"{r['length']}/{r['k']}: {r['missed']}+{r['wrong_choice']}" for r in out))
    return out


def measure(folder, options, topk, clock):
    runner = evaluate.Runner(folder, "cuda" if torch.cuda.is_available() else "cpu")
    runner.folder, runner.out, runner.mark = folder, options.out, report.fingerprint(folder)
    runner.dsv, runner.backend, runner.jobs = options.dsv, options.backend, options.jobs
    by_suite = cases(runner.tokens, options.cases)
    clock(f"{folder}: cases generated")
    table, kept = accuracy(runner, by_suite, topk, clock)
    attention = {}
    for suite in ("retrieval_2048", "known_tools"):
        ids = texts(runner, by_suite, suite, 8)
        attention[suite] = {name(k): mass(runner, ids, k) for k in (DENSE, 64)}
    clock("attention measured")
    return dict(accuracy=table, attention=attention, failures=failures(runner, kept, clock))


def draw(folder, runs):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def save(figure, title):
        figure.tight_layout()
        figure.savefig(os.path.join(folder, title + ".png"), dpi=100)
        pyplot.close(figure)

    percent = lambda share: 100 * share[0] / max(1, share[1])
    for label, run in runs.items():
        ks = list(run["accuracy"])
        figure, axes = pyplot.subplots(1, 2, figsize=(13, 5))
        plain = [k for k in ks if PLAIN[0] in run["accuracy"][k]]
        for suite in PLAIN:
            axes[0].plot(plain, [percent(run["accuracy"][k][suite]) for k in plain], marker="o", label=suite)
        axes[0].legend(fontsize=7)
        axes[0].set(xlabel="index_topk", ylabel="% passed", title=f"behaviours, {label}", ylim=(0, 102))
        grid = [[percent(run["accuracy"][k][f"retrieval_{n}"]) for k in ks] for n in LENGTHS]
        axes[1].imshow(grid, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
        for i, row in enumerate(grid):
            for j, value in enumerate(row):
                axes[1].text(j, i, f"{value:.0f}", ha="center", va="center")
        axes[1].set(xticks=range(len(ks)), xticklabels=ks, yticks=range(len(LENGTHS)), yticklabels=LENGTHS,
                    xlabel="index_topk", ylabel="context, tokens", title="retrieval, % found")  # fmt: skip
        save(figure, f"accuracy-{label}")

    figure, axes = pyplot.subplots(1, 3, figsize=(16, 4.5))
    for (label, run), style in zip(runs.items(), ("-", ":")):
        rows = run["attention"]["retrieval_2048"]["dense"]["layers"]
        for t, colour in zip(RECALL, ("tab:red", "tab:blue", "tab:green")):
            axes[0].plot([r[f"recall_{t}"] for r in rows], style, color=colour, marker="o", label=f"{t}, {label}")
            if style == "-":
                axes[0].plot([r[f"best_{t}"] for r in rows], "--", color=colour, alpha=0.4, label=f"{t}, best possible")
        for kind, colour in (("dense", "tab:gray"), ("64", "tab:blue")):
            rows = run["attention"]["retrieval_2048"][kind]["layers"]
            axes[1].plot([100 * r["sink"] for r in rows], style, color=colour, marker="o", label=f"{kind}, {label}")
        failed = [r for r in run["failures"] if r["length"] >= 2048]
        if style == "-":
            x = range(len(failed))
            axes[2].bar(x, [100 * r["missed"] / r["cases"] for r in failed], label="fact not selected")
            axes[2].bar(x, [100 * r["wrong_choice"] / r["cases"] for r in failed],
                        bottom=[100 * r["missed"] / r["cases"] for r in failed], label="wrong choice among the selected")  # fmt: skip
            axes[2].set_xticks(x, [f"{r['length']}/{r['k']}" for r in failed], rotation=90, fontsize=7)
    axes[0].set(xlabel="layer", ylabel="share of dense attention", title="attention that the selection holds, 2K", ylim=(0, 1.02))
    axes[1].set(xlabel="layer", ylabel="%", title=f"attention on the first {SINK} tokens, 2K")
    axes[2].set(ylabel="% of cases", title="failures: context/index_topk")
    for axis in axes:
        axis.legend(fontsize=7)
    save(figure, "attention")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--out", required=True)
    parser.add_argument("--other", help="a checkpoint whose indexer was not warmed up")
    parser.add_argument("--cases", type=int, default=32, help="a suite")
    parser.add_argument("--dsv", default=os.path.join(report.TOP, "build/release/bin/dsv"))
    parser.add_argument("--backend", default="cpu", help="dsv's")
    parser.add_argument("--jobs", type=int, default=1, help="processes of `dsv eval` at once")
    parser.add_argument("--quick", action="store_true", help="only a few values of index_topk")
    options = parser.parse_args()
    start = time.time()
    clock = lambda text: print(f"[{time.time() - start:.0f} s] {text}", flush=True)
    os.makedirs(options.out, exist_ok=True)
    topk = (4, 64, DENSE) if options.quick else FEWER + TOPK
    folders = {"warm-up": options.checkpoint} | ({"no-warm-up": options.other} if options.other else {})
    runs = {}
    for label, folder in folders.items():
        runs[label] = measure(folder, options, topk, clock)
        with open(os.path.join(options.out, "instrument.json"), "w") as file:
            json.dump(runs, file, indent=1, ensure_ascii=False)
        draw(options.out, runs)
    clock("done")


if __name__ == "__main__":
    main()
