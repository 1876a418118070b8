"""Layers that multiply by oneDNN give what torch's give, forward and backward, on any CPU."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pathclip.encoders import create, onednn
from pathclip.encoders.onednn import OneDnnAttention, OneDnnLinear, linear, use_onednn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
TOLERANCE = 2e-6


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (1, 1, 5), (64, 5)])
@pytest.mark.parametrize("biased", [True, False])
def test_product_and_gradients_are_those_of_float64(shape, biased):
    x, weight, bias = _draw(*shape), _draw(4, 5, seed=1), _draw(4, seed=2) if biased else None
    upstream = _draw(*shape[:-1], 4, seed=3)
    results = []
    for dtype, product in ((torch.float32, linear), (torch.float64, F.linear)):
        leaves = [
            t.detach().to(dtype, copy=True).requires_grad_() if t is not None else None
            for t in (x, weight, bias)
        ]
        out = product(*leaves)
        out.backward(upstream.to(dtype))
        results.append([out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, exact in zip(*results, strict=True):
        assert ours.shape == exact.shape
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=TOLERANCE)


def test_views_that_are_not_contiguous_are_multiplied_right():
    x, weight = _draw(5, 6, 3).transpose(0, 2), _draw(8, 5)  # (3, 6, 5)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=TOLERANCE)
    torch.testing.assert_close(linear(x, _draw(5, 8).t()), F.linear(x, _draw(5, 8).t()), rtol=1e-5, atol=2e-6)


def test_only_what_needs_a_gradient_gets_one():
    x, weight, bias = _draw(3, 5), _draw(4, 5).requires_grad_(), _draw(4)
    linear(x, weight, bias).sum().backward()
    assert x.grad is None
    assert bias.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(4, 5))


MASKS = {
    "none": None,
    "causal": torch.full((5, 5), -torch.inf).triu(1),
    "forbidden": torch.ones(5, 5, dtype=torch.bool).triu(1),
    "of each head": _draw(2 * 4, 5, 5, seed=9),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_equals_torchs_forward_and_backward(mask, dropout):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, dropout=dropout, batch_first=True)
    ours = use_onednn(copy.deepcopy(theirs))
    assert type(ours) is OneDnnAttention
    results = []
    for layer in (theirs, ours):
        x = _draw(2, 5, 16).requires_grad_()
        torch.manual_seed(1)
        out, weights = layer(x, x, x, need_weights=False, attn_mask=mask)
        assert weights is None
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_attention_that_is_not_plain_is_left_to_torch():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4).eval()  # not batch first
    ours = use_onednn(copy.deepcopy(theirs))
    x, other = _draw(5, 2, 16), _draw(7, 2, 16, seed=1)
    for given in ((x, x, x), (x, other, other)):
        for a, b in zip(theirs(*given), ours(*given), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["tiny-vit-112", "tiny-resnet10t-80"])
def test_model_has_the_same_weights_and_features_either_way(name, monkeypatch):
    monkeypatch.setattr(onednn, "pays", lambda: False)
    monkeypatch.setattr("pathclip.encoders.encoder.pays", lambda: False)
    model = create(name, seed=1).eval()
    quick = copy.deepcopy(model)
    use_onednn(quick.clip)
    assert any(type(m) is OneDnnLinear for m in quick.modules())
    assert not any(type(m) in (OneDnnLinear, OneDnnAttention) for m in model.modules())
    assert quick.state_dict().keys() == model.state_dict().keys()
    side = model.image_size
    images = (_draw(2, 3, side, side) * 50 + 128).clamp(0, 255).byte()
    tokens = model.tokenize(["a gland", "lymphocytes beside fat"])
    for a, b in zip(model(images, tokens), quick(images, tokens), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("cpu", "chosen"), [("vendor_id : AuthenticAMD", True), ("vendor_id : GenuineIntel", False)]
)
def test_amd_cpus_take_onednn(monkeypatch, cpu, chosen):
    if not torch.backends.mkl.is_available():
        pytest.skip("this torch multiplies without MKL")
    monkeypatch.setattr(onednn, "_cpu", lambda: cpu)
    onednn.pays.cache_clear()
    try:
        assert onednn.pays() is chosen
        kinds = {type(m) for m in create("tiny-vit-112").modules()}
        assert (OneDnnAttention in kinds) is chosen
        assert (OneDnnLinear in kinds) is chosen
    finally:
        onednn.pays.cache_clear()


def test_what_onednn_cannot_do_is_torchs():
    layer = use_onednn(nn.Linear(5, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(_draw(3, 5)).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        layer(_draw(3, 5).double())
    assert layer.double()(_draw(3, 5).double()).dtype == torch.float64
    assert layer.to("meta")(torch.empty(3, 5, device="meta")).shape == (3, 4)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert use_onednn(nn.Linear(5, 4))(fake.from_tensor(torch.empty(3, 5))).shape == (3, 4)
    assert layer.to_empty(device="cpu").float()(torch.empty(0, 5)).shape == (0, 4)


def test_layers_can_be_pickled():
    layer = use_onednn(nn.Linear(5, 4))
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is OneDnnLinear
    assert torch.equal(again(_draw(3, 5)), layer(_draw(3, 5)))
