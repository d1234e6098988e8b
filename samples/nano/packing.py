"""Streams packed rows of generated chats: ids, positions, document numbers, loss weights."""

import os
import numpy as np, torch
from tokenizers import Tokenizer
from corpus import mixture, source

MAX_POSITION = 8192
CALL_WEIGHT = 2.0  # of turns that call tools: their loss is low, and each wrong token in it breaks a call


class Tokens:
    def __init__(s, path):
        s.t = Tokenizer.from_file(path)
        i = s.t.token_to_id
        s.bos, s.eos, s.pad, s.user, s.asst, s.to, s.tc, s.dsml = (
            i(x)
            for x in (
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜▁pad▁｜>",
                "<｜User｜>",
                "<｜Assistant｜>",
                "<think>",
                "</think>",
                "｜DSML｜",
            )
        )

    def enc(s, x):
        return s.t.encode(x, add_special_tokens=False).ids

    def batch(s, xs):
        return [e.ids for e in s.t.encode_batch(xs, add_special_tokens=False)]

    def dec(s, ids):
        return s.t.decode(list(ids), skip_special_tokens=False)

    def weights(s, ids, context):
        """Per token its share in the loss: what the assistant says 1, with calls CALL_WEIGHT, all else `context`."""
        w = np.full(len(ids), context, np.float32)
        on = -1
        seen = False
        for j in np.nonzero((ids == s.eos) | (ids == s.to) | (ids == s.tc) | (ids == s.asst))[0]:
            k = ids[j]
            if k == s.asst:
                seen = True
            elif not seen:
                continue
            elif k == s.eos:
                if on >= 0:
                    w[on : j + 1] = CALL_WEIGHT if (ids[on:j] == s.dsml).any() else 1.0
                    on = -1
            elif on < 0:
                on = j + 1
                w[j] = 0.0
        return w


class Stream(torch.utils.data.IterableDataset):
    def __init__(s, tokpath, T, rows, seed, context, mix=None, jump=0.35):
        s.a = (tokpath, T, rows, seed, context, mix, jump)

    def __iter__(s):
        path, T, rows, seed, context, mix, jump = s.a
        wi = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        seed = seed * 1000 + (wi.id if wi else 0)
        g = source.Source(seed)
        nr = np.random.default_rng(seed)
        tk = Tokens(path)
        pool = []
        mix = mix or mixture.MIX
        tot = sum(mix.values())
        mix = {k: v / tot for k, v in mix.items()}
        while True:
            I = np.full((rows, T), tk.pad, np.int16)
            P = np.zeros((rows, T), np.int32)
            D = np.full((rows, T), -1, np.int16)
            W = np.zeros((rows, T), np.float16)
            for r in range(rows):
                off = 0
                n = 0
                while True:
                    while len(pool) < 200:
                        for ids in tk.batch([mixture.document(g, T, mix)["text"] for _ in range(64)]):
                            if len(ids) <= T:
                                pool.append(np.array(ids))
                    # first document that fits among a few, biggest first near the end
                    room = T - off
                    cand = [j for j in range(len(pool) - 1, max(-1, len(pool) - 60), -1) if len(pool[j]) <= room]
                    if not cand:
                        break
                    j = cand[0] if room > T // 3 else max(cand, key=lambda j: len(pool[j]))
                    ids = pool.pop(j)
                    m = len(ids)
                    p = np.arange(m)
                    if m > 60 and nr.random() < jump:
                        for _ in range(nr.integers(1, 4)):
                            room_p = MAX_POSITION - 1 - p[-1]
                            if room_p > 0:
                                p[nr.integers(1, m) :] += min(room_p, nr.integers(1, 1 + int(2 ** nr.uniform(4, 12.95))))
                    I[r, off : off + m] = ids
                    P[r, off : off + m] = p
                    D[r, off : off + m] = n
                    w = tk.weights(ids, context)
                    w[0] = 0
                    W[r, off : off + m] = w
                    off += m
                    n += 1
                # shuffle residue so short documents do not pile up
                if len(pool) > 400:
                    del pool[:200]
            yield tuple(torch.from_numpy(x) for x in (I, P, D, W))


def loader(tokpath, T, rows, seed, workers, context, mix=None, jump=0.35, prefetch=6):
    return iter(
        torch.utils.data.DataLoader(
            Stream(tokpath, T, rows, seed, context, mix, jump),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
    )
