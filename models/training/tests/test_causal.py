import torch
from conftest import randomised
from didi.backbone import BackboneConfig
from didi.causal import CausalLM, next_token_nats


def causal_model() -> CausalLM:
    torch.manual_seed(5)
    return randomised(CausalLM(BackboneConfig(vocab_size=11, hidden=16, blocks=2, heads=2, cond=8, context=12)))


@torch.no_grad()
def test_a_token_never_sees_what_follows():
    model = causal_model()
    x = torch.randint(0, 10, (2, 12), generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 10
    before, after = model(x), model(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


@torch.no_grad()
def test_nats_are_those_of_the_chain_rule():
    model = causal_model()
    x = torch.tensor([[3, 1, 4]])
    expected = []
    for i in range(3):
        log_p = torch.log_softmax(model(torch.tensor([[9, 3, 1, 4][: i + 1]]))[0, -1], dim=-1)
        expected.append(-log_p[x[0, i]])
    assert torch.allclose(next_token_nats(model, x, end_id=9)[0], torch.stack(expected), atol=1e-5)
