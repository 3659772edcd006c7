"""The architectures that the coverage table examines, and how each is built with random weights.

A spec is ``torchvision:NAME`` (classification), ``segmentation:NAME`` or ``detection:NAME`` (of a
detector the backbone), ``timm:NAME``, ``hf:NAME`` (a small configuration of a Hugging Face architecture),
or ``package.module:NAME``, a function of yours that returns a model and its example inputs.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..integrations import require
from ..integrations.models import imported
from . import configurations

TORCHVISION = """alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 mobilenet_v2
mobilenet_v3_small efficientnet_b0 efficientnet_v2_s mnasnet1_0 shufflenet_v2_x1_0 squeezenet1_0 googlenet
inception_v3 regnet_y_400mf regnet_x_400mf convnext_tiny vit_b_16 swin_t swin_v2_t maxvit_t""".split()
SEGMENTATION = "deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large".split()
DETECTION = """fasterrcnn_resnet50_fpn retinanet_resnet50_fpn fcos_resnet50_fpn ssd300_vgg16
ssdlite320_mobilenet_v3_large""".split()
TIMM = """vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 mixer_s32_224 convnext_atto convnextv2_atto
resmlp_12_224 eva02_tiny_patch14_336 beit_base_patch16_224 xcit_nano_12_p16_224 mobilenetv4_conv_small
mobilenetv4_hybrid_medium levit_128s pvt_v2_b0 poolformer_s12 coatnet_nano_rw_224 swin_tiny_patch4_window7_224
efficientformer_l1 edgenext_xx_small ghostnet_100 repvgg_a0 hrnet_w18_small dla34 res2net50_26w_4s
ese_vovnet19b_dw fastvit_t8 dm_nfnet_f0 mobilevit_xxs twins_svt_small convformer_s18 cspresnet50 dpn68
resnest14d skresnet18 gcresnet33ts efficientvit_b0 gmlp_s16_224 inception_v4 davit_tiny hiera_tiny_224
starnet_s1 volo_d1_224 nextvit_small tiny_vit_5m_224 resnet26d regnetz_b16 tf_efficientnet_lite0
mobilenetv3_small_050 lcnet_050 tinynet_e mixnet_s rexnet_100 selecsls42b visformer_tiny crossvit_tiny_240
cait_xxs24_224 convit_tiny coat_tiny focalnet_tiny_srf maxvit_nano_rw_256 nest_tiny sequencer2d_s vgg11_bn
xception41 botnet26t_256 halonet26t lambda_resnet26t hardcorenas_a spnasnet_100""".split()

SPECS = (
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"segmentation:{name}" for name in SEGMENTATION),
    *(f"detection:{name}" for name in DETECTION),
    *(f"timm:{name}" for name in TIMM),
    *(f"hf:{name}" for name in configurations.CONFIGURATIONS),
)
"""What the table is made of."""

_NEEDS = {
    "torchvision": ("torchvision", "vision"),
    "segmentation": ("torchvision", "vision"),
    "detection": ("torchvision", "vision"),
    "timm": ("timm", "vision"),
    "hf": ("transformers", "huggingface"),
}
_SIDE = {"inception_v3": 299, "ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
"""Images of the size that these are made for; others take 224, or less where that is as good."""


def missing(spec: str) -> str:
    """How to install what a spec needs, if it is not installed; empty if it is.

    >>> missing("mypackage.models:build")
    ''
    """
    module, extra = _NEEDS.get(spec.partition(":")[0], ("torch", ""))
    return "" if importlib.util.find_spec(module) else f"pip install 'shapleaf[{extra}]'"


def build(spec: str) -> tuple[nn.Module, Any]:
    """The model of a spec with random weights, and example inputs, in double precision and eval mode.

    Raises:
        DataError: a spec of your own names nothing, or one of Hugging Face an architecture not listed.
        MissingExtraError: what the spec needs is not installed.

    >>> build("hf:no_such_architecture")
    Traceback (most recent call last):
    shapleaf.errors.DataError: hf:no_such_architecture is not among the architectures listed: bert, ...
    """
    source, _, name = spec.partition(":")
    if source == "timm":
        model = require("timm", "vision").create_model(name, pretrained=False)
        inputs: Any = torch.randn(1, *model.default_cfg["input_size"])
    elif source == "hf":
        model, inputs = configurations.build(name)
    elif source in _NEEDS:
        model, inputs = _torchvision(source, name)
    else:
        model, inputs = imported(spec)()
    return _settle(model), tree_map(_double, inputs)


def _torchvision(source: str, name: str) -> tuple[nn.Module, Tensor]:
    get_model = require("torchvision.models", "vision").get_model
    if source == "torchvision":
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return get_model(name, weights=None, **extra), _image(_SIDE.get(name, 224))
    model = get_model(name, weights=None, weights_backbone=None)
    if source == "detection":
        return model.backbone, _image(_SIDE.get(name, 128))
    return model, _image(64)


def _image(side: int) -> Tensor:
    return torch.randn(1, 3, side, side)


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _settle(model: nn.Module) -> nn.Module:
    """Constant parameters and statistics made random, so that faults show."""
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), Tensor):
            module.running_mean.normal_(0, 0.1)  # type: ignore[operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[operator]
    for parameter in model.parameters():
        if parameter.is_floating_point() and (parameter.ndim <= 1 or parameter.std() == 0):
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    return model.double().eval()
