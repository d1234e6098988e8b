"""Runs suites (SUITES.md) in PyTorch: greedy, batched, with the verifiers of `dsv eval`. Also MTP acceptance and index recall.

python evaluate.py CHECKPOINT SUITE.jsonl... [--k 64] [--json FILE] [--samples FILE]
"""

import argparse
import json
import re
import time

import torch
from safetensors.torch import load_file

import packing
from encode import ASST, EOS, TC, TO, encode
from model import Config, Nano, dequant

torch.set_grad_enabled(False)
CALLS = "<｜DSML｜function_calls>"


def load(folder, device):
    """model.py with the weights of an exported checkpoint."""
    stated = json.load(open(folder + "/config.json"))
    c = Config(vocab=stated["vocab_size"], itop=stated["index_topk"])
    index = json.load(open(folder + "/model.safetensors.index.json"))["weight_map"]
    stored = {}
    for file in sorted(set(index.values())):
        stored |= load_file(f"{folder}/{file}")
    at = lambda n: dequant(stored[n], stored[n + "_scale_inv"]) if n + "_scale_inv" in stored else stored[n].float()
    model = Nano(c)
    state = model.state_dict()
    last = f"model.layers.{c.layers}."
    outer = {"embed": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight",
             "mtp_norm.weight": last + "shared_head.norm.weight", "enorm.weight": last + "enorm.weight",
             "hnorm.weight": last + "hnorm.weight", "eh_proj.weight": last + "eh_proj.weight"}  # fmt: skip
    parts = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    for name in state:
        if name in outer:
            state[name] = at(outer[name])
            continue
        prefix, rest = (
            (last, name[4:]) if name.startswith("mtp.") else ("model.layers." + name.split(".")[1] + ".", name.split(".", 2)[2])
        )
        if rest in ("mlp.w1", "mlp.w2", "mlp.w3"):
            state[name] = torch.stack([at(f"{prefix}mlp.experts.{e}.{parts[rest[4:]]}.weight") for e in range(c.experts)])
        elif rest == "mlp.bias":
            state[name] = at(prefix + "mlp.gate.e_score_correction_bias")
        else:
            state[name] = at(prefix + rest)
    model.load_state_dict(state)
    return model.to(device).eval().requires_grad_(False)


