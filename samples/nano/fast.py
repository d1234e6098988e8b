"""Fast paths on a GPU, used only after they were compared with the plain way on the machine at hand (`check`): attention.py's
kernels, and the embedding's gradient as a product, for PyTorch's own sorts: 4 of a dense step's 54 ms on an H200."""

import torch

import attention

kernels = False


class Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, ids):
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return table[ids]

    @staticmethod
    def backward(ctx, g):
        (ids,) = ctx.saved_tensors
        rows = torch.arange(ctx.shape[0], device=g.device)
        chosen = (rows[:, None] == ids.flatten()[None, :]).to(torch.bfloat16)
        return (chosen @ g.flatten(0, -2).to(torch.bfloat16)).float(), None


def embed(table, ids):
    return Embedding.apply(table, ids) if kernels else table[ids]


def check_attention():
    """Dense and sparse, against the plain way in fp32, on documents shorter and longer than what is selected."""
    from model import Attn, Config

    c = Config(itop=64)
    torch.manual_seed(1)
    attn = Attn(c).cuda()
    doc = (torch.rand(2, 512, device="cuda") < 0.01).cumsum(1)
    x = torch.randn(2, 512, c.hidden, device="cuda")
    cos, sin = torch.ones(2, 512, 1, 32, device="cuda"), torch.zeros(2, 512, 1, 32, device="cuda")
    near = True
    for mode, full in ((0, False), (1, True), (1, False)):
        results = []
        for dtype, bounds in ((torch.bfloat16, attention.spans(doc)), (torch.float32, None)):
            out, kl = attn(x.to(dtype), cos, sin, doc, bounds, torch.tensor(full, device="cuda"), mode, c.itop)
            used = [p for n, p in attn.named_parameters() if mode or ".indexer." not in "." + n]
            results.append([out.float(), kl, *torch.autograd.grad((out.float() * x).sum() + 100 * kl, used)])
        # bf16 rounds each product to 0.4%, and the last few of the selected change with it
        near &= all((a - b).norm() <= 0.08 * b.norm() for a, b in zip(*results))
    return bool(near)


def check_embedding(device="cuda"):
    table = torch.randn(300, 64, device=device, requires_grad=True)
    ids, g = torch.randint(0, 300, (4, 500), device=device), torch.randn(4, 500, 64, device=device)
    plain, fast = (torch.autograd.grad((rows * g).sum(), table)[0] for rows in (table[ids], Embedding.apply(table, ids)))
    return bool((plain - fast).norm() < 0.01 * plain.norm())  # bf16 rounds to 0.4%


def check():
    """Switches on what works here, and says so."""
    global kernels
    try:
        kernels = check_attention() and check_embedding()
        verdict = "used" if kernels else "wrong results here, not used"
    except Exception as error:  # no Triton, another GPU: the plain way always works
        verdict = f"not available here ({str(error).splitlines()[0][:120]})"
    print("fast kernels:", verdict, flush=True)
