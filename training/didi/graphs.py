"""The graphs the server runs, as PyTorch modules ready for export.

`Denoise` is the backbone with the output head on the picked positions only, and the draw inside: no logits
leave the graph. The guidance graphs are in `guided.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .trunk import ALIGNMENT, IMPOSSIBLE, AdaptiveNorm, AffineNorm, Stored, Trunk, product

# Values of a manifest's field of that name (models/model.schema.json).
MASK_LOGITS = ("removed", "kept")


def keep_likeliest(scores: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """scores [S, V], IMPOSSIBLE but for the top_k [S] largest of a row (0: all; of equals those of lower id), and of
    these but for the fewest, largest first, whose softmax adds up to at least top_p [S]."""
    ordered, order = torch.topk(scores, scores.shape[1], dim=-1)
    rank = torch.arange(scores.shape[1], device=scores.device)
    k = torch.where(top_k > 0, top_k, scores.shape[1])
    ordered = torch.where(rank < k[:, None], ordered, IMPOSSIBLE)
    share = torch.softmax(ordered, dim=-1)
    before = share.cumsum(dim=-1) - share
    # Above 1, so that rounding takes nothing from a row that asks for all.
    bound = torch.where(top_p < 1, top_p, 2.0)
    ordered = torch.where((before < bound[:, None]) | (rank == 0), ordered, IMPOSSIBLE)
    return torch.zeros_like(scores).scatter(1, order, ordered)


def draw_tokens(log_p: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Tokens [S] from log_p [S, V] sharpened by temperature [S] (0: the likeliest), then cut to top_k [S] and top_p
    [S]: the first whose cumulative weight reaches uniform [S] times the total. Nothing is sorted unless a row asks."""
    scores = (log_p - log_p.amax(dim=-1, keepdim=True)) / temperature.clamp(min=1e-6)[:, None]
    asked = ((top_k > 0) | (top_p < 1)).any()
    if torch.compiler.is_exporting():
        scores = torch.cond(asked, keep_likeliest, lambda scores, k, p: scores.clone(), (scores, top_k, top_p))
    elif asked:
        scores = keep_likeliest(scores, top_k, top_p)
    cdf = scores.exp().cumsum(dim=-1)
    below = (cdf < uniform[:, None] * cdf[:, -1:]).sum(dim=-1)
    return torch.where(temperature > 0, below, log_p.argmax(dim=-1))


class Denoise(nn.Module):
    """tokens [B, L] int64, length [B], picks [P, 2] (row, position), draws [S] (index into picks),
    uniform [S], temperature [S], top_k [S] int64 (0: all), top_p [S] (1: all) -> token [S] int64, logprob [S],
    entropy [P] (nats, at temperature 1).

    `logprob` is that of the drawn token under p(x0 | z_t) itself, however the draw was sharpened or
    cut. Temperature 0 takes the most likely token. In the last block only the picked positions
    reach projection, MLP and head.

    With `conditioning` "sigma" one more input is sigma [B]. With `mask_logit` "removed" the mask is never
    drawn (SUBS); with "kept" its logit is the network's plus one more input, mask_bias [B]: -1e9 gives SUBS,
    and a draw that yields the mask leaves its position masked.
    """

    INPUTS = ("tokens", "length", "picks", "draws", "uniform", "temperature", "top_k", "top_p")
    OUTPUTS = ("token", "logprob", "entropy")
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
            if mask_logit == "removed":
                head[-1], bias[-1] = 0, IMPOSSIBLE
            pad = -len(head) % ALIGNMENT
            self.head = nn.Parameter(F.pad(head, (0, 0, 0, pad)).T.contiguous())
            self.head_bias = nn.Parameter(F.pad(bias, (0, pad), value=IMPOSSIBLE))
            if mask_logit == "kept":
                at_mask = torch.arange(len(self.head_bias)) == backbone.config.mask_id
                self.register_buffer("at_mask", at_mask.float())
            self.head_factor = (torch.arange(len(head)) != backbone.config.mask_id).float() if mask_logit == "removed" else None
        self.requires_grad_(False)

    def stored(self) -> Stored:
        """What each matrix is made of (stored.py)."""
        adaptive = {"norm.adaLN.weight": ("output_layer.adaLN_modulation.weight", False, None)}
        head = {"head": ("output_layer.linear.weight", True, self.head_factor)}
        return head | (adaptive if isinstance(self.norm, AdaptiveNorm) else {})

    def logits(self, tokens: Tensor, length: Tensor, picks: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Logits [P, V rounded up] at the picked positions; the padding, and the mask if removed, are IMPOSSIBLE."""
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
        """logits [P, V rounded up] with mask_bias [B] added to the mask's, where that is an input."""
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
        sigma: Tensor | None = None,
        mask_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.biased(self.logits(tokens, length, picks, sigma), picks, mask_bias)
        # One kernel a row: a plain log of a column of sums would be rounded by its place in the column.
        log_p = torch.log_softmax(logits, dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1)

        drawn = log_p[draws]
        token = draw_tokens(drawn, uniform, temperature, top_k, top_p)
        logprob = drawn.gather(-1, token[:, None])[:, 0]
        return token, logprob, entropy


def quirk_inputs(conditioning: str, mask_logit: str) -> tuple[str, ...]:
    """The inputs that a graph takes beyond its INPUTS."""
    return ("sigma",) * (conditioning == "sigma") + ("mask_bias",) * (mask_logit == "kept")


def halve(graph: nn.Module) -> nn.Module:
    """Turns the matrices of a graph into float16, in place: the operands of its products are half from then on.

    Norms, biases, adaLN, the residual stream and every softmax stay float32, as do inputs and outputs.
    """
    for module in graph.modules():
        for name in getattr(module, "MATRICES", ()):
            parameter = getattr(module, name)
            parameter.data = parameter.data.half()
    return graph