class Runner:
    """Greedy generation with a cache, for batches of prompts. k: index_topk, 0 for dense attention.
    forced: per layer the selected tokens [B, T, k] of a whole text, in the place of the indexer's own choice."""

    def __init__(s, folder, device, k=64):
        s.m, s.tokens, s.k = load(folder, device), packing.Tokens(folder + "/tokenizer.json"), k
        s.c, s.dev, s.forced = s.m.c, s.m.embed.device, None

    def all_logits(s, ids):
        B, L = ids.shape
        c = s.c
        st = [
            (torch.zeros(B, c.heads, L, c.nope + c.rope), torch.zeros(B, c.heads, L, c.vd), torch.zeros(B, L, c.idim))
            for _ in s.m.blocks
        ]
        pos = torch.arange(L).expand(B, -1)
        cos, sin = s.m.cs(pos)
        x = s.m.embed[ids]
        for i, b in enumerate(s.m.blocks):
            x = s.layer(b, x, cos, sin, st, i, pos, L)
        return s.logits(x)

    def layer(s, b, x, cos, sin, st, i, pos, Lk):
        c = s.c
        B, T, _ = x.shape
        h = b.input_layernorm(x)
        at = b.self_attn
        q, k, v, ql = at.proj(h, cos, sin)
        qi, ki, w = at.indexer.qkw(h, ql, cos, sin)
        K, V, KI = st[i]
        r = torch.arange(B, device=s.dev)[:, None]
        K[r, :, pos] = k.transpose(1, 2)
        V[r, :, pos] = v.transpose(1, 2)
        KI[r, pos] = ki
        outs = []
        ar = torch.arange(Lk, device=s.dev)
        for a in range(0, T, 512):
            sl = slice(a, min(T, a + 512))
            valid = ar[None, None, :] <= pos[:, sl, None]
            if s.k and s.k < Lk:
                I = at.indexer.score(qi[:, :, sl], KI[:, :Lk], w[:, sl]).masked_fill(~valid, -1e30)
                chosen = s.forced[i][:, sl] if s.forced else I.topk(s.k, -1).indices
                valid = torch.zeros_like(valid).scatter_(-1, chosen, True) & valid
            sc = (q[:, :, sl] @ K[:, :, :Lk].transpose(-1, -2)).float() * at.scale
            p = torch.softmax(sc.masked_fill(~valid[:, None], -1e30), -1)
            outs.append(p.to(v.dtype) @ V[:, :, :Lk])
        x = x + at.o_proj(torch.cat(outs, 2).transpose(1, 2).reshape(B, T, -1))
        h = b.post_attention_layernorm(x)
        return x + (b.mlp(h) if b.dense else b.mlp(h)[0])

    def logits(s, x):
        return s.m.head(s.m.norm(x)).float()

    def run(s, prompts, max_new, batch=64):
        out = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for o in range(0, len(order), batch):
            idx = order[o : o + batch]
            ps = [prompts[i] for i in idx]
            B = len(ps)
            n = torch.tensor([len(p) for p in ps], device=s.dev)
            Lm = int(n.max()) + max_new
            c = s.c
            ids = torch.full((B, int(n.max())), s.tokens.pad)
            for i, p in enumerate(ps):
                ids[i, : len(p)] = torch.tensor(p)
            ids = ids.to(s.dev)
            dt = torch.bfloat16 if s.dev.type == "cuda" else torch.float32
            st = [
                (
                    torch.zeros(B, c.heads, Lm, c.nope + c.rope, device=s.dev, dtype=dt),
                    torch.zeros(B, c.heads, Lm, c.vd, device=s.dev, dtype=dt),
                    torch.zeros(B, Lm, c.idim, device=s.dev, dtype=dt),
                )
                for _ in s.m.blocks
            ]
            pos = torch.arange(ids.shape[1], device=s.dev).expand(B, -1)
            cos, sin = s.m.cs(pos)
            x = s.m.embed[ids].to(dt)
            for i, b in enumerate(s.m.blocks):
                x = s.layer(b, x, cos, sin, st, i, pos, ids.shape[1])
            t = s.logits(x[torch.arange(B), n - 1]).argmax(-1)
            res = [t]
            done = t == s.tokens.eos
            p = n.clone()
            for j in range(max_new - 1):
                if j % 8 == 7 and bool(done.all()):
                    break
                cos, sin = s.m.cs(p[:, None])
                x = s.m.embed[t][:, None].to(dt)
                Lk = min(Lm, int(n.max()) + j + 1)
                for i, b in enumerate(s.m.blocks):
                    x = s.layer(b, x, cos, sin, st, i, p[:, None], Lk)
                t = s.logits(x[:, 0]).argmax(-1)
                res.append(t)
                done |= t == s.tokens.eos
                p = p + 1
            R = torch.stack(res, 1).tolist()
            for i, r in zip(idx, R):
                if s.tokens.eos in r:
                    r = r[: r.index(s.tokens.eos) + 1]
                out[i] = r
        return out


def messages_of(rows):
    """OpenAI messages as ours."""
    out = []
    for m in rows:
        if m["role"] == "tool":
            if out[-1]["role"] == "tool":
                out[-1]["results"].append(m["content"])
            else:
                out.append(dict(role="tool", results=[m["content"]]))
            continue
        row = dict(role=m["role"], content=m["content"], reasoning=m.get("reasoning_content"))
        if m.get("tool_calls"):
            row["calls"] = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in m["tool_calls"]]
        out.append(row)
    return out


def prompt(case):
    return encode(messages_of(case["messages"]), [t["function"] for t in case.get("tools", [])], case["thinking"])


INVOKE = re.compile(r'<｜DSML｜invoke name="([^"]*)">\n(.*?)\n?</｜DSML｜invoke>', re.S)
PARAMETER = re.compile(r'<｜DSML｜parameter name="([^"]*)" string="(true|false)">(.*?)</｜DSML｜parameter>', re.S)


def parse(output, thinking):
    """-> (content, calls), or None where the output breaks the format"""
    if not output.endswith(EOS):
        return None
    text = output[: -len(EOS)]
    if thinking:
        if text.count(TC) != 1 or TO in text:
            return None
        text = text.split(TC)[1]
    elif TO in text or TC in text:
        return None
    if CALLS not in text:
        return (text, []) if "｜DSML｜" not in text else None
    content, block = text.split("\n\n" + CALLS, 1) if "\n\n" + CALLS in text else (None, None)
    if block is None or not block.endswith("</｜DSML｜function_calls>"):
        return None
    calls = []
    for name, body in INVOKE.findall(block):
        arguments = {}
        for key, is_string, value in PARAMETER.findall(body):
            try:
                arguments[key] = value if is_string == "true" else json.loads(value)
            except ValueError:
                return None
        calls.append(dict(name=name, arguments=arguments))
    return content, calls


