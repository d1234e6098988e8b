"""Trains nano: dense, then the indexer alone, then sparse, last on longer rows. Can be cut at any minute and resumed.

    python train.py --out DIR                  the whole recipe: 1,190 s of training, 22 minutes on one H200
    python train.py --out DIR --limit 480      one slice of at most 8 minutes; run it again to go on
    python train.py --out DIR --steps 2 --tokens 2048 --scale 8     a smoke run on a CPU

DIR receives tokenizer.json, log.jsonl, curves.png, state.json and, every two minutes and at the end, state-*.pt: weights
in bf16, each file below 16 MB. Optimiser states are not kept: a resumed run warms up anew, which costs about 50 steps.
"""

import argparse
import contextlib
import gc
import json
import os
import sys
import time

import torch

import curves
import fast
import packing
import tokenizer
from model import Config, Nano, head_loss
from optim import Muon

START = time.time()
PIECE = 14 * 2**20
SAVE_EVERY = 120
LR, INDEXER_LR, WEIGHT_DECAY = 4e-3, 3e-3, 0.05
# name, row length, seconds, micro-batches where fast.py's kernels are not used (with them it is one), peak and final
# factor of LR, share held at the peak, MTP weight, and the weight of text that is not the assistant's. That is mostly invented
# values, which nobody can guess: at 0.06 they were 85% of the loss of a document with tools. At first they teach language.
STAGES = [
    ("dense", 2048, 620, 1, 1.0, 0.5, 0.25, 0.3, 0.03),
    ("indexer", 2048, 15, 2, 0.0, 0.0, 1.0, 0.0, 0.03),
    ("sparse", 2048, 430, 2, 0.5, 0.136, 0.19, 0.2, 0.01),
    ("sparse-long", 4096, 125, 4, 0.136, 0.0025, 0.0, 0.2, 0.01),
]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--limit", type=float, default=1e9, help="seconds until this process saves its state and stops")
    p.add_argument("--stages", default=",".join(s[0] for s in STAGES), help="those that this process may run")
    p.add_argument("--seconds", default=",".join(str(s[2]) for s in STAGES), help="of training, per stage; 0: without it")
    p.add_argument("--steps", type=int, default=0, help="steps per stage, instead of the stage's seconds")
    p.add_argument("--tokens", type=int, default=65536, help="tokens per step")
    p.add_argument("--scale", type=int, default=1, help="divides the row length of every stage")
    p.add_argument("--workers", type=int, default=min(14, os.cpu_count() - 1))
    p.add_argument("--eager", action="store_true", help="no CUDA graphs")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def save(folder, model, progress):
    """bf16 weights in pieces below 16 MB, then state.json, which makes them valid."""
    pieces, size = [{}], 0
    for name, value in model.state_dict().items():
        value = value.to(torch.bfloat16) if value.numel() > 4096 else value
        if size + value.numel() * value.element_size() > PIECE:
            pieces.append({})
            size = 0
        pieces[-1][name] = value.cpu()
        size += value.numel() * value.element_size()
    for i, piece in enumerate(pieces):
        torch.save(piece, os.path.join(folder, f"state-{i}.new"))
    for i in range(len(pieces)):
        os.replace(os.path.join(folder, f"state-{i}.new"), os.path.join(folder, f"state-{i}.pt"))
    with open(os.path.join(folder, "state.json"), "w") as file:
        json.dump(dict(progress, pieces=len(pieces)), file)


def load(folder, model):
    """-> the progress that was saved, or that of a fresh run."""
    path = os.path.join(folder, "state.json")
    if not os.path.exists(path):
        return dict(stage=0, spent=0.0, step=0, tokens=0, slice=0)
    progress = json.load(open(path))
    state = {}
    for i in range(progress.pop("pieces")):
        state |= torch.load(os.path.join(folder, f"state-{i}.pt"), map_location="cpu", weights_only=True)
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return progress


def bar(stage, share, step, values, rate, left):
    width = 24
    done = int(width * share)
    text = " ".join(f"{k} {v:.3f}" for k, v in values.items())
    print(
        f"{stage:8s} [{'#' * done}{'.' * (width - done)}] {100 * share:5.1f}%  step {step}  {text}  {rate / 1e3:.0f}K tokens/s"
        + (f"  {left:.0f} s left of this slice" if left < 1e8 else ""),
        flush=True,
    )


