"""The graph `denoise`: the backbone with the output head at picked positions only, and the draw inside.

No logits leave the graph: a sequence of full logits at the published sizes is 206 MB.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Backbone
from .blocks import ALIGNMENT, IMPOSSIBLE, AdaptiveNorm, AffineNorm, Stored, Trunk, product

# Values of the manifest's field `mask_logit` (models/model.schema.json).
MASK_LOGITS = ("removed", "kept")

# Cuts are looked for among so many of the likeliest tokens, then among all: to sort a vocabulary of 4,096 for
# each draw takes as long as half of a pass of a small model.
LIKELIEST = (128, 1024)


def cut(weights: Tensor, top_k: Tensor, top_p: Tensor, among: int) -> tuple[Tensor, Tensor]:
    """Return weights [S, V] with 0 outside the top_k [S] and top_p [S] of each row, and [S] whether all that
    stays is `among` the so many largest of the row; of another row some may be missing.

    Of a row stay the top_k largest (0: all; among equals those of lower id), and of these the fewest, largest
    first, that add up to at least the share top_p. If none is missing, the bits do not depend on `among`.
    """
    size = weights.shape[1]
    ordered, order = torch.topk(weights, among, dim=-1)
    rank = torch.arange(among, device=weights.device)
    k = torch.where(top_k > 0, top_k, size).clamp(max=size)
    ordered = torch.where(rank < k[:, None], ordered, 0.0)
    mass = ordered.cumsum(dim=-1)
    total = torch.where(top_k[:, None] > 0, mass[:, -1:], weights.cumsum(dim=-1)[:, -1:])
    # Above 1, so that rounding removes nothing from a row with top_p = 1.
    bound = torch.where(top_p < 1, top_p, 2.0)[:, None] * total
    ordered = torch.where((mass - ordered < bound) | (rank == 0), ordered, 0.0)
    whole = (k <= among) | ((top_k == 0) & (mass[:, -1:] >= bound)[:, 0])
    return torch.zeros_like(weights).scatter(1, order, ordered), whole


def cut_asked(weights: Tensor, asked: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return weights [S, V] with the rows that are true in `asked` [S] cut (see `cut`).

    The first of them is cut each time, because ONNX Runtime's TopK of no rows crashes (1.30), and a branch
    for it would copy its condition from the GPU to the CPU. Some row must be true.
    """
    size, kept, rows = weights.shape[1], weights, asked.nonzero()[:, 0]
    for among in (*(count for count in LIKELIEST if count < size), size):
        some, whole = cut(weights[rows], top_k[rows], top_p[rows], among)
        kept = kept.index_copy(0, rows, some)
        rows = rows[~whole | (rows == rows[:1])]
    return kept


