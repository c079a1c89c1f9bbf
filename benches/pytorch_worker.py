"""The PyTorch side of `benches/compare.py`: the same tasks as `benches/worker.rs`, one a line, answered with seconds and a number to check."""

import sys
import time

import torch
import torch.nn.functional as F

threads = int(next(a for a in sys.argv if a.startswith("--threads=")).split("=")[1])
torch.set_num_threads(threads)


def numbers(count, factor, scale, *shape):
    i = torch.arange(count, dtype=torch.int64)
    return (((i * factor % 1009).float() / 1009.0 - 0.5) * scale).reshape(*shape)


def sgemm(layout, m, k, n):
    a, b = numbers(m * k, 7919, 1.0, m * k), numbers(k * n, 104_729, 1.0, k * n)
    a = a.reshape(k, m).t() if layout == "TN" else a.reshape(m, k)
    b = b.reshape(n, k).t() if layout == "NT" else b.reshape(k, n)
    c = torch.empty(m, n)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < 0.15:
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        best = min(best, time.perf_counter() - start)
    return best, c.double().sum().item()


class Block(torch.nn.Module):
    def __init__(self, d, heads, ff):
        super().__init__()
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.RMSNorm(d, eps=1e-5), torch.nn.RMSNorm(d, eps=1e-5)
        self.q, self.k, self.v, self.o = linear(d, d), linear(d, d), linear(d, d), linear(d, d)
        self.gate, self.up, self.down = linear(d, ff), linear(d, ff), linear(ff, d)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        h = self.norm1(x)
        split = lambda y: y.view(b, t, self.heads, d // self.heads).transpose(1, 2)
        q, k, v = split(self.q(h)), split(self.k(h)), split(self.v(h))
        half = q.shape[-1] // 2
        turn = lambda y: y * cos + torch.cat((-y[..., half:], y[..., :half]), -1) * sin
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(torch.nn.Module):
    def __init__(self, layers, d, heads, ff, vocab, seq):
        super().__init__()
        self.embed = torch.nn.Embedding(vocab, d)
        self.blocks = torch.nn.ModuleList(Block(d, heads, ff) for _ in range(layers))
        self.norm = torch.nn.RMSNorm(d, eps=1e-5)
        self.head = torch.nn.Linear(d, vocab, bias=False)
        size = d // heads
        angles = torch.outer(torch.arange(seq).double(), 10_000.0 ** (-torch.arange(0, size, 2).double() / size))
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.ones_like(p) if p.dim() == 1 else numbers(p.numel(), 7919, 0.07, *p.shape))

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


class Session:
    def __init__(self, shape, compiled):
        layers, d, heads, ff, vocab, seq, batch = shape[:7]
        self.model = Llama(layers, d, heads, ff, vocab, seq)
        self.teacher = Llama(*shape[7:11], vocab, seq).eval() if len(shape) > 7 else None
        i, s = torch.arange(seq + 1), torch.arange(batch)[:, None]
        tokens = (s * 7919 + i * i * 31 + i * 17) % vocab
        self.x, self.y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.forward_teacher = self.teacher and (torch.compile(self.teacher) if compiled else self.teacher)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward(self.x).flatten(0, 1)
        if self.teacher is None:
            loss = F.cross_entropy(logits, self.y.flatten())
        else:
            with torch.no_grad():
                log_p = F.log_softmax(self.forward_teacher(self.x).flatten(0, 1) / 2.0, -1)
            loss = F.kl_div(F.log_softmax(logits / 2.0, -1), log_p, log_target=True, reduction="batchmean") * 4.0
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


session, known = None, None
for line in sys.stdin:
    words = line.split()
    if words[0] == "sgemm":
        seconds, check = sgemm(words[1], *map(int, words[2:]))
    else:
        if known != line:
            known, session = line, Session([int(w) for w in words if w.isdigit()], "--compile" in sys.argv)
        start = time.perf_counter()
        check = session.step()
        seconds = time.perf_counter() - start
    print(f"{seconds:e} {check:e}", flush=True)