class Trainer:
    def __init__(self, options):
        self.o = options
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(options.seed)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch._dynamo.config.recompile_limit = 128
        os.makedirs(options.out, exist_ok=True)
        self.vocabulary = os.path.join(options.out, "tokenizer.json")
        if not os.path.exists(self.vocabulary):
            tokenizer.train(self.vocabulary, 12000 if not options.steps else 3000)
        self.model = Nano(Config())
        self.progress = load(options.out, self.model)
        self.model.to(self.device)
        self.loss = head_loss
        if self.device == "cuda":
            fast.check()
            for block in [*self.model.blocks, self.model.mtp]:
                block.compile(dynamic=False)
            self.loss = torch.compile(head_loss, dynamic=False)
        self.moe = [b for b in [*self.model.blocks, self.model.mtp] if not b.dense]
        self.graphs = self.device == "cuda" and not options.eager
        self.whole = [torch.tensor(x, device=self.device) for x in (False, True)]
        self.log = open(os.path.join(options.out, "log.jsonl"), "a")
        self.allowed = options.stages.split(",")
        self.seconds = [float(x) for x in options.seconds.split(",")]
        self.optimisers()

    def optimisers(self):
        """Muon for matrices, AdamW for the rest and for the indexer."""
        named = dict(self.model.named_parameters())
        indexer = {n for n in named if ".indexer." in n}
        plain = ("embed", "head.weight")
        matrices = [
            n for n, p in named.items() if p.ndim >= 2 and n not in indexer and n not in plain and ".gate.weight" not in n
        ]
        rest = [n for n in named if n not in indexer and n not in matrices]
        adam = lambda names, eps: torch.optim.AdamW(
            [named[n] for n in names], lr=1, betas=(0.9, 0.95), eps=eps, weight_decay=0, fused=self.device == "cuda"
        )
        self.muon = Muon([named[n] for n in matrices], WEIGHT_DECAY)
        self.adam, self.index_adam = adam(rest, 1e-10), adam(sorted(indexer), 1e-8)

    def left(self):
        return self.o.limit - (time.time() - START)

    def shortened(self, index, base):
        """The stage's seconds, a little fewer where that lets this and all later stages end within this slice."""
        later = [i for i in range(index + 1, len(STAGES)) if STAGES[i][0] in self.allowed and self.seconds[i] > 0]
        room = self.left() - 5 - 25 * len(later)
        wanted = self.seconds[index] - base + sum(self.seconds[i] for i in later)
        if not room < wanted < 1.4 * room:
            return self.seconds[index]
        seconds = base + (self.seconds[index] - base) * room / wanted
        print(f"{STAGES[index][0]}: {seconds:.0f} s instead of {self.seconds[index]:.0f}", flush=True)
        return seconds

    def balance(self, load, rate):
        """Moves each routing bias by its expert's load, and keeps the biases of a layer centred."""
        with torch.no_grad():
            for block, l in zip(self.moe, load):
                block.mlp.bias += rate * torch.sign(l.mean() - l)
                block.mlp.bias -= block.mlp.bias.mean()

    def step(self, name, batch, micro, mtp_weight):
        """Gradients of one batch. The warm-up of the indexer runs the sparse stage's graph, so that it compiles once."""
        ids, positions, documents, weights = batch
        if fast.kernels:
            micro = 1
        load = 0
        for i in range(micro):
            part = slice(i * len(ids) // micro, (i + 1) * len(ids) // micro)
            out = self.model(
                ids[part],
                positions[part],
                documents[part],
                weights[part],
                mode=0 if name == "dense" else 1,
                full=self.whole[int(name == "indexer")],
                loss=self.loss,
            )
            index, language = out["kl"].sum(), out["lm"] + mtp_weight * out["mtp"] + 1e-4 * out["aux"]
            objective = {"dense": language, "indexer": index}.get(name, language + index)
            (objective / micro).backward()
            out = {k: v.detach() for k, v in out.items()}
            load = load + out["load"] / micro
        return out, load

    def replay(self, name, batch, mtp_weight):
        """step as one CUDA graph: to launch its some 2,000 kernels one by one takes Python longer than the GPU needs for them.
        Gradients stay where they are, and each replay writes them anew."""
        if self.graph is None:
            self.batch = [x.clone() for x in batch]
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            gc.collect()  # what an earlier step left behind belongs to no graph
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):  # the loader uses the GPU, too
                self.result = self.step(name, self.batch, 1, mtp_weight)
            self.graph = graph
        for mine, given in zip(self.batch, batch):
            mine.copy_(given)
        self.graph.replay()
        return self.result

    def first_step(self, *arguments):
        """As step; where a fast path does not compile here, without it."""
        try:
            return self.step(*arguments)
        except Exception as error:
            if not fast.kernels:
                raise
            print("without the fast paths:", repr(error)[:2000], flush=True)
            fast.kernels = False
            torch._dynamo.reset()
            self.model.zero_grad(set_to_none=True)
            return self.step(*arguments)

    def stage(self, index):
        name, length, _, micro, peak, last, hold, mtp_weight, context = STAGES[index]
        seconds = self.seconds[index]
        o, p, model = self.o, self.progress, self.model
        if name == "dense" and self.device == "cuda" and not fast.kernels:
            length //= 2
        length = max(128, length // o.scale // 64 * 64)  # tiles of attention.py
        parts = max(micro, min(4, o.tokens // length))
        rows = max(1, o.tokens // length // parts)
        seed = o.seed * 1000 + 100 * index + p["slice"]
        stream = packing.loader(self.vocabulary, length, rows, seed, o.workers, context)
        model.set_q(name != "dense")
        clock, count, spent = None, 0, p["spent"]
        self.graph = self.batch = self.result = None  # of the stage before
        model.zero_grad(set_to_none=True)
        mark, marked = time.time(), 0
        while True:
            x = p["step_in_stage"] / o.steps if o.steps else min(1.0, spent / seconds)
            if x >= 1:
                return True
            if self.left() < 0:
                return False
            shape = 1.0 if x < hold else 1 - (1 - last / max(peak, 1e-9)) * (x - hold) / (1 - hold)
            warm = min(1, (count + 1) / (100 if index == 0 and p["slice"] == 0 else 40))
            lr = LR * peak * shape * warm
            for group in self.adam.param_groups:
                group["lr"] = 0.75 * lr
            for group in self.index_adam.param_groups:
                group["lr"] = INDEXER_LR * min(1, (count + 1) / 20) * (1 - 0.9 * x if name == "indexer" else 0.6 * peak * shape)
            # pinned as they come from the loader: a copy of what torch.cat makes would wait for the step before
            pieces = zip(*(next(stream) for _ in range(parts)))
            batch = [torch.cat([x.to(self.device, non_blocking=True) for x in z]) for z in pieces]
            batch = [batch[0].long(), batch[1].long(), batch[2].int(), batch[3].float()]
            if self.graphs and fast.kernels and count > 1:
                out, load = self.replay(name, batch, mtp_weight)
            else:
                out, load = (self.step if count else self.first_step)(name, batch, micro, mtp_weight)
            if name != "indexer":
                self.muon.step(lr)
                self.adam.step()
                self.balance(load, 2e-3 * min(1.0, 3 * (1 - x)))
            if name != "dense":
                self.index_adam.step()
            if self.graph is None:
                model.zero_grad(set_to_none=True)
            count += 1
            p["step"] += 1
            p["step_in_stage"] += 1
            p["tokens"] += batch[0].numel()
            if count == 4:  # compiling does not count as training time
                clock, base = time.time(), p["spent"]
                if not o.steps:
                    seconds = self.shortened(index, base)
            if clock:
                spent = base + time.time() - clock
            if p["step"] % 50 == 0 or o.steps:
                values = dict(lm=out["lm"].item(), mtp=out["mtp"].item(), kl=out["kl"].mean().item())
                now = time.time()
                rate = (p["tokens"] - marked) / (now - mark) if marked else 0
                mark, marked = now, p["tokens"]
                skew = (load.max(-1).values / load.mean(-1)).max().item()
                if p["step"] % 200 == 0 or o.steps:
                    bar(name, x, p["step"], values, rate, self.left())
                row = dict(stage=name, step=p["step"], tokens=p["tokens"], lr=lr, skew=skew, rate=rate, t=now - START, **values)
                self.log.write(json.dumps(row) + "\n")
                self.log.flush()
                if not values["lm"] < 20 or (x > 0.2 and values["lm"] > 2 and not o.steps):
                    raise SystemExit("diverged")
            p["spent"] = spent
            if time.time() - self.saved > SAVE_EVERY:
                save(o.out, model, dict(p, slice=p["slice"] + 1))
                self.saved = time.time()

    def run(self):
        p = self.progress
        finished, self.saved = True, time.time()
        while p["stage"] < len(STAGES) and STAGES[p["stage"]][0] in self.allowed:
            p.setdefault("step_in_stage", 0)
            if self.seconds[p["stage"]] > 0:  # 0: a recipe without this stage
                finished = self.stage(p["stage"])
            if not finished:
                break
            p.update(stage=p["stage"] + 1, spent=0.0, step_in_stage=0)
            save(self.o.out, self.model, p)
        p["slice"] += 1
        p["finished"] = finished and p["stage"] == len(STAGES)
        save(self.o.out, self.model, p)
        self.log.close()
        curves.draw(self.o.out)
        print("finished" if p["finished"] else "stopped; run again to go on", f"({time.time() - START:.0f} s)", flush=True)


if __name__ == "__main__":
    # a stream of its own, for a graph is recorded on one and must find what earlier steps made on the same
    with torch.cuda.stream(torch.cuda.Stream()) if torch.cuda.is_available() else contextlib.nullcontext():
        Trainer(arguments()).run()
    sys.stdout.flush()
    os._exit(0)  # data workers never end by themselves
