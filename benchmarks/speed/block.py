"""The SSA block: written out, ours, and the matrix products alone; time and memory.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.block
    python -m benchmarks.speed.block --device cuda --dtype bf16

The first writes the rows of the CPU into benchmarks/results/block.json, the second those of the GPU; each leaves the
others' rows as they are. Forms of the block, all with e = c and the same weights:

- ``naive``: eq. 4 to 8 written out with full (p, p) matrices, convolutions and plain autograd, channels first;
- ``ours``: ``ssan.layers.SeparableSelfAttention``, on features in channels-last memory, as our networks pass them;
- ``products``: the block's matrix products and nothing else, into memory that is there already: four 1x1 projections,
  both products with the (p, p) matrix, both of the channel branch, the convolution over time as one product, both of
  the attention over frames. The (p, p) products are taken 256 rows at a time, which is faster than whole matrices
  (``products_whole``, as a plain implementation takes them); ``products_positions`` is these two alone, 4 p^2 e
  operations a frame. No softmax, no sum, no normalisation. Backward counts two products for each, and one more for the
  (p, p) similarities, which a form that does not keep them takes again;
- ``products_exponentials``: the same, and ``torch.exp`` of every (p, p) similarity, once forward and once backward, as
  a form needs them that does not keep the (p, p) matrices (a fused kernel can take them faster).

Tried on the CPU at Res2 and left, for nothing was gained: a backward of the position branch of our own, in blocks of 96
to 392 rows or of tiles, with large products and recomputed exponentials (0.94 to 1.1 of the time of the kernel behind
``scaled_dot_product_attention``); the same with ``torch.softmax``, three times as fast as ``torch.exp``, and with the
exponentials of two to five of the eight frames kept from the forward pass, which the time for fresh memory eats up;
forward, the convolution over time as products of shifted frames (1.2 of the convolution's; backward, where it is 0.25,
it is what the block does), as one product of three stacked frames (1.2); 1x1 convolutions in the place of ``Linear``,
and one projection three times as wide.

Time is processor time, one thread, forms interleaved, so that other work on the machine disturbs it little. Memory is
the peak of a fresh process during one call (VmHWM, set back through /proc/self/clear_refs) over what it held before,
less the output and, backward, less the input's gradient.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import RESULTS, interleaved, ratio, store, summary
from ssan.layers import SeparableSelfAttention

OUT = RESULTS / "block.json"
ROWS_AT_ONCE = 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Shape:
    """Features of one stage, (b, t, c, h, w); e = c."""

    name: str
    b: int
    t: int
    c: int
    h: int
    w: int

    def words(self) -> str:
        return f"{self.t}x{self.h}x{self.w}x{self.c}"


CPU_SHAPES = [
    Shape("Res2", 1, 8, 64, 56, 56),
    Shape("Res3", 1, 8, 128, 28, 28),
    Shape("Res3, first block", 1, 8, 128, 56, 56),
]
GPU_SHAPES = [
    Shape(name, b, t, c, side, side)
    for name, c, side in (("Res2", 64, 56), ("Res3", 128, 28))
    for t in (8, 16)
    for b in (8, 16, 32, 64)
]


def naive(block: SeparableSelfAttention, x: Tensor) -> Tensor:
    """Equations 4 to 8 as they are printed, every matrix in memory."""
    b, t, _, h, w = x.shape
    e, p = block.embedding, h * w

    def embed(layer: nn.Linear) -> Tensor:
        return F.conv2d(x.flatten(0, 1), layer.weight[:, :, None, None], layer.bias).flatten(2)  # (bt, e, p)

    theta, phi, g = embed(block.theta), embed(block.phi), embed(block.g)
    positions = (theta.transpose(1, 2) @ phi / math.sqrt(e)).softmax(dim=-1)  # M_P (bt, p, p)
    channels = (theta @ phi.transpose(1, 2) / math.sqrt(p)).softmax(dim=-1)  # M_C (bt, e, e)
    a = (positions @ g.transpose(1, 2)).transpose(1, 2) + channels @ g
    embedded = F.conv2d(
        a.unflatten(0, (b, t)).transpose(1, 2), block.temporal.weight, block.temporal.bias, padding=(1, 0)
    )
    theta_t, phi_t = (z.transpose(1, 2).flatten(2) for z in embedded.chunk(2, dim=1))  # (b, t, ep)
    frames = (theta_t @ phi_t.transpose(1, 2) / math.sqrt(p * e)).softmax(dim=-1)  # M_T (b, t, t)
    y = (frames @ g.unflatten(0, (b, t)).flatten(2)).view(b * t, e, h, w)
    assert block.out is not None
    z = F.conv2d(y, block.out.weight[:, :, None, None])
    return x + block.norm(z).unflatten(0, (b, t))


class NonLocal3D(nn.Module):
    """A 3-D non-local block over all t p positions at once, by ``scaled_dot_product_attention``; e = c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c, h, w = x.shape
        q, k, v = (z.unsqueeze(1) for z in self.qkv(x.permute(0, 1, 3, 4, 2).flatten(1, 3)).chunk(3, dim=-1))
        y = self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + self.norm(y.view(-1, c, 1, 1)).view(b, t, h, w, c).permute(0, 1, 4, 2, 3)


