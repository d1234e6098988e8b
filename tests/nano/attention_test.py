"""The kernels of samples/nano/attention.py, by Triton's interpreter on the CPU in fp32, against the plain way of model.py."""

import torch
from triton.runtime import interpreter

import attention
from model import Indexer, kth_largest

patch = interpreter._patch_lang_tensor


def patch_index(tensor, scope):
    """NumPy 2.4 makes no number of an array of one, which Triton 3.6's interpreter asks it for."""
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = patch_index
HEADS, INDEX_HEADS, SCALE = 2, 2, 192**-0.5


def plain(q, k, v, index, doc, full, k_top):
    i = torch.arange(doc.shape[1])
    valid = (doc[:, :, None] == doc[:, None, :]) & (i[:, None] >= i[None, :])
    if index:
        scores = Indexer.score(*index).masked_fill(~valid, -1e30)
        least = kth_largest(scores.detach(), min(k_top, len(i)))
        valid = valid & (full | (scores.detach() >= least[..., None]))
    p = torch.softmax((q @ k.transpose(-1, -2) * SCALE).masked_fill(~valid[:, None], -1e30), -1)
    out = (p @ v).transpose(1, 2)
    if not index:
        return out, torch.zeros(())
    mean, guess = p.detach().mean(1), torch.log_softmax(scores.masked_fill(~valid, -1e30), -1)
    return out, torch.where(mean > 0, mean * (torch.log(mean.clamp_min(1e-20)) - guess), 0.0).sum(-1).mean()


def compare(name, lengths, sparse, full=False, k_top=8):
    """lengths: of the documents in each row; the last is padding."""
    torch.manual_seed(1)
    doc = torch.stack([torch.repeat_interleave(torch.tensor([*range(len(n) - 1), -1]), torch.tensor(n)) for n in lengths])
    B, T = doc.shape
    bounds = attention.spans(doc)
    for b, row in enumerate(lengths):
        ends = torch.tensor(row).cumsum(0)
        assert bounds[0, b].tolist() == torch.repeat_interleave(ends - torch.tensor(row), torch.tensor(row)).tolist()
        assert bounds[1, b].tolist() == torch.repeat_interleave(ends, torch.tensor(row)).tolist()
    make = lambda *shape: torch.randn(*shape).requires_grad_()
    q, k, v = make(B, HEADS, T, 192), make(B, HEADS, T, 192), make(B, HEADS, T, 128)
    index = [make(B, INDEX_HEADS, T, 128), make(B, T, 128), make(B, T, INDEX_HEADS)] if sparse else []
    g, full = torch.randn(B, T, HEADS, 128), torch.tensor(full)
    results = []
    for fast in (False, True):
        if not fast:
            out, kl = plain(q, k, v, index, doc, full, k_top)
        elif sparse:
            out, kl = attention.sparse(q, k, v, *index, bounds, full, k_top, SCALE)
        else:
            out, kl = attention.dense(q, k, v, bounds, SCALE), torch.zeros(())
        results.append([out, kl, *torch.autograd.grad((out * g).sum() + 3 * kl, [q, k, v, *index])])
    errors = [float((a - b).detach().norm() / a.detach().norm().clamp_min(1e-20)) for a, b in zip(*results)]
    print(name, " ".join(f"{e:.1e}" for e in errors), flush=True)
    assert max(errors) < 2e-6, "sums in another order differ by some 2^-24 a term"


ODD = [[1, 63, 40, 24], [100, 7, 1, 20]]
compare("dense", ODD, False)
compare("sparse", ODD, True)
compare("warm-up", ODD, True, full=True)
compare("all selected", [[128, 0]], True, k_top=128)
