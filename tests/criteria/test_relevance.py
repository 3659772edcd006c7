"""LRP of units: what Pruning by eXplaining ranks by, ViTs of three libraries, other libraries' LRP."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from lrp import passed
from shapleaf._rng import stream
from shapleaf.criteria.relevance import relevance
from shapleaf.errors import CriterionError, DataError
from shapleaf.masking import Gates
from shapleaf.relevance import Composite, Rule
from zoo import Apply, conv, example, head, settle

CLOSE = {"rtol": 1e-8, "atol": 1e-11}
ZERO = sl.Epsilon(0)


def scores(model: nn.Module, x: Tensor, y: Tensor, lrp: sl.Criterion, **options: Any) -> dict[str, Tensor]:
    options = {"aggregate": None, **options}
    return sl.attribute(model, sl.trace(model, x[:1]), [(x, y)], lrp, **options).values


@pytest.fixture
def chain() -> tuple[nn.Module, Tensor, Tensor]:
    model = settle(nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    return model, example(4, 2, 5, 5), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("rule", [sl.Epsilon(), sl.ZPlus(), sl.Gamma(), sl.AlphaBeta()], ids=str)
def test_a_filter_is_what_its_map_passes_on(rule: Rule, chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    """S_c = |sum_hw R|, signed, and of every number, from the relevance behind the BatchNorm."""
    model, x, y = chain
    maps = passed(model, x, rule, of=y).layers["0:conv2d#0"]
    assert maps.shape == (4, 4, 5, 5)
    for absolute, expected in {
        None: maps.sum((2, 3)),
        "sample": maps.sum((2, 3)).abs(),
        "token": maps.abs().sum((2, 3)),
        "unit": maps.abs().sum((2, 3)),
    }.items():
        mine = scores(model, x, y, sl.LRP(rule, absolute=absolute))["0"]  # type: ignore[arg-type]
        torch.testing.assert_close(mine, expected, **CLOSE)


def test_from_one_every_example_counts_the_same(chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    """As Pruning by eXplaining starts; the sum over reference samples is the mean times their number."""
    model, x, y = chain
    lrp = sl.LRP(target=sl.Relative(sl.Logit()))
    logit = model(x).detach().gather(1, y[:, None])
    plain, mine = scores(model, x, y, sl.LRP())["0"], scores(model, x, y, lrp)["0"]
    torch.testing.assert_close(mine, plain / logit.abs(), **CLOSE)
    mean = scores(model, x, y, lrp, aggregate=sl.Mean())["0"]
    torch.testing.assert_close(mean * 4, mine.sum(0), **CLOSE)
    maps = passed(model, x, sl.Epsilon(), of=y, one=True).layers["0:conv2d#0"]
    torch.testing.assert_close(mine, maps.sum((2, 3)).abs(), **CLOSE)


def test_o12_every_filter_of_residual_blocks_behind_its_batch_norm() -> None:
    """S_c = sum_n |sum_hw R| of Pruning by eXplaining, whose candidates are shortcuts and what they join too.

    With epsilon 0 it is the gradient times what BatchNorm returns, by hooks and one backward.
    """
    resnet = pytest.importorskip("torchvision.models.resnet")
    model = settle(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5))
    x, y = example(3, 3, 32, 32), torch.tensor([0, 4, 2])
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            seen[name] = out
            return out.clone()  # an in-place ReLU follows

        return hook

    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    hooks = [module.register_forward_hook(keep(name)) for name, module in norms.items()]
    logit = model(x)[torch.arange(3), y]
    gradients = torch.autograd.grad((logit / logit.detach()).sum(), list(seen.values()))
    for hook in hooks:
        hook.remove()
    expected = {
        name.replace("bn", "conv").replace("downsample.1", "downsample.0"): (out * gradient).sum((2, 3)).abs()
        for (name, out), gradient in zip(seen.items(), gradients, strict=True)
    }
    found = passed(model, x, ZERO, of=y, one=True).layers
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert set(convolutions) == set(expected)
    assert len(convolutions) == 12
    for name in convolutions:
        s_c = found[f"{name}:conv2d#0"].sum((2, 3)).abs().sum(0)
        torch.testing.assert_close(s_c, expected[name].sum(0).detach(), **CLOSE)
    lrp = sl.LRP(ZERO, target=sl.Relative(sl.Logit()))  # of groups that no shortcut joins, scores are S_c
    mine = scores(model, x, y, lrp, aggregate=sl.Mean(), groups=["*.conv1"])
    assert len(mine) == 4
    for name, values in mine.items():
        torch.testing.assert_close(values * 3, expected[name].sum(0).detach(), **CLOSE)


def test_absolute_values_of_the_total(chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    """|sum_n sum_hw R|: what is for one class and against another cancels."""
    model, x, y = chain
    lrp = sl.LRP(absolute=None)
    each = scores(model, x, y, lrp)["0"]
    total = scores(model, x, y, lrp, aggregate=sl.AbsOfMean())["0"] * 4
    torch.testing.assert_close(total, each.sum(0).abs(), **CLOSE)
    assert bool((total < each.abs().sum(0) - 1e-3).any())


def test_a_target_of_another_class_or_a_difference(chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = chain
    first, second = (scores(model, x, y, sl.LRP(target=sl.Logit(k), absolute=None))["3"] for k in (0, 2))
    both = scores(model, x, y, sl.LRP(target=sl.LogitDifference(0, 2), absolute=None))["3"]
    torch.testing.assert_close(both, first - second, **CLOSE)


def test_the_end_of_the_network_is_above_all_rules(chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The last layer reads the last group: only its own rule matters, and z+ by hand gives its score."""
    model, x, y = chain
    z = model[:5](x).mean((2, 3)).detach()  # what the head reads, not negative
    weight, bias = model[5][2].weight[y].detach(), model[5][2].bias[y].detach()
    plus = z * weight.clamp(min=0)
    logit = (z * weight).sum(1) + bias
    expected = plus * (logit / (plus.sum(1) + bias.clamp(min=0)))[:, None]
    torch.testing.assert_close(
        scores(model, x, y, sl.LRP(sl.ZPlus(0), absolute=None))["3"], expected, **CLOSE
    )