class Products:
    """The products of one block as (a, b, out) triples; (p, p) outputs share one piece of memory.

    Without b it is the exponentials of a.
    """

    def __init__(
        self, shape: Shape, rows_at_once: int | None, *, only_positions: bool = False, exponentials: bool = False
    ) -> None:
        n, p, e = shape.b * shape.t, shape.h * shape.w, shape.c
        rows_at_once = rows_at_once or p
        # Similarities of about 1: their exponentials are plain numbers.
        positions, wide = torch.randn(n * p, e) * e**-0.25, torch.randn(n * p, 3 * e)
        frames = torch.randn(shape.b, shape.t, p * e)
        weight, taps = torch.randn(e, e), torch.randn(3 * e, 2 * e)
        out, out_two, out_weight = torch.empty(n * p, e), torch.empty(n * p, 2 * e), torch.empty(e, e)
        out_wide, out_taps, d_two = torch.empty(n * p, 3 * e), torch.empty(3 * e, 2 * e), torch.randn(n * p, 2 * e)
        maps, out_maps = positions.view(n, p, e), out.view(n, p, e)
        channels, out_channels = torch.randn(n, e, e), torch.empty(n, e, e)
        over_frames, out_frames = torch.randn(shape.b, shape.t, shape.t), torch.empty(shape.b, shape.t, shape.t)
        affinity = torch.rand(rows_at_once, p)

        projections = [(positions, weight, out)] * 4
        channel_branch = [(maps.mT, maps, out_channels), (maps, channels, out_maps)]
        over_time = [(wide, taps, out_two)]
        attention = [(frames, frames.mT, out_frames), (over_frames, frames, out.view_as(frames))]
        self.forward: list[tuple[Tensor, Tensor | None, Tensor]] = projections + channel_branch + over_time + attention
        self.backward = (
            [(positions, weight, out), (positions.t(), positions, out_weight)] * 4
            + [(maps, channels, out_maps)] * 3
            + [(maps.mT, maps, out_channels)]
            + [(d_two, taps.t(), out_wide), (wide.t(), d_two, out_taps)]
            + [(over_frames, frames, out.view_as(frames))] * 3
            + [(frames, frames.mT, out_frames)]
        )
        if only_positions:
            self.forward, self.backward = [], []
        for i in range(n):
            for start in range(0, p, rows_at_once):
                rows = slice(start, min(start + rows_at_once, p))
                similar = (maps[i, rows], maps[i].t(), affinity[: rows.stop - start])
                gather = (affinity[: rows.stop - start], maps[i], out_maps[i, rows])
                scatter = (affinity[: rows.stop - start].t(), maps[i, rows], out_maps[i])
                exponential = [(similar[2], None, similar[2])] if exponentials else []
                self.forward += [similar, *exponential, gather]
                self.backward += [similar, *exponential, scatter, similar, gather, scatter]

    @torch.no_grad()
    def __call__(self, backward: bool) -> None:
        for a, b, out in self.forward + (self.backward if backward else []):
            if b is None:
                torch.exp(a, out=out)
            else:
                torch.matmul(a, b, out=out)


def features(shape: Shape, form: str, device: str, dtype: torch.dtype) -> Tensor:
    """Random features in the memory layout that suits the form."""
    layout = torch.contiguous_format if form == "naive" else torch.channels_last
    torch.manual_seed(0)
    x = torch.randn(shape.b * shape.t, shape.c, shape.h, shape.w, device=device, dtype=dtype)
    return x.contiguous(memory_format=layout).unflatten(0, (shape.b, shape.t))


def make_call(shape: Shape, form: str, backward: bool, device: str = "cpu", dtype: str = "fp32") -> Callable[[], Any]:
    """One call of ``form``, in training: forward, or forward and backward to input and parameters."""
    if form.startswith("products"):
        rows_at_once = None if form == "products_whole" else ROWS_AT_ONCE
        products = Products(
            shape,
            rows_at_once,
            only_positions=form == "products_positions",
            exponentials=form == "products_exponentials",
        )
        return lambda: products(backward)
    torch.manual_seed(0)
    module: nn.Module = NonLocal3D(shape.c) if form == "non-local 3-D" else SeparableSelfAttention(shape.c)
    module = module.to(device, DTYPES[dtype])
    x = features(shape, form, device, DTYPES[dtype]).requires_grad_(backward)
    returned = features(shape, form, device, DTYPES[dtype])

    def call() -> tuple[Tensor, Tensor | None]:
        with torch.set_grad_enabled(backward):
            y = naive(module, x) if form == "naive" else module(x)  # type: ignore[arg-type]
            if backward:
                x.grad = None
                module.zero_grad()
                y.backward(returned)
        return y, x.grad

    return call


