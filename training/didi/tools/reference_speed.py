"""Time the published sampler, to compare the server with: `python -m didi.tools.reference_speed --weights
FILE`.

Every step runs the network on every position with full logits [B, L, V], and draws at every masked position.
Reads jobs from standard input, each a line of JSON, and answers each with a line: the seconds it took. Jobs:

    {"job": "sample", "rows": 1, "length": 128, "steps": 16}
    {"job": "products", "rows": 1, "length": 128, "picks": 8}

`products` times the matrix products alone of one step whose last block and head run at `picks` positions a
row: the least time that a step can take at this machine's rate.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from ..backbone import Backbone, BackboneConfig, load_backbone
from ..command import command_parser
from ..convert import load_checkpoint
from ..diffusion import categorical, grid, stay_probability, subs

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@torch.no_grad()
def sample_straight(model: Backbone, rows: int, length: int, steps: int) -> Tensor:
    """Return ids [rows, length] from empty canvases, with a pass for each step and a clean-up pass."""
    mask_id = model.config.mask_id
    device = next(model.parameters()).device
    z, times = torch.full((rows, length), mask_id, device=device), grid(steps)
    for step in range(steps + 1):
        if step == steps and not (z == mask_id).any():
            break
        drawn = categorical(subs(model(z), mask_id))
        revealed = torch.rand(z.shape, device=device) >= stay_probability(times, step)
        z = torch.where((z == mask_id) & revealed, drawn, z)
    return z


def products(config: BackboneConfig, rows: int, length: int, picks: int) -> list[tuple[int, int, int, int]]:
    """Return the products of a step as (count, m, k, n): `count` times [m, k] @ [k, n]."""
    d, wide, head = config.hidden, config.mlp_ratio * config.hidden, config.hidden // config.heads
    everywhere, picked = rows * length, rows * picks
    heads = rows * config.heads
    attention = [(1, everywhere, d, 3 * d), (heads, length, head, length), (heads, length, length, head)]
    rest = lambda m: [(1, m, d, d), (1, m, d, wide), (1, m, wide, d)]  # noqa: E731
    blocks = config.blocks * attention + (config.blocks - 1) * rest(everywhere) + rest(picked)
    return [*blocks, (1, picked, d, config.vocab_size)]


def wait_for(device: str) -> None:
    """Wait until a GPU has done what was sent to it."""
    if device == "cuda":
        torch.cuda.synchronize()


def time_products(shapes: list[tuple[int, int, int, int]], device: str, dtype: torch.dtype) -> float:
    """Return the seconds of all products, each with a matrix of its own, as layers have them."""
    new = {"device": device, "dtype": dtype}
    operands = [
        (torch.randn(c, m, k, **new), torch.randn(c, k, n, **new), torch.empty(c, m, n, **new))
        for c, m, k, n in shapes
    ]
    wait_for(device)
    started = time.perf_counter()
    for left, right, out in operands:
        if len(left) == 1:
            torch.mm(left[0], right[0], out=out[0])
        else:
            torch.bmm(left, right, out=out)
    wait_for(device)
    return time.perf_counter() - started


def main() -> None:
    parser = command_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="weights.fp16.safetensors of a model folder")
    source.add_argument("--checkpoint", type=Path, help="folder of a published checkpoint")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network runs")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the matrix products")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, dtype = args.device, DTYPES[args.dtype]
    model = load_backbone(args.weights) if args.weights else load_checkpoint(args.checkpoint, "mdlm")[0]
    model.to(device)
    where = torch.cuda.get_device_name() if device == "cuda" else device
    print(json.dumps({"torch": torch.__version__, "threads": args.threads, "device": where}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        sizes = {name: job[name] for name in ("rows", "length")}
        started = time.perf_counter()
        if job["job"] == "sample":
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                sample_straight(model, **sizes, steps=job["steps"])
            wait_for(device)
            seconds = time.perf_counter() - started
        else:
            seconds = time_products(products(model.config, **sizes, picks=job["picks"]), device, dtype)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