def verify(case, output):
    parsed = parse(output, case["thinking"])
    if parsed is None:
        return False
    (content, calls), check = parsed, case["check"]
    kind = check["type"]
    if kind == "tool_calls":
        typed = lambda cs: json.dumps(cs, sort_keys=True)
        return typed(calls) == typed(check["calls"])
    if calls:
        return False
    low = content.lower()
    if kind == "exact":
        return content.strip() == check["value"].strip()
    if kind == "contains_all":
        return all(v.lower() in low for v in check["values"])
    if kind == "contains_any":
        return any(v.lower() in low for v in check["values"])
    if kind == "no_tool_call":
        return "values" not in check or any(v.lower() in low for v in check["values"])
    if kind == "number":
        return bool(re.search(r"(?<![0-9])" + re.escape(check["value"]) + r"(?![0-9])", content))
    return bool(re.search(check["pattern"], content))


def run(runner, cases):
    """-> [(case, output, passed)]"""
    prompts = [runner.tokens.enc(prompt(c)) for c in cases]
    big = max(map(len, prompts))
    outputs = runner.run(prompts, max(c["max_tokens"] for c in cases), 16 if big > 6000 else 48 if big > 1800 else 128)
    texts = [runner.tokens.dec(o) for o in outputs]
    return [(c, t, verify(c, t)) for c, t in zip(cases, texts)]


def acceptance(runner, done):
    """Share of MTP drafts that equal the model's own next token, on its own text."""
    rows = [(runner.tokens.enc(prompt(c)), runner.tokens.enc(t)) for c, t, _ in done[:64]]
    hits = total = 0
    for i in range(0, len(rows), 16):
        part = rows[i : i + 16]
        length = max(len(p) + len(o) for p, o in part)
        ids = torch.full((len(part), length), runner.tokens.pad)
        documents = torch.full((len(part), length), -1)
        own = torch.zeros(len(part), length, dtype=torch.bool)
        for j, (p, o) in enumerate(part):
            n = len(p) + len(o)
            ids[j, :n], documents[j, :n], own[j, len(p) : n] = torch.tensor(p + o), 0, True
        ids, documents, own = (x.to(runner.dev) for x in (ids, documents, own))
        positions = torch.arange(length, device=runner.dev).expand(len(part), length)
        dtype = torch.bfloat16 if runner.dev.type == "cuda" else torch.float32
        out = runner.m(
            ids,
            positions,
            documents,
            torch.ones_like(ids).float(),
            mode=1 if runner.k else 0,
            k_top=runner.k or 64,
            pred=True,
            dtype=dtype,
        )
        hit = (out["mpred"][:, :-2] == ids[:, 2:]) & own[:, 2:]
        hits, total = hits + hit.sum().item(), total + own[:, 2:].sum().item()
    return hits / max(total, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--json")
    parser.add_argument("--samples")
    parser.add_argument("--limit", type=float, default=1e9)
    parser.add_argument("--mtp", action="store_true")
    a = parser.parse_args()
    start = time.time()
    runner = Runner(a.checkpoint, "cuda" if torch.cuda.is_available() else "cpu", a.k)
    groups = {}
    for path in a.suites:
        for line in open(path, encoding="utf-8"):
            row = json.loads(line)
            groups.setdefault(row["suite"], []).append(row)
    table = {}
    samples = open(a.samples, "w", encoding="utf-8") if a.samples else None
    for name, cases in groups.items():
        if time.time() - start > a.limit:
            print("not run:", name)
            continue
        done = run(runner, cases)
        good = sum(ok for _, _, ok in done)
        table[name] = dict(passed=good, cases=len(done))
        if a.mtp:
            table[name]["mtp"] = round(acceptance(runner, done), 4)
        print(
            f"{name:32s} {good:4d} / {len(done):4d}  {100 * good / len(done):5.1f}%  {table[name].get('mtp', '')}  [{time.time() - start:.0f} s]",
            flush=True,
        )
        if samples:
            wrong = [x for x in done if not x[2]]
            for c, t, ok in [x for x in done if x[2]][:2] + wrong[:6]:
                samples.write(f"=== {c['id']} {'ok' if ok else 'WRONG'}\n{prompt(c)[-900:]}\n>>> {t}\n")
                samples.write("" if ok else f"wanted {json.dumps(c['check'], ensure_ascii=False)}\n")
    if a.json:
        with open(a.json, "w") as file:
            json.dump(table, file, indent=1)
