"""Golden vectors for the server's tests: `python -m didi.golden --model FOLDER --out DIR`.

Whole generations by the reference samplers, plain and guided, from the uniforms the server draws too. A generation in
which some uniform falls within 1e-5 of a boundary of the inverse CDF is not a fair test of anything
but rounding, so the next seed is taken instead.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .backbone import Backbone
from .diffusion import Generation, sample
from .discriminator import Discriminator
from .export import load_backbone, load_discriminator
from .guided_oracle import sample_guided
from .guided_sampling import Guidance

MARGIN = 1e-5
TOY_VOCAB = 7
PROMPT = "Once upon a time"
TEXTS = [PROMPT, "", "Lily and Ben went to the park. They", "naïve café 🙂 日本語\n\n  \"Don't,\" he said", "aaaaaaaaaaaa 12345 [MASK] <|endoftext|>"]


def toy_denoiser(tokens: Tensor, where: Tensor | None = None) -> Tensor:
    """Logits by integer arithmetic from the whole canvas, the same in any language."""
    L = tokens.shape[1]
    mix = int((tokens[0] * torch.arange(1, L + 1)).sum()) % 1000
    i, v = torch.arange(L)[:, None], torch.arange(TOY_VOCAB)[None]
    return ((17 * i + 31 * v + 7 * mix) % 23 / 4.0)[None]


def record(generation: Generation, request: dict) -> dict:
    reveals = [[[r.position, r.token, round(r.logprob, 6)] for r in step] for step in generation.steps]
    return {**request, "tokens": generation.tokens, "reveals": reveals}


def golden(denoiser, mask_id: int, cases: list[dict]) -> list[dict]:
    records = []
    for case in cases:
        seed = case["seed"]
        while True:
            generation = sample(denoiser, **{**case, "seed": seed}, mask_id=mask_id)
            if min(generation.margins) >= MARGIN:
                break
            seed += 1
        records.append(record(generation, {**case, "seed": seed}))
    return records


def guided(student: Backbone, discriminator: Discriminator, cases: list[dict]) -> list[dict]:
    """As `golden`, by the guided oracle; each step with its kind, rewards and choice."""
    records = []
    for case in cases:
        settings, seed = dict(case), case["seed"]
        guidance = settings.pop("guidance")
        while True:
            generation = sample_guided(student, discriminator, Guidance(**guidance), **{**settings, "seed": seed})
            if min(generation.margins) >= MARGIN:
                break
            seed += 1
        steps = [
            {"kind": step.kind, "rewards": [round(r, 4) for r in step.rewards], "chosen": step.chosen}
            for step in generation.steps
        ]
        plain = Generation(generation.tokens, [step.revealed for step in generation.steps], generation.margins)
        records.append({**record(plain, {**case, "seed": seed}), "steps_taken": steps})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder with its weights")
    parser.add_argument("--out", type=Path, required=True, help="folder of the golden files")
    parser.add_argument("--only-guided", action="store_true", help="guided generations alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    def case(prompt: list[int], length: int, steps: int, seed: int, temperature: float) -> dict:
        return {"prompt": prompt, "length": length, "steps": steps, "seed": seed, "temperature": temperature}

    backbone = load_backbone(args.model / "weights.fp16.safetensors")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    prompt = tokenizer.encode(PROMPT).ids
    content = {}
    if not args.only_guided:
        toy = [case([2, 0, 5], 20, steps, 2**40 + steps, 1.0) for steps in (1, 4, 16, 64)]
        toy += [case([], 1, 8, 3, 1.0), case([1], 9, 5, 11, 0.5)]
        write(args.out / "toy.json", {"vocab_size": TOY_VOCAB, "generations": golden(toy_denoiser, TOY_VOCAB - 1, toy)})

        cases = [case(prompt, 60, steps, 100 + steps, 1.0) for steps in (1, 4, 16, 64)]
        cases += [case([], 33, 16, 7, 0.7), case(prompt, 40, 8, 9, 0.0)]
        # Short, for every masked position is drawn in every step and each draw has to be a fair one; and not of the toy,
        # whose logits are few numbers: equal log-probabilities decide nothing.
        cases += [{**case(prompt, 12, steps, 21, 1.0), "order": "confidence"} for steps in (1, 3, 6)]
        adaptive = [
            {"order": "entropy"},
            {"order": "confidence", "threshold": 0.3},
            {"order": "entropy", "entropy_budget": 4.0},
            {"order": "confidence", "threshold": 0.3, "block_length": 5},
            {"order": "entropy", "block_length": 4},
            {"block_length": 6},
        ]
        cases += [{**case(prompt, 12, 6, 31, 1.0), **options} for options in adaptive]
        plain = Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))
        content["encodings"] = [{"text": text, "ids": plain.encode(text).ids} for text in TEXTS]
        content["generations"] = golden(backbone, backbone.config.mask_id, cases)
    discriminator = args.model / "discriminator.fp16.safetensors"
    if discriminator.exists():
        model = json.loads((args.model / "model.json").read_text())["guidance"]
        tilting, choosing = {**model, "rerank_ratio": 0.0}, {**model, "rerank_ratio": 1.0, "candidates": 3}
        cases = [{**case(prompt, 60, steps, 200 + steps, 1.0), "guidance": model} for steps in (1, 4, 8, 16)]
        cases += [{**case([], 40, 6, 17, 0.8), "guidance": tilting}, {**case(prompt, 40, 5, 18, 1.0), "guidance": choosing}]
        content["guided"] = guided(backbone, load_discriminator(discriminator), cases)
    write(args.out / f"{args.model.name}.json", content)


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
