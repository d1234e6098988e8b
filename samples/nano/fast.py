"""Two GPU fast paths, each used only after it was compared with the plain way on the machine at hand (`check`).

flash: causal attention within packed documents by PyTorch's variable-length flash attention.
kth: the k-th largest value of each row by bisection, a Triton kernel; torch.topk takes a fifth of a sparse step.
"""

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a PyTorch for CPUs
    triton = None

flash = kth = False


def boundaries(doc):
    """Document starts over all rows, then the end, as int32; padded with the end to a fixed length, so that shapes do not
    change from batch to batch. Documents beyond that length (one per 64 tokens) would be joined to the one before."""
    first = torch.ones_like(doc[:, :1], dtype=torch.bool)
    new = torch.cat([first, doc[:, 1:] != doc[:, :-1]], 1).flatten()
    length = max(2, doc.numel() // 64)
    at = torch.where(new, new.cumsum(0) - 1, length).clamp_max(length)
    starts = torch.full((length + 1,), doc.numel(), device=doc.device, dtype=torch.int32)
    starts.scatter_(0, at, torch.where(new, torch.arange(doc.numel(), device=doc.device, dtype=torch.int32), doc.numel()))
    starts[length] = doc.numel()
    return starts


def documents(q, k, v, cu, scale):
    """q, k [B, H, T, D], v [B, H, T, E <= D] -> [B, T, H, E]"""
    from torch.nn.attention.varlen import varlen_attn

    B, H, T, D = q.shape
    flat = lambda x: x.transpose(1, 2).reshape(B * T, H, -1)
    out = varlen_attn(flat(q), flat(k), F.pad(flat(v), (0, D - v.shape[-1])), cu, cu, T, T, scale=scale, window_size=(-1, 0))
    return out[..., : v.shape[-1]].view(B, T, H, -1)


if triton:

    @triton.jit
    def kth_kernel(x, out, k, T, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        i = tl.arange(0, BLOCK)
        v = tl.load(x + row * T + i, mask=i < T, other=-1e30)
        high = tl.max(v, 0)
        low = tl.min(tl.where(v > -1e29, v, high), 0)
        few = tl.sum((v > -1e29).to(tl.int32), 0) <= k
        for _ in range(26):
            middle = 0.5 * (low + high)
            enough = tl.sum((v >= middle).to(tl.int32), 0) >= k
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        tl.store(out + row, tl.where(few, -1e29, low))


def bisect(x, k):
    out = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    T = x.shape[-1]
    kth_kernel[(out.numel(),)](x.contiguous(), out, k, T, BLOCK=triton.next_power_of_2(T), num_warps=4)
    return out


@torch.library.custom_op("nano::kth_largest", mutates_args=())
def kth_largest(x: torch.Tensor, k: int) -> torch.Tensor:
    """A value that the k largest of the last dimension reach and (up to near ties) no other does. x: fp32, -1e30 = masked."""
    if kth:
        return bisect(x, k)
    return x.topk(k, -1, sorted=False).values.amin(-1).clamp_min(-1e29)


@kth_largest.register_fake
def _(x, k):
    return x.new_empty(x.shape[:-1])


def plain(q, k, v, doc, scale):
    T = doc.shape[1]
    i = torch.arange(T, device=doc.device)
    valid = (doc[:, :, None] == doc[:, None, :]) & (i[:, None] >= i[None, :])
    a = (q @ k.transpose(-1, -2)).float() * scale
    return (torch.softmax(a.masked_fill(~valid[:, None], -1e30), -1).to(v.dtype) @ v).transpose(1, 2)


def check_flash():
    g = torch.Generator("cuda").manual_seed(1)
    make = lambda d: torch.randn(4, 4, 512, d, device="cuda", generator=g).bfloat16().requires_grad_()
    doc = torch.randint(0, 2, (4, 512), device="cuda", generator=g).mul(torch.rand(4, 512, device="cuda", generator=g) < 0.01)
    doc = doc.cumsum(1)
    q, k, v, w = make(192), make(192), make(128), torch.randn(4, 512, 4, 128, device="cuda", generator=g).bfloat16()
    results = []
    for run in (lambda: documents(q, k, v, boundaries(doc), 0.1), lambda: plain(q, k, v, doc, 0.1)):
        out = run()
        results.append([out, *torch.autograd.grad((out * w).float().sum(), [q, k, v])])
    return all((a - b).float().norm() < 0.02 * b.float().norm() for a, b in zip(*results))


def check_kth():
    x = torch.randn(64, 2048, device="cuda")
    x[: 32, 40:] = -1e30
    x[32:] = x[32:].masked_fill(torch.rand(32, 2048, device="cuda") < 0.3, -1e30)
    low = bisect(x, 64)
    counts = (x >= low[:, None]).sum(-1)
    return bool(((counts == 64) | ((x > -1e29).sum(-1) == counts)).all())


def check():
    """Switches on what works here, and says so."""
    global flash, kth
    verdicts = {}
    for name, test in (("flash", check_flash), ("kth", check_kth)):
        try:
            verdicts[name] = "used" if test() else "wrong results here, not used"
        except Exception as error:  # an old PyTorch, another GPU: the plain way always works
            verdicts[name] = f"not available here ({str(error).splitlines()[0][:120]})"
    flash, kth = verdicts["flash"] == "used", verdicts["kth"] == "used"
    print("fast paths:", verdicts, flush=True)
