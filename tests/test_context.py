"""Running the user's model and leaving it as it was found."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import shapleaf
from shapleaf import _context
from shapleaf.errors import BudgetError, CriterionError, DataError
from shapleaf.testing import untouched

X = torch.arange(6.0).view(2, 3)


class Answer(nn.Module):
    """Returns what it was called with."""

    def forward(self, *args: object, **kwargs: object) -> object:
        return args, kwargs


# Settings


def test_losses_are_named_and_versions_are_plain_strings() -> None:
    class Weighted:
        def __repr__(self) -> str:
            return "Weighted(2)"

    versions = {"shapleaf": shapleaf.__version__, "torch": str(torch.__version__)}
    assert _context.versions() == versions
    assert {type(version) for version in _context.versions().values()} == {str}  # torch's own is none
    for loss, name in ((None, "none"), (nn.functional.mse_loss, "mse_loss"), (Weighted(), "Weighted(2)")):
        assert _context.made_with(loss, 3) == {"loss": name, "seed": "3", **versions}


# Calling


def test_tuples_are_positional_mappings_are_keywords() -> None:
    assert _context.forward(Answer(), X) == ((X,), {})
    assert _context.forward(Answer(), (X, 3)) == ((X, 3), {})
    assert _context.forward(Answer(), [X]) == ((X,), {})
    assert _context.forward(Answer(), {"a": X, "b": 1}) == ((), {"a": X, "b": 1})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 4), r"inputs of \(2, 4\) torch\.float32 on cpu: RuntimeError: "),
        (torch.zeros(2, 3, dtype=torch.float64), r"inputs of \(2, 3\) torch\.float64 on cpu: RuntimeError: "),
        ((torch.zeros(2, 3), torch.zeros(1)), r"inputs of \(2, 3\) .*, \(1,\) .*: TypeError: "),
        (3, "inputs of int: "),
    ],
)
def test_a_failing_model_shows_what_it_was_given(inputs: object, message: str) -> None:
    with pytest.raises(DataError, match=f"the model failed on {message}"):
        _context.forward(nn.Linear(3, 2), inputs)


def test_our_own_errors_and_interrupts_pass_unchanged() -> None:
    for error in (BudgetError("mine"), KeyboardInterrupt(), MemoryError()):

        class Raises(nn.Module):
            def forward(self, x: object, error: BaseException = error) -> None:
                raise error

        with pytest.raises(type(error)) as caught:
            _context.forward(Raises(), X)
        assert caught.value is error


def test_whole_numbers_of_any_kind_are_pythons() -> None:
    for value in (3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3).int()):
        assert type(_context.number(value)) is int
        assert _context.number(value) == 3
    bools = (True, np.bool_(True), torch.tensor(True))
    for value in (*bools, 3.0, "3", None, torch.tensor(3.0), torch.tensor([3]), np.array([3]), (3,)):
        assert _context.number(value) is value


@pytest.mark.parametrize("fine", [None, (), ["conv*"], ("conv*",)])
def test_a_string_is_no_sequence_of_strings(fine: object) -> None:
    _context.several("groups", fine)
    with pytest.raises(CriterionError, match=r"groups='conv': expected a sequence, such as \('conv',\)"):
        _context.several("groups", "conv")


# Reading outputs


class Output:
    def __init__(self, **tensors: object) -> None:
        self.__dict__.update(tensors)


@pytest.mark.parametrize(
    "output",
    [
        X,
        (X, torch.zeros(1)),
        [X],
        {"logits": X},
        {"out": X, "aux": torch.zeros(1)},
        Output(logits=X, loss=None),
        Output(out=X),
        {"logits": X, "out": torch.zeros(1)},
    ],
)
def test_predictions_are_found(output: object) -> None:
    assert _context.logits(output) is X


@pytest.mark.parametrize("output", [None, {}, (), {"logits": None}, {"scores": X}, (None, X), Output()])
def test_other_outputs_need_a_loss_that_reads_them(output: object) -> None:
    with pytest.raises(DataError, match=r"no tensor of predictions was found; pass loss=f\(output, target\)"):
        _context.logits(output)


# Losses


def test_cross_entropy_is_per_example() -> None:
    scores = torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    expected = [np.log(2), np.log(1 + np.exp(3))]
    assert _context.cross_entropy(scores, torch.tensor([0, 0])).tolist() == pytest.approx(expected, abs=1e-15)


def test_cross_entropy_averages_over_positions() -> None:
    scores = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    target = torch.randint(5, (2, 3, 4))
    expected = [
        torch.stack(
            [-scores[e, :, i, j].log_softmax(0)[target[e, i, j]] for i in range(3) for j in range(4)]
        ).mean()
        for e in range(2)
    ]
    torch.testing.assert_close(
        _context.cross_entropy(scores, target), torch.stack(expected), rtol=0, atol=1e-12
    )


def test_cross_entropy_takes_probabilities_and_any_integers() -> None:
    scores = torch.randn(3, 4)
    labels = torch.tensor([0, 3, 2])
    expected = _context.cross_entropy(scores, labels)
    torch.testing.assert_close(
        _context.cross_entropy(scores, nn.functional.one_hot(labels).float()), expected
    )
    for dtype in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(_context.cross_entropy(scores, labels.to(dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cross_entropy_of_half_precision_is_single(dtype: torch.dtype) -> None:
    scores = torch.tensor([[2.0, -2.0]], dtype=dtype)
    loss = _context.cross_entropy(scores, torch.tensor([0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.log1p(np.exp(-4)), rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (
            torch.zeros(2, 3),
            torch.tensor([0, 3]),
            r"labels run from 0 to 3, but the model has 3 classes \(0 to 2\)",
        ),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "labels run from -1 to 0"),
        (
            torch.zeros(2, 3),
            torch.zeros(2),
            r"probabilities of shape \(2,\), but the model returned \(2, 3\)",
        ),
        (torch.zeros(2), torch.zeros(2, dtype=torch.long), r"needs scores of shape \(examples, classes\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(
    scores: torch.Tensor, target: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _context.cross_entropy(scores, target)


def test_per_example_returns_the_loss() -> None:
    assert _context.per_example(lambda o, t: o - t, torch.ones(3), torch.ones(3), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (torch.tensor(1.0), r"\(\)"),
        (torch.zeros(4, 1), r"\(4, 1\)"),
        (torch.zeros(3), r"\(3,\)"),
        (1.0, "float"),
    ],
)
def test_a_loss_that_is_not_per_example_is_refused(value: object, received: str) -> None:
    with pytest.raises(
        CriterionError, match=rf"expected shape \(4,\), received {received}\. Use reduction='none'"
    ):
        _context.per_example(lambda *_: value, None, None, 4)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_names_the_example(bad: float) -> None:
    with pytest.raises(CriterionError, match=f"the loss of example 2 of the batch is {bad}"):
        _context.per_example(lambda *_: torch.tensor([0.0, 1.0, bad, bad]), None, None, 4)


def test_a_failing_loss_shows_the_shapes() -> None:
    with pytest.raises(
        CriterionError, match=r"the loss failed on outputs of shape \[\(2, 3\)\] and targets of "
    ):
        _context.per_example(nn.functional.mse_loss, torch.zeros(2, 3), "label", 2)


# Leaving no trace


class Stateful(nn.Module):
    """Writes to, replaces and adds buffers as it runs, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.BatchNorm1d(3)
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("data", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.written += 1
        self.data.data += 1
        self.replaced = self.replaced + 1
        self.absent = torch.ones(1)
        self.register_buffer(f"new{len(self._buffers)}", torch.ones(1))
        return self.child(x) + torch.rand(3)


def test_buffers_are_put_back_whatever_was_done_to_them() -> None:
    model = Stateful()
    with untouched(model), _context.buffers(model), _context.rng(0):
        for _ in range(2):
            model(X)
    assert model.absent is None
    assert model.written.tolist() == [0, 0]


def test_buffers_that_were_not_written_do_not_count_as_modified() -> None:
    model = nn.BatchNorm1d(3).eval()
    x = X.clone().requires_grad_()
    out = model(x).sum()
    with _context.inference(model):
        model(X)
    out.backward()  # would raise if the running statistics had been copied back
    assert x.grad is not None


def test_buffers_with_nan_and_on_meta() -> None:
    model = nn.BatchNorm1d(3)
    model.running_mean[0] = float("nan")
    with untouched(model), _context.buffers(model):
        model.running_mean.zero_()
    with _context.buffers(nn.BatchNorm1d(3, device="meta")):
        pass


@pytest.mark.parametrize("train", [True, False])
def test_every_modules_own_mode_is_put_back(train: bool) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1)))
    model[1][1].eval()
    with untouched(model), _context.mode(model, train=train):
        assert {module.training for module in model.modules()} == {train}


