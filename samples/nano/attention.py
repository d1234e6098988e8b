"""Attention within packed documents, dense or over selected tokens with the indexer's KL, as Triton kernels for training.

The same as the plain way of Attn.forward (model.py), which makes several [rows, heads, T, T] tensors: here a tile of queries
visits only tiles of keys of its own documents, and of that size there are at most two tensors, the indexer's scores in fp32
and the gradient of the KL for them in bf16. fast.py uses it only after comparing it with the plain way.

q, k [B, T, H, 192], v [B, T, H, 128]: attention. qi [B, T, h, 128], ki [B, T, 128], w [B, T, h]: indexer. bounds [2, B, T]: where
the document of a token starts and ends (exclusive); neither ever decreases along a row.
"""

from typing import Optional

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a PyTorch for CPUs
    triton = None

TILE = 64
# warps and stages of a kernel: the fastest on an H200
LAUNCH = dict(score=(4, 2), select=(4, 1), forward=(4, 2), kl=(4, 2), dq=(4, 2), dkv=(4, 1), dqi=(4, 2), dki=(4, 2))
LOG2E = 1.4426950408889634


def spans(doc):
    """[B, T] document numbers, equal ones next to each other -> bounds"""
    T = doc.shape[1]
    i = torch.arange(T, device=doc.device, dtype=torch.int32).expand_as(doc)
    change = doc[:, 1:] != doc[:, :-1]
    edge = torch.ones_like(change[:, :1])
    start = torch.where(torch.cat([edge, change], 1), i, 0).cummax(1).values
    end = torch.where(torch.cat([change, edge], 1), i + 1, T).flip(1).cummin(1).values.flip(1)
    return torch.stack([start, end]).int()


