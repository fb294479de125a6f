"""Write golden vectors for the server's tests: `python -m didi.tools.golden --model FOLDER --out DIR`.

They are whole samples by the reference samplers, plain or guided. If a uniform of a sample falls
within 1e-5 of a boundary of the inverse CDF, rounding could decide the token, so the next seed is taken
instead.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..backbone import Backbone, load_backbone
from ..command import command_parser
from ..guidance import Discriminator, Guidance, load_discriminator
from .oracle import Remask, Sample, choice_scores, sample, sample_guided, sample_smc

MARGIN = 1e-5
TOY_VOCAB = 7
PROMPT = "Once upon a time"
TEXTS = [
    PROMPT,
    "",
    "Lily and Ben went to the park. They",
    'naïve café 🙂 日本語\n\n  "Don\'t," he said',
    "aaaaaaaaaaaa 12345 [MASK] <|endoftext|>",
]
# Templates, and their parts: texts, numbers of masks, and options.
CHOICES = [
    (
        "The {{choice:dog|old crocodile|spoon}} barked at the cat.",
        ["The", [" dog", " old crocodile", " spoon"], " barked at the cat."],
    ),
    (
        "{{choice:Tom|Lily}} was a girl. {{choice:She|He}} had a{{mask:2}}.",
        [["Tom", "Lily"], " was a girl.", [" She", " He"], " had a", 2, "."],
    ),
]


def toy_denoiser(tokens: Tensor, where: Tensor | None = None) -> Tensor:
    """Return logits by integer arithmetic from the whole canvas, which any language can repeat."""
    L = tokens.shape[1]
    mix = int((tokens[0] * torch.arange(1, L + 1)).sum()) % 1000
    i, v = torch.arange(L)[:, None], torch.arange(TOY_VOCAB)[None]
    return ((17 * i + 31 * v + 7 * mix) % 23 / 4.0)[None]


def record(generate: Callable[..., Sample], request: dict) -> dict:
    """Return the request with the first seed, from its own on, that is unambiguous, and its sample."""
    while True:
        drawn = generate(**request)
        if min(drawn.margins) >= MARGIN:
            break
        request = {**request, "seed": request["seed"] + 1}
    reveals = [[[r.position, r.token, round(r.logprob, 6)] for r in s.revealed] for s in drawn.steps]
    result = {**request, "tokens": drawn.tokens, "reveals": reveals}
    if "remask" in request:
        result["remasked"] = [step.remasked for step in drawn.steps]
    if "guidance" in request:
        taken = result["steps_taken"] = []
        for step in drawn.steps:
            rewards = [round(reward, 4) for reward in step.rewards]
            taken.append({"kind": step.kind, "rewards": rewards, "chosen": step.chosen})
    return result


def record_smc(backbone: Backbone, discriminator: Discriminator, request: dict) -> dict:
    """Return the request with the first unambiguous seed, and its sample by sequential Monte Carlo."""
    settings = {key: value for key, value in request.items() if key != "weight"}
    while True:
        score = lambda canvases: request["weight"] * discriminator(canvases).sum(-1)  # noqa: E731
        result = sample_smc(backbone, score, **settings)
        if min(result.margins) >= MARGIN:
            break
        settings["seed"] += 1
    taken = [
        {"rewards": [round(r, 4) for r in s.rewards], "ess": round(s.ess, 5), "ancestors": s.ancestors}
        for s in result.steps
    ]
    return {**request, **settings, "tokens": result.tokens, "chosen": result.chosen, "steps_taken": taken}


def case(prompt: list[int], length: int, steps: int, seed: int, temperature: float) -> dict:
    sizes = {"prompt": prompt, "length": length, "steps": steps, "seed": seed}
    return {**sizes, "temperature": temperature, "order": "random"}


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder with its weights")
    parser.add_argument("--out", type=Path, required=True, help="folder of the golden files")
    parser.add_argument("--guided", action="store_true", help="write guided samples instead of plain ones")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    backbone = load_backbone(args.model / "weights.fp16.safetensors")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    prompt = tokenizer.encode(PROMPT).ids
    content = {}
    if not args.guided:
        cases = [case([2, 0, 5], 20, steps, 2**40 + steps, 1.0) for steps in (1, 4, 16, 64)]
        cases += [case([], 1, 8, 3, 1.0), case([1], 9, 5, 11, 0.5)]
        cases += [{**case([2, 0, 5], 20, steps, steps, 1.0), "order": "spread"} for steps in (1, 6, 32)]
        toy = lambda **request: sample(toy_denoiser, mask_id=TOY_VOCAB - 1, **request)  # noqa: E731
        samples = [record(toy, c) for c in cases]
        write(args.out / "toy.json", {"vocab_size": TOY_VOCAB, "samples": samples})

        cases = [case(prompt, 60, steps, 100 + steps, 1.0) for steps in (1, 4, 16, 64)]
        cases += [case([], 33, 16, 7, 0.7), case(prompt, 40, 8, 9, 0.0)]
        cases += [{**case(prompt, 45, steps, 60 + steps, 1.0), "order": "spread"} for steps in (7, 64)]
        cases.append({**case(prompt, 40, 9, 61, 1.0), "order": "spread", "block_length": 15})
        # In the orders other than these every masked position is drawn at every step, and each draw has to
        # be unambiguous: so these are short. They are not of the toy, whose few different logits would give
        # equal log-probabilities.
        cases += [{**case(prompt, 12, steps, 21, 1.0), "order": "confidence"} for steps in (1, 3, 6)]
        adaptive = [
            {"order": "entropy"},
            {"order": "margin"},
            {"order": "confidence", "threshold": 0.3},
            {"order": "entropy", "entropy_budget": 4.0},
            {"order": "confidence", "threshold": 0.3, "block_length": 5},
            {"order": "entropy", "block_length": 4},
            {"block_length": 6},
        ]
        cases += [{**case(prompt, 12, 6, 31, 1.0), **options} for options in adaptive]
        remasking = [
            {"remask": {"mode": "random", "rate": 0.2, "from": 0, "to": 1}},
            {"remask": {"mode": "confidence", "rate": 0.2, "from": 0.25, "to": 0.75}},
            {"remask": {"mode": "random", "rate": 0.5, "from": 0, "to": 1}, "block_length": 6},
        ]
        cases += [{**case(prompt, 12, 8, 41, 1.0), **options} for options in remasking]
        cases.append({**case(prompt, 12, 8, 41, 1.0), "order": "spread", **remasking[0]})
        short = {**case(prompt, 6, 5, 51, 1.0), "order": "confidence"}
        cases.append({**short, "remask": {"mode": "confidence", "rate": 0.5, "from": 0, "to": 1}})
        plain = Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))
        content["encodings"] = [{"text": text, "ids": plain.encode(text).ids} for text in TEXTS]

        def generate(remask: dict | None = None, **request) -> Sample:
            again = remask and Remask(remask["mode"], remask["rate"], remask["from"], remask["to"])
            return sample(backbone, mask_id=backbone.config.mask_id, remask=again, **request)

        content["samples"] = [record(generate, c) for c in cases]

        def ids(part: str | int | list[str]) -> list:
            if isinstance(part, int):
                return [backbone.config.mask_id] * part
            return plain.encode(part).ids if isinstance(part, str) else [plain.encode(o).ids for o in part]

        content["choices"] = []
        for template, parts in CHOICES:
            scores = choice_scores(backbone, list(map(ids, parts)), backbone.config.mask_id)
            content["choices"].append({"template": template, "scores": [round(score, 5) for score in scores]})
    else:
        discriminator = load_discriminator(args.model / "discriminator.fp16.safetensors")

        def guided(guidance: dict, **request) -> Sample:
            return sample_guided(backbone, discriminator, Guidance(**guidance), **request)

        defaults = json.loads((args.model / "model.json").read_text())["guidance"]
        tilting = {**defaults, "rerank_ratio": 0.0}
        choosing = {**defaults, "rerank_ratio": 1.0, "candidates": 3}
        cases = [{**case(prompt, 60, n, 200 + n, 1.0), "guidance": defaults} for n in (1, 4, 8, 16)]
        cases.append({**case([], 40, 6, 17, 0.8), "guidance": tilting})
        cases.append({**case(prompt, 40, 5, 18, 1.0), "guidance": choosing})
        mixed = {**defaults, "rerank_ratio": 0.5}
        cases.append({**case(prompt, 40, 6, 19, 1.0), "order": "spread", "guidance": mixed})
        content["guided"] = [record(guided, c) for c in cases]
        settings = [(4, 0.5, 1.0), (3, 1.0, 4.0), (5, 0.0, 1.0), (6, 0.8, 0.3)]
        names = ("particles", "resample_below", "weight")
        cases = [
            {**case(prompt, 24, steps, 300 + steps, 1.0), **dict(zip(names, setting))}
            for steps, setting in zip((1, 5, 12, 40), settings)
        ]
        cases.append({**cases[3], "steps": 12, "order": "spread"})
        content["smc"] = [record_smc(backbone, discriminator, c) for c in cases]
    write(args.out / f"{args.model.name}.json", content)


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