def draw_tokens(log_p: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Draw tokens [S] from log_p [S, V] by inverse CDF: the first whose cumulative weight reaches uniform
    [S].

    The distribution is sharpened by temperature [S] (0: argmax), then cut to top_k [S] and top_p [S].
    """
    scores = (log_p - log_p.amax(dim=-1, keepdim=True)) / temperature.clamp(min=1e-6)[:, None]
    weights, asked = scores.exp(), (top_k > 0) | (top_p < 1)
    if torch.compiler.is_exporting():
        uncut = lambda weights, *_: weights.clone()
        weights = torch.cond(asked.any(), cut_asked, uncut, (weights, asked, top_k, top_p))
    elif asked.any():
        weights = cut_asked(weights, asked, top_k, top_p)
    cdf = weights.cumsum(dim=-1)
    below = (cdf < uniform[:, None] * cdf[:, -1:]).sum(dim=-1)
    return torch.where(temperature > 0, below, log_p.argmax(dim=-1))


def draws_of(
    logits: Tensor,
    draws: Tensor,
    uniform: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    alternatives: Tensor,
) -> tuple[Tensor, ...]:
    """Return the outputs of `denoise` for logits [P, V padded]."""
    # One kernel a row: a separate log of a column of sums would be rounded by its place in the column.
    log_p = torch.log_softmax(logits, dim=-1)
    entropy = -(log_p.exp() * log_p).sum(dim=-1)

    drawn = log_p[draws]
    token = draw_tokens(drawn, uniform, temperature, top_k, top_p)
    logprob = drawn.gather(-1, token[:, None])[:, 0]
    top = log_p.topk(alternatives.shape[0], dim=-1)
    return token, logprob, entropy, top.indices, top.values


class Denoise(nn.Module):
    """The module behind the graph `denoise`.

    Inputs: tokens [B, L] int64, length [B], picks [P, 2] (row, position), draws [S] (index into picks),
    uniform [S], temperature [S], top_k [S] int64 (0: all), top_p [S] (1: all), alternatives [K] int64, of
    which only the size is read. Outputs: token [S] int64, logprob [S], entropy [P] (nats, at temperature 1),
    top_token [P, K] int64 and top_logprob [P, K], the K most likely tokens, best first.

    `logprob` is that of the drawn token under p(x0 | z_t) itself, however the draw was sharpened or cut.
    Temperature 0 takes the most likely token. In the last block only the picked positions reach projection,
    MLP and head.

    With `conditioning` "sigma" there is one more input, sigma [B]. With `mask_logit` "removed" the mask is
    never drawn (SUBS). With "kept" its logit is the network's plus one more input, mask_bias [B]: -1e9 gives
    SUBS, and a draw that yields the mask leaves its position masked.
    """

    INPUTS = ("tokens", "length", "picks", "draws", "uniform", "temperature", "top_k", "top_p")
    INPUTS += ("alternatives",)
    OUTPUTS = ("token", "logprob", "entropy", "top_token", "top_logprob")
    MATRICES = ("head",)

    def __init__(self, backbone: Backbone, conditioning: str = "none", mask_logit: str = "removed"):
        super().__init__()
        if mask_logit not in MASK_LOGITS:
            raise ValueError(f"mask_logit must be one of {MASK_LOGITS}, not {mask_logit!r}")
        self.inputs = self.INPUTS + quirk_inputs(conditioning, mask_logit)
        self.trunk = Trunk(backbone, conditioning)
        with torch.no_grad():
            layer = backbone.output_layer
            if conditioning == "none":
                shift, scale = layer.adaLN_modulation(backbone.condition(torch.zeros(1)))[0].chunk(2)
                self.norm = AffineNorm(layer.norm_final.weight, shift, scale)
            else:
                self.norm = AdaptiveNorm(layer.norm_final.weight, layer.adaLN_modulation)
            head, bias = layer.linear.weight.clone(), layer.linear.bias.clone()
            at_mask = (torch.arange(len(head)) == backbone.config.mask_id).float()
            if mask_logit == "removed":
                head[-1], bias[-1] = 0, IMPOSSIBLE
            pad = -len(head) % ALIGNMENT
            self.head = nn.Parameter(F.pad(head, (0, 0, 0, pad)).T.contiguous())
            self.head_bias = nn.Parameter(F.pad(bias, (0, pad), value=IMPOSSIBLE))
            if mask_logit == "kept":
                self.register_buffer("at_mask", F.pad(at_mask, (0, pad)))
            self.head_factor = 1 - at_mask if mask_logit == "removed" else None
        self.requires_grad_(False)

    def stored(self) -> Stored:
        """Return how each matrix follows from the network (stored.py)."""
        adaptive = {"norm.adaLN.weight": ("output_layer.adaLN_modulation.weight", False, None)}
        head = {"head": ("output_layer.linear.weight", True, self.head_factor)}
        return head | (adaptive if isinstance(self.norm, AdaptiveNorm) else {})

    def logits(self, tokens: Tensor, length: Tensor, picks: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return logits [P, V padded] at the picks; the padding, and the mask if removed, are IMPOSSIBLE."""
        at = self.trunk.places(tokens, length)
        c = self.trunk.condition(sigma)
        x = self.trunk.embed(tokens)
        *blocks, (last, m) = self.trunk.modulated(c)
        for block, modulation in blocks:
            x = block.finish(x, block.attend(x, modulation, at), modulation)
        mixed = last.attend(x, m, at)
        row, position = picks[:, 0], picks[:, 1]
        x = last.finish(x[row, position], mixed[row, position], m.at(row))
        return product(self.norm.modulated(c).at(row)(x), self.head) + self.head_bias

    def biased(self, logits: Tensor, picks: Tensor, mask_bias: Tensor | None) -> Tensor:
        """Add mask_bias [B], where it is an input, to the mask's logit of logits [P, V padded]."""
        return logits if mask_bias is None else logits + mask_bias[picks[:, 0], None] * self.at_mask

    def forward(
        self,
        tokens: Tensor,
        length: Tensor,
        picks: Tensor,
        draws: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        alternatives: Tensor,
        sigma: Tensor | None = None,
        mask_bias: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        logits = self.biased(self.logits(tokens, length, picks, sigma), picks, mask_bias)
        return draws_of(logits, draws, uniform, temperature, top_k, top_p, alternatives)


def quirk_inputs(conditioning: str, mask_logit: str) -> tuple[str, ...]:
    """Return the inputs that a graph takes beyond its INPUTS."""
    return ("sigma",) * (conditioning == "sigma") + ("mask_bias",) * (mask_logit == "kept")


def halve(graph: nn.Module) -> nn.Module:
    """Convert the matrices of a graph to float16, in place; its products then run in half.

    Norms, biases, adaLN, the residual stream and every softmax stay float32, as do inputs and outputs.
    """
    for module in graph.modules():
        for name in getattr(module, "MATRICES", ()):
            parameter = getattr(module, name)
            parameter.data = parameter.data.half()
    return graph
