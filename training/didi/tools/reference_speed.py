"""Time the published sampler, to compare the server with: `python -m didi.tools.reference_speed --weights
FILE`.

Every step runs the network on every position with full logits [B, L, V], and draws at every masked position.
Reads jobs from standard input, each a line of JSON, and answers each with a line: the seconds it took. Jobs:

    {"job": "sample", "rows": 1, "length": 128, "steps": 16}
    {"job": "products", "rows": 1, "length": 128, "picks": 8, "int8": false}

`products` times the matrix products alone of one step whose last block and head run at `picks` positions a
row: the least time that a step can take at this machine's rate (graphs/products.py).
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from ..backbone import Backbone, load_backbone
from ..command import command_parser
from ..convert import load_checkpoint
from ..diffusion import categorical, grid, stay_probability, subs
from ..graphs.products import int8_products, shapes_of_step, time_products, wait_for

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
            shapes = shapes_of_step(model.config, **sizes, picks=job["picks"])
            if job.get("int8"):
                seconds = int8_products(tuple(shapes), args.threads)()
            else:
                seconds = time_products(shapes, device, dtype)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