def memory_mb(shape: Shape, form: str, backward: bool) -> float | None:
    """Peak memory of one call over what was there before, in a process of its own; None where there is no /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    job = json.dumps({"shape": vars(shape), "form": form, "backward": backward})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.block", "--memory", job],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure_memory(job: dict[str, Any]) -> float:
    """Run in the child: the call of ``memory_mb``, in MB of 10^6 bytes."""
    make_call(Shape("", 1, 2, 8, 4, 4), job["form"], job["backward"])()  # libraries set themselves up
    call = make_call(Shape(**job["shape"]), job["form"], job["backward"])

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    y, gradient = call()
    kept = sum(z.numel() * z.element_size() for z in (y, gradient) if z is not None)
    return round((status("VmHWM") - before - kept) / 1e6, 1)


def cpu_row(shape: Shape, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"shape": shape.name, "size": shape.words(), "rounds": rounds}
    for name, backward in (("forward", False), ("forward_backward", True)):
        forms = ["naive", "ours", "products", "products_exponentials", "products_whole", "products_positions"]
        seconds = interleaved({form: make_call(shape, form, backward) for form in forms}, rounds)
        memory = {form: memory_mb(shape, form, backward) for form in ("naive", "ours")}
        row[name] = {
            "ours_over_products": ratio(seconds, "ours", "products"),
            "ours_over_products_whole": ratio(seconds, "ours", "products_whole"),
            "ours_over_products_positions": ratio(seconds, "ours", "products_positions"),
            "ours_over_naive": ratio(seconds, "ours", "naive"),
            "products_over_naive": ratio(seconds, "products", "naive"),
            "products_exponentials_over_naive": ratio(seconds, "products_exponentials", "naive"),
            "seconds": {form: summary(values) for form, values in seconds.items()},
            "extra_memory_mb": memory,
        }
        print(shape.name, name, json.dumps(row[name]), flush=True)
    return row


def multiply_adds(shape: Shape, form: str) -> int:
    """Multiply-adds of one forward; of a backward without anything taken twice, twice as many."""
    n, p, e = shape.b * shape.t, shape.h * shape.w, shape.c
    if form == "non-local 3-D":
        return 4 * n * p * e * e + 2 * shape.b * (shape.t * p) ** 2 * e
    return n * (2 * p * p * e + (4 + 2 + 6) * p * e * e) + 2 * shape.b * shape.t**2 * p * e


def ceiling(dtype: str, rounds: int) -> float:
    """Multiply-adds a second of a large square product: what the matrix units give."""
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=DTYPES[dtype]) for _ in range(2))
    return side**3 / min(interleaved({"matmul": lambda: a @ b}, rounds, "cuda")["matmul"])


def gpu_rows(dtype: str, rounds: int, shapes: list[Shape] = GPU_SHAPES) -> list[dict[str, Any]]:
    """Each shape and direction on the GPU; a form that does not fit into its memory has None."""
    most, rows = ceiling(dtype, rounds), []
    for shape in shapes:
        for name, backward in (("forward", False), ("forward_backward", True)):
            row: dict[str, Any] = {"shape": shape.name, "size": shape.words(), "batch": shape.b, "pass": name}
            for form in ("ours", "naive", "non-local 3-D"):
                row[form] = None
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                try:
                    call = make_call(shape, form, backward, "cuda", dtype)
                    seconds = interleaved({form: call}, rounds, "cuda")[form]
                except torch.OutOfMemoryError:
                    continue
                work = multiply_adds(shape, form) * (3 if backward else 1)
                row[form] = {
                    **summary(seconds),
                    "share_of_ceiling": round(work / min(seconds) / most, 3),
                    "peak_mb": round(torch.cuda.max_memory_allocated() / 1e6),
                }
                del call
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16", help="on the GPU; the CPU takes fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", choices=[shape.name for shape in CPU_SHAPES])
    parser.add_argument("--memory", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(measure_memory(arguments.memory))
        return
    if arguments.device == "cpu":
        shapes = [shape for shape in CPU_SHAPES if not arguments.shapes or shape.name in arguments.shapes]
        rows = [cpu_row(shape, arguments.rounds) for shape in shapes]
    else:
        rows = gpu_rows(arguments.dtype, arguments.rounds)
    store(OUT, arguments.device, {"dtype": arguments.dtype if arguments.device == "cuda" else "fp32"}, rows)


if __name__ == "__main__":
    main()