# ------------------------------------------------------------------------------------------------------------
# Transformers of three libraries

SIZES = {"image_size": 16, "patch_size": 8}


def _torchvision() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    sizes = {"num_heads": 4, "hidden_dim": 32, "mlp_dim": 48}
    return models.VisionTransformer(**SIZES, **sizes, num_layers=2, num_classes=5)


def _timm() -> nn.Module:
    vit = pytest.importorskip("timm.models.vision_transformer")
    options = {"depth": 2, "num_heads": 4, "embed_dim": 32, "mlp_ratio": 1.5, "num_classes": 5}
    return vit.VisionTransformer(img_size=16, patch_size=8, **options)


def _hugging_face(attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        **SIZES, num_hidden_layers=2, num_attention_heads=4, hidden_size=32, intermediate_size=48,
        num_labels=5, layer_norm_eps=1e-6, attn_implementation=attention,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


TIMM = {
    "conv_proj": "patch_embed.proj", "class_token": "cls_token", "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.", "ln_1": "norm1", "ln_2": "norm2",
    "self_attention.in_proj_": "attn.qkv.", "self_attention.out_proj": "attn.proj",
    "self_attention": "attn.qkv", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2", "encoder.ln": "norm",
    "heads.head": "head",
}  # fmt: skip
HUGGING_FACE = {
    "conv_proj": "vit.embeddings.patch_embeddings.projection", "class_token": "vit.embeddings.cls_token",
    "encoder.pos_embedding": "vit.embeddings.position_embeddings",
    "encoder.layers.encoder_layer_": "vit.layers.", "ln_1": "layernorm_before",
    "ln_2": "layernorm_after", "self_attention.out_proj": "attention.o_proj",
    "self_attention.in_proj_": "attention.{}_proj.", "self_attention": "attention.q_proj",
    "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2", "encoder.ln": "vit.layernorm", "heads.head": "classifier",
}  # fmt: skip


def _renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _copies() -> dict[str, tuple[nn.Module, dict[str, str]]]:
    """One transformer as three libraries write it, fused and eager."""
    first = settle(_torchvision())
    state = first.state_dict()
    timm = {kind: _timm().double() for kind in ("fused", "eager")}
    for kind, model in timm.items():
        model.load_state_dict({_renamed(name, TIMM): value for name, value in state.items()})
        for block in model.blocks:
            block.attn.fused_attn = kind == "fused"
    faces = {kind: _hugging_face(kind).double() for kind in ("sdpa", "eager")}
    for model in faces.values():
        renamed = {}
        for name, value in state.items():
            parts = value.chunk(3) if "in_proj" in name else (value,)
            for letter, part in zip("qkv", parts, strict=False):
                renamed[_renamed(name, HUGGING_FACE).format(letter)] = part
        model.load_state_dict(renamed)
    return {
        "torchvision": (first, {}),
        **{f"timm {kind}": (model.eval(), TIMM) for kind, model in timm.items()},
        **{f"hugging face {kind}": (model.eval(), HUGGING_FACE) for kind, model in faces.items()},
    }


PARTS = [f"encoder.layers.encoder_layer_{i}.{part}" for i in range(2) for part in ("self_attention", "mlp.0")]
TOKEN: Any = {"absolute": "token"}
TRUE = sl.Logit()


@pytest.fixture(scope="module")
def copies() -> dict[str, tuple[nn.Module, dict[str, str], sl.Graph]]:
    graphs = ((name, copy, sl.trace(copy[0], example(1, 3, 16, 16))) for name, copy in _copies().items())
    return {name: (*copy, graph) for name, copy, graph in graphs}


@pytest.mark.parametrize(
    "criterion",
    [
        *(sl.LRP(sl.preset_composite(name), **TOKEN) for name in ("attnlrp", "cp-lrp", "attnlrp-gamma")),
        sl.LRP(sl.ZPlus(), absolute=None),
        sl.Saliency(TRUE),
        sl.GradientActivation(signed=True, target=TRUE),
        sl.DeepLIFT(sl.Reference(), TRUE),
        sl.Conductance(2, target=TRUE),
        sl.IntegratedGradients(3, target=TRUE),
        sl.Shapley(sl.Path(2, draws=2)),
    ],
    ids=repr,
)
def test_o10_transformers_of_three_libraries(
    criterion: sl.Criterion, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads and neurons, fused and eager; by LRP S_f = sum_t |R|, S_h = sum_q |sum_d R|."""
    # Draws are named by the group, which each library calls otherwise.
    monkeypatch.setattr(
        "shapleaf.game.path.stream", lambda seed, kind, group, *rest: stream(seed, kind, *rest)
    )
    data, found = [(example(3, 3, 16, 16), torch.tensor([0, 4, 2]))], {}
    for library, (model, names, graph) in copies.items():
        own = [_renamed(part, names) for part in PARTS]
        mine = sl.attribute(model, graph, data, criterion, groups=own, aggregate=None).values
        found[library] = dict(zip(PARTS, (mine[name] for name in own), strict=True))
    reference = found.pop("torchvision")
    assert [*found] == ["timm fused", "timm eager", "hugging face sdpa", "hugging face eager"]
    assert [reference[part].shape[1] for part in PARTS] == [4, 48, 4, 48]
    assert all(values.abs().amax() > 1e-4 for values in reference.values())
    for library, values in found.items():
        single = library == "hugging face eager"  # its softmax is in float32
        for part, expected in reference.items():
            close = {"rtol": 1e-4, "atol": 1e-6} if single else {"rtol": 1e-8, "atol": 1e-12}
            torch.testing.assert_close(values[part], expected, **close, msg=f"{library}, {part}")


def test_heads_and_neurons_are_pxps_formulas() -> None:
    model = settle(_torchvision())
    x, y = example(3, 3, 16, 16), torch.tensor([0, 4, 2])
    graph, seen = sl.trace(model, x[:1]), {}
    block = "encoder.layers.encoder_layer_0"
    composite = sl.preset_composite("cp-lrp")

    def keep(place: tuple[str, int], gate: Any, read: Tensor) -> Tensor:
        seen[place[0]] = read * 1
        return seen[place[0]]

    gates = Gates([graph[f"{block}.self_attention"], graph[f"{block}.mlp.0"]])
    start = x.clone().requires_grad_() * 1
    with relevance(composite, graph, model, gates, keep):
        logit = model(start).gather(1, y[:, None]).sum()
    heads, neurons = seen[f"{block}.self_attention:linear#1"], seen[f"{block}.mlp.3:linear#0"]
    by_head, by_neuron = torch.autograd.grad(logit, [heads, neurons])
    mine = scores(model, x, y, sl.LRP(composite, absolute="token"))
    s_h = (heads * by_head).unflatten(-1, (4, 8)).sum(-1).abs().sum(1).detach()
    s_f = (neurons * by_neuron).abs().sum(1).detach()
    torch.testing.assert_close(mine[f"{block}.self_attention"], s_h, **CLOSE)
    torch.testing.assert_close(mine[f"{block}.mlp.0"], s_f, **CLOSE)


@pytest.mark.parametrize("library", ["torchvision", "timm eager", "hugging face sdpa"])
def test_o10_cp_conserves_through_transformers(library: str) -> None:
    model, _ = _copies()[library]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (parameter.ndim == 1 and "bias" in name) or "token" in name or "pos" in name:
                parameter.zero_()
    found = passed(model, example(2, 3, 16, 16), Composite(default=ZERO, attention="cp"))
    share = found.inputs.flatten(1).sum(1) / found.output[:, 0]
    torch.testing.assert_close(share, torch.ones_like(share), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------------------------------------
# Other libraries


def _residual() -> nn.Module:
    """Blocks of torchvision, whose sums zennit knows."""
    resnet = pytest.importorskip("torchvision.models.resnet")
    model = settle(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5))
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # which zennit 0.5 leaves in place when it merges
    return model


def _by_zennit(model: nn.Module, x: Tensor, y: Tensor, rule: Any, tiny: float) -> dict[str, Tensor]:
    zennit = pytest.importorskip("zennit")
    composites, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    types, torchvision = pytest.importorskip("zennit.types"), pytest.importorskip("zennit.torchvision")
    assert zennit
    layers = [
        (types.Activation, rules.Pass()), (types.BatchNorm, rules.Pass()),
        (types.AvgPool, rules.Norm(stabilizer=tiny)),
        (pytest.importorskip("zennit.layer").Sum, rules.Norm(stabilizer=tiny)), (types.Convolution, rule),
        (types.Linear, rule),
    ]  # fmt: skip
    composite = composites.LayerMapComposite(layers, canonizers=[torchvision.ResNetCanonizer()])
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            out.retain_grad()
            kept[name] = out

        return hook

    with warnings.catch_warnings(), composite.context(model) as ruled:
        warnings.simplefilter("ignore")
        convolutions = {n: m for n, m in ruled.named_modules() if isinstance(m, nn.Conv2d)}
        hooks = [module.register_forward_hook(keep(name)) for name, module in convolutions.items()]
        out = ruled(x.clone().requires_grad_())
        torch.autograd.backward(out, F.one_hot(y, out.shape[1]) * out.detach())
        for hook in hooks:
            hook.remove()
    return {name: tensor.grad.sum((2, 3)) for name, tensor in kept.items()}


def _rules_of_zennit(eps: float) -> dict[str, tuple[Any, Rule]]:
    rules = pytest.importorskip("zennit.rules")
    return {
        "epsilon": (rules.Epsilon(epsilon=eps), sl.Epsilon(eps)),
        "zplus": (rules.ZPlus(stabilizer=eps), sl.ZPlus(eps)),
        "gamma": (rules.Gamma(gamma=0.25, stabilizer=eps), sl.Gamma(0.25, eps)),
        "alpha2beta1": (rules.AlphaBeta(alpha=2, beta=1, stabilizer=eps), sl.AlphaBeta(2, 1, eps)),
    }


@pytest.mark.parametrize("name", ["epsilon", "zplus", "gamma", "alpha2beta1"])
@pytest.mark.parametrize(
    ("eps", "tolerance"), [(1e-12, 1e-7), pytest.param(1e-6, 1e-3, marks=pytest.mark.slow)]
)
def test_o11_zennit(name: str, eps: float, tolerance: float) -> None:
    """Every filter of a ResNet in float64: to 1e-7 with both at 1e-12, to 1e-3 at the default of 1e-6."""
    theirs, mine = _rules_of_zennit(eps)[name]
    x, y = example(2, 3, 32, 32), torch.tensor([0, 3])
    found = passed(_residual(), x, mine, of=y).layers
    for module, expected in _by_zennit(_residual(), x, y, theirs, eps).items():
        part = found[f"{module}:conv2d#0"].sum((2, 3))
        gap = (part - expected).abs().max() / expected.abs().max()
        assert float(gap) < tolerance, module


LXT = """
import importlib.util, sys, types
import torch
home = importlib.util.find_spec("lxt").submodule_search_locations[0]
for name in ("lxt", "lxt.efficient", "lxt.efficient.models"):  # whose own imports need an older transformers
    package = types.ModuleType(name)
    package.__path__ = [home + name[3:].replace(".", "/")]
    sys.modules[name] = package
sys.path.insert(0, sys.argv[1])
import conftest
from torchvision.models import VisionTransformer
from lxt.efficient.models.vit_torch import cp_LRP
for layer, patch in cp_LRP.items():
    patch(layer)
options, state, x, of, found = torch.load(sys.argv[2])
model = VisionTransformer(**options).double().eval()
model.load_state_dict(state)
x.requires_grad_()
model(x)[torch.arange(len(x)), of].sum().backward()
torch.save((x * x.grad).detach(), found)
"""


@pytest.mark.slow
def test_o11_lxt(tmp_path: Path) -> None:
    """Inputs of a transformer by CP-LRP: to 1e-6; in a process of its own, as LXT patches classes."""
    if importlib.util.find_spec("lxt") is None:
        pytest.skip("lxt is not installed: pip install --no-deps lxt, whose own needs are heavy")
    model, x, y = settle(_torchvision()), example(2, 3, 16, 16), torch.tensor([0, 3])
    given, found = tmp_path / "given.pt", tmp_path / "found.pt"
    options = {**SIZES, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48, "num_layers": 2, "num_classes": 5}
    torch.save((options, model.state_dict(), x, y, str(found)), given)
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", LXT, tests, str(given)], check=True)
    mine = passed(model, x, Composite(default=ZERO, attention="cp"), of=y).inputs
    torch.testing.assert_close(mine, torch.load(found), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["epsilon", "gamma", "alpha1beta0"])
def test_o11_captum(name: str) -> None:
    """Inputs of a network without biases and with inputs above zero, which is what captum covers: to 1e-5."""
    attr = pytest.importorskip("captum.attr")
    their = pytest.importorskip("captum.attr._utils.lrp_rules")
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(),
        nn.Conv2d(8, 3, 3, bias=False),
    )  # fmt: skip
    model, x = settle(net), example(3, 2, 7, 7).abs()
    theirs, mine = {
        "epsilon": (their.EpsilonRule, sl.Epsilon(1e-9)),
        "gamma": (their.GammaRule, sl.Gamma(0.25, 1e-9)),
        "alpha1beta0": (their.Alpha1_Beta0_Rule, sl.ZPlus(1e-9)),
    }[name]
    best = model(x).argmax(1).flatten()  # its gamma rule is for outputs above zero
    found = passed(model, x, mine, of=best).inputs
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = theirs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = (
            attr.LRP(model)
            .attribute(x.clone().requires_grad_(), target=[(int(c), 0, 0) for c in best])
            .detach()
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


# ------------------------------------------------------------------------------------------------------------
# Bad input


def test_bad_input(chain: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = chain
    with pytest.raises(CriterionError, match='is None, "unit", "token" or "sample", received True'):
        sl.LRP(absolute=True)  # type: ignore[arg-type]
    with pytest.raises(CriterionError, match="class 3 is out of range"):
        scores(model, x, y, sl.LRP(target=sl.Logit(3)))
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        scores(model, x, torch.tensor([0, 1, 2, 3]), sl.LRP())
    with pytest.raises(CriterionError, match="no layer is named 'stem'"):
        scores(model, x, y, sl.LRP(Composite((("stem", sl.ZPlus()),))))
    with torch.no_grad():
        model[5][2].weight.zero_()
        model[5][2].bias.zero_()
    with pytest.raises(CriterionError, match="the target of example 0 of the batch is zero"):
        scores(model, x, y, sl.LRP(target=sl.Relative()))
    assert not scores(model, x, y, sl.LRP())["0"].any()  # nothing is needed for a logit of zero


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("epsilon", r"received 'epsilon': write LRP.preset\('epsilon'\)"),
        (sl.Epsilon, r"received a class: write Epsilon\(\)"),
        (3, r"LRP\(rules=...\) is a Composite, or is a rule, .* received 3"),
    ],
)
def test_what_is_no_rule(rules: Any, message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        sl.LRP(rules)


def test_a_graph_of_a_model_that_runs_otherwise_now() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = self.b(F.relu(self.a(x)))
        return self.c(self.b(h) if self.twice else h)

    model = settle(Apply(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2)))
    model.twice = False
    x = example(2, 3)
    graph = sl.trace(model, x)
    model.twice = True
    with pytest.raises(CriterionError, match="b:linear#1.*knows no layer there; trace the model again"):
        sl.attribute(model, graph, [(x, torch.tensor([0, 1]))], sl.LRP())


# ------------------------------------------------------------------------------------------------------------
# Presets by name and file


def test_presets_by_name() -> None:
    assert sl.LRP.preset("cp-lrp") == sl.LRP(sl.preset_composite("cp-lrp"))
    with pytest.raises(CriterionError, match="no preset and no file is named 'best'; the presets are lrp-0"):
        sl.LRP.preset("best")


@pytest.mark.parametrize(
    "lrp",
    [
        sl.LRP(),
        sl.LRP(sl.Gamma(0.1), sl.Relative(sl.Logit(2)), None),
        sl.LRP(sl.banded(ZERO, sl.ZPlus(), sl.Gamma(), sl.AlphaBeta(), network="vit"), absolute="token"),
    ],
)
def test_presets_by_file(tmp_path: Path, lrp: sl.LRP) -> None:
    lrp.save(tmp_path / "new" / "preset.json")
    assert sl.LRP.preset(tmp_path / "new" / "preset.json") == lrp
    assert sl.LRP.preset(str(tmp_path / "new" / "preset.json")) == lrp


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "preset.json is a list, expected an object"),
        ("{}", "does not hold an LRP criterion"),
        ('{"criterion": "Taylor"}', "does not hold an LRP criterion"),
        (
            '{"criterion": "LRP", "code": "import os"}',
            "an unknown key 'code'; there are criterion, rules",
        ),
        ('{"criterion": "LRP", "rules": 3}', "the rules of .* is a int, expected an object"),
        ('{"criterion": "LRP", "rules": {"name": "os.system"}}', "is named 'os.system'; there are Epsilon"),
        ('{"criterion": "LRP", "rules": {"default": {"name": "Gamma", "gamma": NaN}}}', "finite number"),
        ('{"criterion": "LRP", "target": {"name": "Restricted"}}', "the target of .* is named 'Restricted'"),
        ('{"criterion": "LRP", "absolute": "units"}', "absolute=.* is None"),
        ('{"criterion": "LRP", "absolute": {}}', "absolute=.* is None"),
        ('{"criterion": "LRP"', "is no JSON"),
    ],
)
def test_hostile_presets(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "preset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        sl.LRP.preset(tmp_path / "preset.json")
