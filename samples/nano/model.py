"""nano: DeepSeek-V3.2 (MLA, lightning indexer, MoE, MTP) for training, in plain torch.

The experts run as one wide FFN times routing weights, sparse attention as dense attention under a mask: at this size that
is the fastest way on a GPU. Where fast.py found them to work, attention and the embedding's gradient use kernels of their own.
"""

import math, torch, torch.nn as nn, torch.nn.functional as F
from dataclasses import dataclass

import attention
import fast


@dataclass
class Config:
    vocab: int = 3072
    hidden: int = 256
    layers: int = 6
    dense_layers: int = 1
    heads: int = 4
    q_lora: int = 256
    kv_lora: int = 512
    nope: int = 128
    rope: int = 64
    vd: int = 128
    inter: int = 512
    moe_inter: int = 128
    experts: int = 16
    shared: int = 1
    n_group: int = 4
    topk_group: int = 2
    top: int = 4
    route_scale: float = 2.5
    ih: int = 4
    idim: int = 128
    itop: int = 64
    theta: float = 10000.0
    factor: float = 8.0
    orig: int = 1024
    eps: float = 1e-6


def fq(w):
    """fake-quantise to e4m3 in 128x128 blocks, power-of-two scales; straight-through"""
    with torch.no_grad():
        q, s = quant(w)
        d = dequant(q, s).to(w.dtype)
    return w + (d - w).detach()


