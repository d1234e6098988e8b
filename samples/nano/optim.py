"""Muon: momentum, orthogonalised by Newton-Schulz, for every matrix."""

import torch


@torch.no_grad()
def ns5(g):
    x = g.bfloat16()
    tr = x.shape[-2] > x.shape[-1]
    if tr:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    for a, b, c in (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ):
        A = x @ x.mT
        x = a * x + (b * A + c * (A @ A)) @ x
    return x.mT if tr else x


class Muon:
    """matrices stacked by shape; Moonlight scaling (update RMS 0.2) so one learning rate serves both optimisers"""

    def __init__(s, ps, wd=0.05, mom=0.95):
        s.g = {}
        for p in ps:
            s.g.setdefault(tuple(p.shape[-2:]), []).append(p)
        s.buf = {k: [torch.zeros_like(p) for p in v] for k, v in s.g.items()}
        s.wd, s.mom = wd, mom

    @torch.no_grad()
    def step(s, lr):
        for k, v in s.g.items():
            gs = [p.grad for p in v]
            b = s.buf[k]
            torch._foreach_lerp_(b, gs, 1 - s.mom)
            u = torch._foreach_lerp(gs, b, s.mom)
            o = ns5(torch.cat([x.reshape(-1, *k) for x in u])) * (0.2 * max(k) ** 0.5 * lr)
            torch._foreach_mul_(v, 1 - lr * s.wd)
            i = 0
            parts = []
            for p in v:
                n = p.numel() // (k[0] * k[1])
                parts.append(o[i : i + n].reshape(p.shape).float())
                i += n
            torch._foreach_sub_(v, parts)