if triton:

    @triton.jit
    def tile(base, rows, stride, width: tl.constexpr):
        return tl.load(base + rows[:, None] * stride + tl.arange(0, width)[None, :])

    @triton.jit
    def score_kernel(qi, ki, w, start, scores, T, h: tl.constexpr, B: tl.constexpr):
        m0, n0, b = tl.program_id(0) * B, tl.program_id(1) * B, tl.program_id(2).to(tl.int64)
        if (n0 < m0 + B) & (n0 + B > tl.load(start + b * T + m0)):
            m, n = m0 + tl.arange(0, B), n0 + tl.arange(0, B)
            key = tile(ki + b * T * 128, n, 128, 128)
            sum_ = tl.zeros([B, B], tl.float32)
            for head in range(h):
                s = tl.dot(tile(qi + b * T * h * 128 + head * 128, m, h * 128, 128), tl.trans(key))
                sum_ += tl.maximum(s, 0.0) * tl.load(w + (b * T + m) * h + head)[:, None]
            valid = (n[None, :] <= m[:, None]) & (n[None, :] >= tl.load(start + b * T + m)[:, None])
            tl.store(scores + b * T * T + m[:, None] * T + n[None, :], tl.where(valid, sum_, -1e30))

    @triton.jit
    def select_kernel(scores, start, full, threshold, norm, k, T, BLOCK: tl.constexpr):
        """The k-th largest score of a row by bisection, and the log of the sum of exp over those that reach it."""
        row = tl.program_id(0).to(tl.int64)
        i = tl.arange(0, BLOCK)
        valid = (i >= tl.load(start + row)) & (i <= row % T)
        v = tl.load(scores + row * T + i, mask=valid, other=-1e30)
        high = tl.max(v, 0)
        low = tl.min(tl.where(valid, v, high), 0)
        all_ = ((tl.sum(valid.to(tl.int32), 0) <= k) | (tl.load(full) != 0)).to(tl.int32)
        top = high
        count, step = T, 0
        while (step < 26) & (count != k) & (all_ == 0):
            middle = 0.5 * (low + high)
            count = tl.sum((v >= middle).to(tl.int32), 0)
            low = tl.where(count >= k, middle, low)
            high = tl.where(count >= k, high, middle)
            step += 1
        low = tl.where(all_ != 0, -1e29, low)
        tl.store(threshold + row, low)
        tl.store(norm + row, top + tl.log(tl.sum(tl.where(v >= low, tl.exp(v - top), 0.0), 0)))

    @triton.jit
    def attends(scores, threshold, start, b, m, n, T, CHOSEN: tl.constexpr):
        """Which pairs of a tile attend: those of a document, and with CHOSEN only those whose score reaches the threshold."""
        ok = (n[None, :] <= m[:, None]) & (n[None, :] >= tl.load(start + b * T + m)[:, None])
        if CHOSEN:
            s = tl.load(scores + b * T * T + m[:, None] * T + n[None, :])
            ok = ok & (s >= tl.load(threshold + b * T + m)[:, None])
        return ok

    @triton.jit
    def logits(q, k, b, head, m, n, T, H: tl.constexpr):
        base = (b * T * H + head) * 192
        s = tl.dot(tile(q + base, m, H * 192, 128), tl.trans(tile(k + base, n, H * 192, 128)))
        return tl.dot(tile(q + base + 128, m, H * 192, 64), tl.trans(tile(k + base + 128, n, H * 192, 64)), s)

    @triton.jit
    def forward_kernel(
        q, k, v, scores, threshold, start, out, lse, T, scale, H: tl.constexpr, B: tl.constexpr, CHOSEN: tl.constexpr
    ):  # fmt: skip
        m0, b, head = tl.program_id(0) * B, (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
        m = m0 + tl.arange(0, B)
        top, total = tl.full([B], -1e30, tl.float32), tl.zeros([B], tl.float32)
        sum_ = tl.zeros([B, 128], tl.float32)
        for n0 in range(tl.load(start + b * T + m0) // B * B, m0 + B, B):
            n = n0 + tl.arange(0, B)
            ok = attends(scores, threshold, start, b, m, n, T, CHOSEN)
            s = tl.where(ok, logits(q, k, b, head, m, n, T, H) * scale, -1e30)
            higher = tl.maximum(top, tl.max(s, 1))
            p = tl.where(ok, tl.exp2(s - higher[:, None]), 0.0)
            old = tl.exp2(top - higher)
            values = tile(v + (b * T * H + head) * 128, n, H * 128, 128)
            total = total * old + tl.sum(p, 1)
            sum_ = tl.dot(p.to(values.dtype), values, sum_ * old[:, None])
            top = higher
        place = out + ((b * T + m[:, None]) * H + head) * 128 + tl.arange(0, 128)[None, :]
        tl.store(place, (sum_ / total[:, None]).to(out.dtype.element_ty))
        tl.store(lse + (b * H + head) * T + m, top + tl.log2(total))

    @triton.jit
    def kl_kernel(q, k, scores, threshold, start, lse, norm, kl, gradient, T, scale, H: tl.constexpr, B: tl.constexpr):
        m0, b = tl.program_id(0) * B, tl.program_id(1).to(tl.int64)
        m = m0 + tl.arange(0, B)
        log_sum = tl.load(norm + b * T + m)
        result = tl.zeros([B], tl.float32)
        for n0 in range(tl.load(start + b * T + m0) // B * B, m0 + B, B):
            n = n0 + tl.arange(0, B)
            ok = attends(scores, threshold, start, b, m, n, T, True)
            s = tl.load(scores + b * T * T + m[:, None] * T + n[None, :])
            mean = tl.zeros([B, B], tl.float32)
            for head in range(H):
                a = logits(q, k, b, head, m, n, T, H) * scale
                mean += tl.exp2(tl.minimum(a - tl.load(lse + (b * H + head) * T + m)[:, None], 0.0))
            mean = tl.where(ok, mean / H, 0.0)
            guess = tl.where(ok, s - log_sum[:, None], 0.0)
            result += tl.sum(mean * (tl.log(tl.maximum(mean, 1e-20)) - guess), 1)
            slope = tl.where(ok, tl.exp(guess), 0.0) - mean
            tl.store(gradient + b * T * T + m[:, None] * T + n[None, :], slope.to(gradient.dtype.element_ty))
        tl.store(kl + b * T + m, result)

    @triton.jit
    def dq_kernel(
        do, out, q, k, v, scores, threshold, start, lse, delta, dq, T, scale, H: tl.constexpr, B: tl.constexpr, CHOSEN: tl.constexpr
    ):  # fmt: skip
        m0, b, head = tl.program_id(0) * B, (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
        m = m0 + tl.arange(0, B)
        at, base = (b * H + head) * T + m, (b * T * H + head) * 192
        g = tile(do + (b * T * H + head) * 128, m, H * 128, 128)
        mean = tl.sum(g.to(tl.float32) * tile(out + (b * T * H + head) * 128, m, H * 128, 128).to(tl.float32), 1)
        tl.store(delta + at, mean)
        norm = tl.load(lse + at)
        nope, rope = tl.zeros([B, 128], tl.float32), tl.zeros([B, 64], tl.float32)
        for n0 in range(tl.load(start + b * T + m0) // B * B, m0 + B, B):
            n = n0 + tl.arange(0, B)
            ok = attends(scores, threshold, start, b, m, n, T, CHOSEN)
            p = tl.where(ok, tl.exp2(tl.minimum(logits(q, k, b, head, m, n, T, H) * scale - norm[:, None], 0.0)), 0.0)
            dp = tl.dot(g, tl.trans(tile(v + (b * T * H + head) * 128, n, H * 128, 128)))
            ds = (p * (dp - mean[:, None])).to(g.dtype)
            nope = tl.dot(ds, tile(k + base, n, H * 192, 128), nope)
            rope = tl.dot(ds, tile(k + base + 128, n, H * 192, 64), rope)
        place = dq + base + m[:, None] * H * 192
        natural = scale / 1.4426950408889634
        tl.store(place + tl.arange(0, 128)[None, :], (nope * natural).to(dq.dtype.element_ty))
        tl.store(place + 128 + tl.arange(0, 64)[None, :], (rope * natural).to(dq.dtype.element_ty))

    @triton.jit
    def dkv_kernel(
        do, q, k, v, scores, threshold, start, end, lse, delta, dk, dv, T, scale, H: tl.constexpr, B: tl.constexpr,
        CHOSEN: tl.constexpr,
    ):  # fmt: skip
        n0, b, head = tl.program_id(0) * B, (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
        n = n0 + tl.arange(0, B)
        base = (b * T * H + head) * 192
        values = tile(v + (b * T * H + head) * 128, n, H * 128, 128)
        nope, rope, sum_ = tl.zeros([B, 128], tl.float32), tl.zeros([B, 64], tl.float32), tl.zeros([B, 128], tl.float32)
        for m0 in range(n0, tl.load(end + b * T + n0 + B - 1), B):
            m = m0 + tl.arange(0, B)
            ok = attends(scores, threshold, start, b, m, n, T, CHOSEN)
            at = (b * H + head) * T + m
            a = logits(q, k, b, head, m, n, T, H) * scale
            p = tl.where(ok, tl.exp2(tl.minimum(a - tl.load(lse + at)[:, None], 0.0)), 0.0)
            g = tile(do + (b * T * H + head) * 128, m, H * 128, 128)
            sum_ = tl.dot(tl.trans(p.to(g.dtype)), g, sum_)
            ds = tl.trans((p * (tl.dot(g, tl.trans(values)) - tl.load(delta + at)[:, None])).to(g.dtype))
            nope = tl.dot(ds, tile(q + base, m, H * 192, 128), nope)
            rope = tl.dot(ds, tile(q + base + 128, m, H * 192, 64), rope)
        natural = scale / 1.4426950408889634
        place = dk + base + n[:, None] * H * 192
        tl.store(place + tl.arange(0, 128)[None, :], (nope * natural).to(dk.dtype.element_ty))
        tl.store(place + 128 + tl.arange(0, 64)[None, :], (rope * natural).to(dk.dtype.element_ty))
        place = dv + ((b * T + n[:, None]) * H + head) * 128 + tl.arange(0, 128)[None, :]
        tl.store(place, sum_.to(dv.dtype.element_ty))

    @triton.jit
    def dqi_kernel(gradient, factor, qi, ki, w, start, dqi, dw, T, h: tl.constexpr, B: tl.constexpr):
        m0, b, head = tl.program_id(0) * B, (tl.program_id(1) // h).to(tl.int64), tl.program_id(1) % h
        m = m0 + tl.arange(0, B)
        query = tile(qi + b * T * h * 128 + head * 128, m, h * 128, 128)
        weight, weights = tl.load(w + (b * T + m) * h + head), tl.zeros([B], tl.float32)
        sum_ = tl.zeros([B, 128], tl.float32)
        for n0 in range(tl.load(start + b * T + m0) // B * B, m0 + B, B):
            n = n0 + tl.arange(0, B)
            key = tile(ki + b * T * 128, n, 128, 128)
            s = tl.dot(query, tl.trans(key))
            g = tl.load(gradient + b * T * T + m[:, None] * T + n[None, :]).to(tl.float32)
            weights += tl.sum(g * tl.maximum(s, 0.0), 1)
            sum_ = tl.dot(tl.where(s > 0, g * weight[:, None], 0.0).to(key.dtype), key, sum_)
        f = tl.load(factor)
        place = dqi + ((b * T + m[:, None]) * h + head) * 128 + tl.arange(0, 128)[None, :]
        tl.store(place, (sum_ * f).to(dqi.dtype.element_ty))
        tl.store(dw + (b * T + m) * h + head, weights * f)

    @triton.jit
    def dki_kernel(gradient, factor, qi, ki, w, end, dki, T, h: tl.constexpr, B: tl.constexpr):
        n0, b = tl.program_id(0) * B, tl.program_id(1).to(tl.int64)
        n = n0 + tl.arange(0, B)
        key = tile(ki + b * T * 128, n, 128, 128)
        sum_ = tl.zeros([B, 128], tl.float32)
        for m0 in range(n0, tl.load(end + b * T + n0 + B - 1), B):
            m = m0 + tl.arange(0, B)
            g = tl.load(gradient + b * T * T + m[:, None] * T + n[None, :]).to(tl.float32)
            for head in range(h):
                query = tile(qi + b * T * h * 128 + head * 128, m, h * 128, 128)
                s = tl.dot(query, tl.trans(key))
                ds = tl.where(s > 0, g * tl.load(w + (b * T + m) * h + head)[:, None], 0.0)
                sum_ = tl.dot(tl.trans(ds.to(query.dtype)), query, sum_)
        place = dki + (b * T + n[:, None]) * 128 + tl.arange(0, 128)[None, :]
        tl.store(place, (sum_ * tl.load(factor)).to(dki.dtype.element_ty))


def launch(kernel, grid, *arguments, **constants):
    warps, stages = LAUNCH[kernel.__name__.removesuffix("_kernel")]
    kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages)


@torch.library.custom_op("nano::choose", mutates_args=())
def choose(qi: Tensor, ki: Tensor, w: Tensor, bounds: Tensor, full: Tensor, k_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> scores [B, T, T], the threshold that k_top of a row reach (or, where `full` is true, all), the log of the sum of exp
    over these, both [B, T]. No gradient."""
    B, T, h, _ = qi.shape
    scores, threshold, norm = w.new_empty(B, T, T), w.new_empty(B, T), w.new_empty(B, T)
    launch(score_kernel, (T // TILE, T // TILE, B), qi, ki, w, bounds[0], scores, T, h=h, B=TILE)
    block = triton.next_power_of_2(T)
    launch(select_kernel, (B * T,), scores, bounds[0], full, threshold, norm, k_top, T, BLOCK=block)
    return scores, threshold, norm


@choose.register_fake
def _(qi, ki, w, bounds, full, k_top):
    B, T = ki.shape[:2]
    return w.new_empty(B, T, T), w.new_empty(B, T), w.new_empty(B, T)


@torch.library.custom_op("nano::attend", mutates_args=())
def attend(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scores: Optional[Tensor], threshold: Optional[Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """-> out [B, T, H, 128], base-2 logs of the sums of exp2 [B, H, T]. Without scores: dense."""
    B, T, H, _ = q.shape
    out, lse = torch.empty_like(v), q.new_empty(B, H, T, dtype=torch.float32)
    launch(forward_kernel, (T // TILE, B * H), q, k, v, scores, threshold, bounds[0], out, lse, T, scale * LOG2E, H=H, B=TILE,
           CHOSEN=scores is not None)  # fmt: skip
    return out, lse


@attend.register_fake
def _(q, k, v, bounds, scores, threshold, scale):
    B, T, H, _ = q.shape
    return torch.empty_like(v), q.new_empty(B, H, T, dtype=torch.float32)


@torch.library.custom_op("nano::attend_backward", mutates_args=())
def attend_backward(
    do: Tensor, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scores: Optional[Tensor],
    threshold: Optional[Tensor], scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    B, T, H, _ = q.shape
    dq, dk, dv, delta = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(lse)
    shape = dict(H=H, B=TILE, CHOSEN=scores is not None)
    grid, mask = (T // TILE, B * H), (scores, threshold, bounds[0])
    launch(dq_kernel, grid, do, out, q, k, v, *mask, lse, delta, dq, T, scale * LOG2E, **shape)
    launch(dkv_kernel, grid, do, q, k, v, *mask, bounds[1], lse, delta, dk, dv, T, scale * LOG2E, **shape)
    return dq, dk, dv


@attend_backward.register_fake
def _(do, out, lse, q, k, v, bounds, scores, threshold, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def attend_setup(ctx, inputs, output):
    q, k, v, bounds, scores, threshold, ctx.scale = inputs
    ctx.save_for_backward(*output, q, k, v, bounds, scores, threshold)
    ctx.set_materialize_grads(False)


def attend_gradient(ctx, do, _):
    saved = ctx.saved_tensors
    do = torch.zeros_like(saved[0]) if do is None else do.contiguous()
    return *torch.ops.nano.attend_backward(do, *saved, ctx.scale), None, None, None, None


attend.register_autograd(attend_gradient, setup_context=attend_setup)


@torch.library.custom_op("nano::index_kl", mutates_args=())
def index_kl(
    q: Tensor, k: Tensor, lse: Tensor, qi: Tensor, ki: Tensor, w: Tensor, bounds: Tensor, scores: Tensor, threshold: Tensor,
    norm: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """-> per query the KL of the indexer's softmax over the chosen to the heads' mean attention [B, T], and its gradient for
    the scores [B, T, T]. Differentiable in qi, ki and w only."""
    B, T, H, _ = q.shape
    kl, gradient = w.new_empty(B, T), q.new_empty(B, T, T)
    launch(kl_kernel, (T // TILE, B), q, k, scores, threshold, bounds[0], lse, norm, kl, gradient, T, scale * LOG2E, H=H, B=TILE)
    return kl, gradient


@index_kl.register_fake
def _(q, k, lse, qi, ki, w, bounds, scores, threshold, norm, scale):
    B, T = ki.shape[:2]
    return w.new_empty(B, T), q.new_empty(B, T, T)


@torch.library.custom_op("nano::index_kl_backward", mutates_args=())
def index_kl_backward(
    factor: Tensor, gradient: Tensor, qi: Tensor, ki: Tensor, w: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """factor: the gradient of the KL, the same for each query, for the loss takes their mean"""
    B, T, h, _ = qi.shape
    dqi, dki, dw = torch.empty_like(qi), torch.empty_like(ki), torch.empty_like(w)
    launch(dqi_kernel, (T // TILE, B * h), gradient, factor, qi, ki, w, bounds[0], dqi, dw, T, h=h, B=TILE)
    launch(dki_kernel, (T // TILE, B), gradient, factor, qi, ki, w, bounds[1], dki, T, h=h, B=TILE)
    return dqi, dki, dw


@index_kl_backward.register_fake
def _(factor, gradient, qi, ki, w, bounds):
    return torch.empty_like(qi), torch.empty_like(ki), torch.empty_like(w)


def index_setup(ctx, inputs, output):
    ctx.save_for_backward(output[1], *inputs[3:7])
    ctx.set_materialize_grads(False)  # zeros of the size of the scores


def index_gradient(ctx, dkl, _):
    gradient, qi, ki, w, bounds = ctx.saved_tensors
    factor = w.new_zeros(1) if dkl is None else dkl.flatten()[:1].contiguous()
    grads = torch.ops.nano.index_kl_backward(factor, gradient, qi, ki, w, bounds)
    return None, None, None, *grads, None, None, None, None, None


index_kl.register_autograd(index_gradient, setup_context=index_setup)


def by_token(x):
    return x.transpose(1, 2).contiguous()


def dense(q, k, v, bounds, scale):
    """q, k, v [B, H, T, D] as Attn makes them -> out [B, T, H, 128]"""
    return attend(by_token(q), by_token(k), by_token(v), bounds, None, None, scale)[0]


def sparse(q, k, v, qi, ki, w, bounds, full, k_top, scale):
    """As dense, with qi [B, h, T, 128] -> out, the mean KL"""
    q, k, v, qi, ki, w = by_token(q), by_token(k), by_token(v), by_token(qi), ki.contiguous(), w.contiguous()
    scores, threshold, norm = choose(qi.detach(), ki.detach(), w.detach(), bounds, full, k_top)
    out, lse = attend(q, k, v, bounds, scores, threshold, scale)
    kl, _ = index_kl(q.detach(), k.detach(), lse.detach(), qi, ki, w, bounds, scores, threshold, norm, scale)
    return out, kl.mean()