def quant(w):
    *L, R, C = w.shape
    r, c = -R % 128, -C % 128
    p = F.pad(w.float(), (0, c, 0, r)).reshape(*L, (R + r) // 128, 128, (C + c) // 128, 128)
    s = torch.exp2(torch.ceil(torch.log2(p.abs().amax((-3, -1)).clamp_min(1e-10) / 448)))
    q = (p / s[..., :, None, :, None]).clamp(-448, 448).to(torch.float8_e4m3fn)
    return q.reshape(*L, R + r, C + c)[..., :R, :C], s


def dequant(q, s):
    *L, R, C = q.shape
    return q.float() * s.repeat_interleave(128, -2)[..., :R, :].repeat_interleave(128, -1)[..., :C]


def q128(x):
    """as fq, for activations and cached latents: per token, per 128 values, as the engine's `official` precision does"""
    with torch.no_grad():
        y = x.float().unflatten(-1, (-1, 128))
        s = torch.exp2(torch.ceil(torch.log2(y.abs().amax(-1, keepdim=True).clamp_min(1e-4) / 448)))
        d = ((y / s).to(torch.float8_e4m3fn).float() * s).flatten(-2).to(x.dtype)
    return x + (d - x).detach()


class Norm(nn.Module):
    def __init__(s, d):
        super().__init__()
        s.weight = nn.Parameter(torch.ones(d))

    def forward(s, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * s.weight).to(x.dtype)


class Lin(nn.Module):
    def __init__(s, i, o, std=None):
        super().__init__()
        s.weight = nn.Parameter(torch.randn(o, i) * (std if std is not None else 0.6 * i**-0.5))
        s.q = False

    def forward(s, x):
        if s.q:
            return F.linear(q128(x), fq(s.weight).to(x.dtype))
        return F.linear(x, s.weight.to(x.dtype))


def yarn(c):
    i = torch.arange(0, c.rope, 2).double()
    f = c.theta ** (-i / c.rope)
    dim = lambda rot: c.rope * math.log(c.orig / (rot * 2 * math.pi)) / (2 * math.log(c.theta))
    lo, hi = max(math.floor(dim(32)), 0), min(math.ceil(dim(1)), c.rope - 1)
    ramp = ((torch.arange(c.rope // 2).double() - lo) / max(hi - lo, 0.001)).clamp(0, 1)
    return (f / c.factor * ramp + f * (1 - ramp)).float()


def rope_i(x, cos, sin):  # interleaved pairs; x [B,T,H,64], cos [B,T,1,32]
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


def rope_h(x, cos, sin):  # halves
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Indexer(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        s.wq_b = Lin(c.q_lora, c.ih * c.idim)
        s.wk = Lin(c.hidden, c.idim)
        s.weights_proj = Lin(c.hidden, c.ih)
        s.k_norm = nn.LayerNorm(c.idim, eps=1e-6)

    def qkw(s, x, ql, cos, sin):
        c = s.c
        B, T, _ = x.shape
        q = s.wq_b(ql).view(B, T, c.ih, c.idim)
        k = (
            F.layer_norm(s.wk(x).float(), (c.idim,), s.k_norm.weight.float(), s.k_norm.bias.float(), 1e-6)
            .to(x.dtype)
            .view(B, T, 1, c.idim)
        )
        q = torch.cat([rope_h(q[..., : c.rope], cos, sin), q[..., c.rope :]], -1)
        k = torch.cat([rope_h(k[..., : c.rope], cos, sin), k[..., c.rope :]], -1)
        w = s.weights_proj(x).float() * (c.ih**-0.5 * c.idim**-0.5)
        return q.transpose(1, 2), k[:, :, 0], w

    @staticmethod
    def score(q, k, w):  # [B,h,Tq,d] [B,Tk,d] [B,Tq,h] -> [B,Tq,Tk] fp32
        return (torch.relu(q @ k[:, None].transpose(-1, -2)).float() * w.transpose(1, 2)[..., None]).sum(1)


def kth_largest(x, k):
    """The k-th largest of the last dimension; where fewer are valid (masked ones are -1e30), what all of these reach."""
    return x.topk(k, -1, sorted=False).values.amin(-1).clamp_min(-1e29)


class Attn(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        s.q_a_proj = Lin(c.hidden, c.q_lora)
        s.q_a_layernorm = Norm(c.q_lora)
        s.q_b_proj = Lin(c.q_lora, c.heads * (c.nope + c.rope))
        s.kv_a_proj_with_mqa = Lin(c.hidden, c.kv_lora + c.rope)
        s.kv_a_layernorm = Norm(c.kv_lora)
        s.kv_b_proj = Lin(c.kv_lora, c.heads * (c.nope + c.vd))
        s.o_proj = Lin(c.heads * c.vd, c.hidden, std=0.02 / math.sqrt(2 * c.layers))
        s.indexer = Indexer(c)
        m = 0.1 * math.log(c.factor) + 1
        s.scale = (c.nope + c.rope) ** -0.5 * m * m

    def proj(s, x, cos, sin):
        c = s.c
        B, T, _ = x.shape
        ql = s.q_a_layernorm(s.q_a_proj(x))
        q = s.q_b_proj(ql).view(B, T, c.heads, c.nope + c.rope)
        q = torch.cat([q[..., : c.nope], rope_i(q[..., c.nope :], cos, sin)], -1).transpose(1, 2)
        kv = s.kv_a_proj_with_mqa(x)
        cc = s.kv_a_layernorm(kv[..., : c.kv_lora])
        kr = rope_i(kv[..., None, c.kv_lora :], cos, sin)
        kb = s.kv_b_proj(cc).view(B, T, c.heads, c.nope + c.vd)
        k = torch.cat([kb[..., : c.nope], kr.expand(B, T, c.heads, c.rope)], -1).transpose(1, 2)
        v = kb[..., c.nope :].transpose(1, 2)
        return q, k, v, ql

    def forward(s, x, cos, sin, doc, bounds, full, mode, k_top):
        """mode 0: dense. mode 1: attention over the k_top selected tokens (over all where `full` is true, for the warm-up),
        and the KL of the indexer to the head-averaged attention. The indexer gets no gradient but that of its KL.
        bounds: of the documents, for the kernels of attention.py; None: the plain way."""
        B, T, _ = x.shape
        q, k, v, ql = s.proj(x, cos, sin)
        kl = x.new_zeros((), dtype=torch.float32)
        if bounds is not None and mode == 0:
            return s.o_proj(attention.dense(q, k, v, bounds, s.scale).reshape(B, T, -1)), kl
        if bounds is not None:
            index = s.indexer.qkw(x.detach(), ql.detach(), cos, sin)
            o, kl = attention.sparse(q, k, v, *index, bounds, full, k_top, s.scale)
            return s.o_proj(o.reshape(B, T, -1)), kl
        i = torch.arange(T, device=x.device)
        valid = (doc[:, :, None] == doc[:, None, :]) & (i[:, None] >= i[None, :])
        if mode:
            I = s.indexer.score(*s.indexer.qkw(x.detach(), ql.detach(), cos, sin)).masked_fill(~valid, -1e30)
            with torch.no_grad():
                valid = valid & (full | (I.detach() >= kth_largest(I.detach(), min(k_top, T))[..., None]))
        a = (q @ k.transpose(-1, -2)).float() * s.scale
        p = torch.softmax(a.masked_fill(~valid[:, None], -1e30), -1)
        o = (p.to(v.dtype) @ v).transpose(1, 2).reshape(B, T, -1)
        if mode:
            t = p.detach().mean(1)
            lq = torch.log_softmax(I.masked_fill(~valid, -1e30), -1)
            kl = torch.where(t > 0, t * (torch.log(t.clamp_min(1e-20)) - lq), 0.0).sum(-1).mean()
        return s.o_proj(o), kl


class MLP(nn.Module):
    def __init__(s, h, i, L):
        super().__init__()
        s.gate_proj = Lin(h, i)
        s.up_proj = Lin(h, i)
        s.down_proj = Lin(i, h, std=0.02 / math.sqrt(2 * L))

    def forward(s, x):
        return s.down_proj(F.silu(s.gate_proj(x)) * s.up_proj(x))


def largest(x, n):
    """Mask of the n largest of the last dimension, of equal ones the first. By counting: for few values faster than topk."""
    a, b, i = x[..., :, None], x[..., None, :], torch.arange(x.shape[-1], device=x.device)
    return ((b > a) | ((b == a) & (i[None, :] < i[:, None]))).sum(-1) < n


class MoE(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        E, I, H = c.experts, c.moe_inter, c.hidden
        s.w1 = nn.Parameter(torch.randn(E, I, H) * 0.6 * H**-0.5)
        s.w3 = nn.Parameter(torch.randn(E, I, H) * 0.6 * H**-0.5)
        s.w2 = nn.Parameter(torch.randn(E, H, I) * 0.02 / math.sqrt(2 * c.layers))
        s.q = False
        s.gate = Lin(H, E, std=0.02)
        s.register_buffer("bias", torch.zeros(E))
        s.shared_experts = MLP(H, I * c.shared, c.layers)

    def route(s, x):
        c = s.c
        sc = torch.sigmoid(F.linear(x.float(), s.gate.weight.float()))
        ch = sc.detach() + s.bias
        groups = ch.view(*ch.shape[:-1], c.n_group, -1)
        kept = largest((groups * largest(groups, 2)).sum(-1), c.topk_group)
        m = largest(torch.where(kept[..., None], groups, -1e30).flatten(-2), c.top).float()
        w = sc * m
        w = w / (w.sum(-1, keepdim=True) + 1e-20) * c.route_scale
        return w, m, sc

    def forward(s, x):
        c = s.c
        E, I, H = c.experts, c.moe_inter, c.hidden
        with torch.autocast(x.device.type, enabled=False):
            w, m, sc = s.route(x)
        w1, w3, w2 = (fq(s.w1), fq(s.w3), fq(s.w2)) if s.q else (s.w1, s.w3, s.w2)
        quantised = q128 if s.q else lambda t: t
        z = quantised(x)
        g = F.linear(z, w1.reshape(E * I, H).to(x.dtype))
        u = F.linear(z, w3.reshape(E * I, H).to(x.dtype))
        h = quantised(F.silu(g) * u).view(*x.shape[:-1], E, I) * w[..., None].to(x.dtype)
        y = h.flatten(-2) @ w2.transpose(1, 2).reshape(E * I, H).to(x.dtype)
        pf = sc / (sc.sum(-1, keepdim=True) + 1e-20)
        aux = (m.mean(1) * E / c.top * pf.mean(1)).sum(-1).mean()  # per sequence, DeepSeek-V3 eq. 17
        return y + s.shared_experts(x), m.flatten(0, -2).mean(0), aux


class Block(nn.Module):
    def __init__(s, c, dense):
        super().__init__()
        s.input_layernorm = Norm(c.hidden)
        s.self_attn = Attn(c)
        s.post_attention_layernorm = Norm(c.hidden)
        s.dense = dense
        s.mlp = MLP(c.hidden, c.inter, c.layers) if dense else MoE(c)

    def forward(s, x, cos, sin, doc, bounds, full, mode: int, k_top: int):
        a, kl = s.self_attn(s.input_layernorm(x), cos, sin, doc, bounds, full, mode, k_top)
        x = x + a
        h = s.post_attention_layernorm(x)
        if s.dense:
            return x + s.mlp(h), kl, x.new_zeros(1), x.new_zeros(())
        y, load, aux = s.mlp(h)
        return x + y, kl, load, aux


def head_loss(h, nw, W, tgt, w):
    y = h.float()
    y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * nw).to(h.dtype)
    l = F.cross_entropy(F.linear(y, W.to(h.dtype)).float().flatten(0, 1), tgt.flatten(), reduction="none")
    w = w.flatten()
    return (l * w).sum() / w.sum().clamp_min(1e-6)


class Nano(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.c = c
        s.embed = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.3)
        s.blocks = nn.ModuleList(Block(c, i < c.dense_layers) for i in range(c.layers))
        s.norm = Norm(c.hidden)
        s.head = Lin(c.hidden, c.vocab, std=0.02)
        s.mtp = Block(c, False)
        s.enorm = Norm(c.hidden)
        s.hnorm = Norm(c.hidden)
        s.eh_proj = Lin(2 * c.hidden, c.hidden)
        s.mtp_norm = Norm(c.hidden)
        s.register_buffer("inv", yarn(c), persistent=False)

    def cs(s, pos):
        a = pos.float()[..., None, None] * s.inv
        return a.cos(), a.sin()

    def set_q(s, on):
        for n, m in s.named_modules():
            if isinstance(m, MoE):
                m.q = on
            if isinstance(m, Lin) and not any(n.endswith(x) for x in ("gate", "weights_proj", "head", "eh_proj")):
                m.q = on

    def forward(s, ids, pos, doc, wt, mode=0, k_top=64, full=False, dtype=torch.bfloat16, loss=None, pred=False):
        """ids, positions, document numbers and loss weights, all [rows, tokens]. mode, k_top, full: as in Attn.forward."""
        cos, sin = s.cs(pos)
        full = torch.as_tensor(full, device=ids.device)
        bounds = attention.spans(doc) if fast.kernels else None
        x = fast.embed(s.embed, ids).to(dtype)
        kls, loads, auxs = [], [], []

        def step(b, x):
            y, kl, ld, ax = b(x, cos, sin, doc, bounds, full, mode, k_top)
            kls.append(kl)
            if not b.dense:
                loads.append(ld)
                auxs.append(ax)
            return y

        for b in s.blocks:
            x = step(b, x)
        h = x
        y = s.norm(x)
        nx = F.pad(ids[:, 1:], (0, 1))
        n2 = F.pad(ids[:, 2:], (0, 2))
        same1 = F.pad((doc[:, 1:] == doc[:, :-1]) & (doc[:, 1:] >= 0), (0, 1))
        same2 = F.pad((doc[:, 2:] == doc[:, :-2]) & (doc[:, 2:] >= 0), (0, 2))
        w1 = F.pad(wt[:, 1:], (0, 1)) * same1
        w2 = F.pad(wt[:, 2:], (0, 2)) * same2
        loss = loss or head_loss
        lm = loss(h, s.norm.weight, s.head.weight, nx, w1)
        e = fast.embed(s.embed, nx).to(dtype) * (pos != 0)[..., None]  # the engine feeds no token at position 0
        z = s.eh_proj(torch.cat([s.enorm(e), s.hnorm(y)], -1))
        z = step(s.mtp, z)
        ml = loss(z, s.mtp_norm.weight, s.head.weight, n2, w2)
        o = {}
        if pred:
            o = dict(pred=s.head(s.norm(h)).argmax(-1), mpred=s.head(s.mtp_norm(z)).argmax(-1))
        return dict(o, lm=lm, mtp=ml, kl=torch.stack(kls), load=torch.stack(loads), aux=torch.stack(auxs).sum())

    def nparams(s):
        return sum(p.numel() for p in s.parameters())