def test_randomness_is_seeded_inside_and_untouched_outside() -> None:
    state = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with _context.rng(seed):
            draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
def test_draws_are_noticed(draw: Callable[..., object]) -> None:
    with _context.rng(3):
        assert not _context.drew(3)
        draw(1)
        assert _context.drew(3)
        _context.reseed(3)
        assert not _context.drew(3)


def test_devices_that_are_not_in_use_are_not_seeded() -> None:
    queued = len(torch.cuda._queued_calls)
    with _context.rng(0):
        pass
    assert len(torch.cuda._queued_calls) == queued


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_inference_leaves_the_model_alone_also_when_it_raises(error: type[BaseException]) -> None:
    model = Stateful()
    model.child.weight.grad = torch.ones(3)

    def fails() -> None:
        with _context.inference(model):
            model(X)
            assert not model.child.training
            raise error

    with untouched(model), pytest.raises(error):
        fails()


@pytest.mark.parametrize("gradients", [True, False])
def test_inference_leaves_the_inference_mode_and_gradients_as_they_are(gradients: bool) -> None:
    with torch.inference_mode():
        with _context.inference(Stateful()):
            assert not torch.is_inference_mode_enabled()
            with torch.enable_grad():
                assert (2 * torch.ones(1, requires_grad=True)).requires_grad
        assert torch.is_inference_mode_enabled()
    with torch.set_grad_enabled(gradients), _context.inference(Stateful()):
        assert torch.is_grad_enabled() is gradients


def test_inputs_follow_the_model() -> None:
    nested = _context.on_device({"x": X, "n": 3}, nn.Linear(1, 1, device="meta"))
    assert nested["x"].device.type == "meta"
    assert nested["n"] == 3
    assert _context.device_of(nn.ReLU()).type == "cpu"


def test_a_place_is_a_line_or_in_generated_code_the_name_it_assigns() -> None:
    assert _context.place("/home/me/net.py", 7) == "net.py:7"
    module = torch.fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    file = module.forward.__code__.co_filename
    lines = [_context.place(file, line) for line in range(1, 12)]
    assert "_0" in lines
    assert "_1" in lines


def test_errors_of_a_block_say_where_they_happened() -> None:
    with pytest.raises(DataError, match="^model 'a': too few$"), _context.located("model 'a'"):
        raise DataError("too few")
    with pytest.raises(KeyError, match="^'other'$"), _context.located("model 'a'"):
        raise KeyError("other")
