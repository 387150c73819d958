"""The engine of token models: order, limits, memory that runs out, numbers that are none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from encoder_world import card

from quadmix.annotate.models import batches
from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.batches import TokenModel
from quadmix.annotate.models.devices import choose_device, choose_dtype, is_out_of_memory
from quadmix.errors import InputError


def model(forward: Any, *, tokens: int = 64, combine: Any = batches.only_window, pad: int = 0) -> TokenModel:
    """Texts are numbers: "3 5" is two windows, of three and five tokens of these values."""

    def tokenise(some: Sequence[str]) -> list[list[list[int]]]:
        return [[[int(n)] * int(n) for n in text.split()] for text in some]

    return TokenModel(
        card=card(), tokenise=tokenise, forward=forward, combine=combine, width=1, pad=pad,
        device=torch.device("cpu"), settings=Settings(batch_tokens=tokens),
    )  # fmt: skip


def mean(ids: Any, mask: Any) -> Any:
    return ((ids * mask).sum(1) / mask.sum(1))[:, None].float()


def test_rows_come_back_in_the_order_of_the_texts_whatever_their_length() -> None:
    wanted = np.random.default_rng(0).integers(1, 60, 3 * batches.CHUNK + 5)
    found = model(mean).outputs([str(n) for n in wanted])
    np.testing.assert_array_equal(found.values[:, 0], wanted)
    assert not found.missing


def test_a_batch_never_holds_more_padded_tokens_than_allowed_but_for_one_window() -> None:
    shapes: list[Any] = []

    def forward(ids: Any, mask: Any) -> Any:
        shapes.append(tuple(ids.shape))
        assert not torch.is_grad_enabled()
        return mean(ids, mask)

    model(forward, tokens=40).outputs([str(n) for n in (1, 50, 3, 20, 19, 7, 7, 7)])
    assert shapes[0] == (1, 50)
    assert all(b * t <= 40 for b, t in shapes[1:])
    assert sum(b for b, _ in shapes) == 8


def test_windows_are_combined_in_their_order_with_their_lengths() -> None:
    seen: list[Any] = []

    def combine(values: Any, lengths: Any) -> Any:
        seen.append((values[:, 0].tolist(), lengths.tolist()))
        return values.mean(axis=0)

    found = model(mean, combine=combine).outputs(["2 9 4", "7"])
    assert seen == [([2.0, 9.0, 4.0], [2, 9, 4]), ([7.0], [7])]
    np.testing.assert_array_equal(found.values[:, 0], [5.0, 7.0])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_memory_that_runs_out_halves_the_batch_and_costs_only_what_does_not_fit_alone(error: Any) -> None:
    shapes: list[Any] = []

    def forward(ids: Any, mask: Any) -> Any:
        shapes.append(tuple(ids.shape))
        if ids.numel() > 24:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return mean(ids, mask)

    found = model(forward, tokens=160).outputs(["30", *["10"] * 8, "3"])
    assert found.missing == {"out_of_memory": 1}
    np.testing.assert_array_equal(found.values[:, 0], [np.nan, *[10.0] * 8, 3.0])
    assert shapes[-1][0] <= 2  # the limit stays halved: no batch fails twice


def test_a_document_loses_its_row_if_one_of_its_windows_does_not_fit() -> None:
    def forward(ids: Any, mask: Any) -> Any:
        if ids.numel() > 24:
            raise torch.OutOfMemoryError
        return mean(ids, mask)

    found = model(forward, combine=lambda v, _: v.mean(axis=0)).outputs(["4 30", "4"])
    assert np.isnan(found.values[0, 0])
    assert (found.values[1, 0], found.missing) == (4.0, {"out_of_memory": 1})


def test_other_errors_are_not_taken_for_memory() -> None:
    def forward(ids: Any, mask: Any) -> Any:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        model(forward).outputs(["3"])
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_numbers_that_are_none_and_texts_without_tokens_have_reasons_and_nan() -> None:
    def forward(ids: Any, mask: Any) -> Any:
        return torch.where(ids[:, :1] == 5, torch.inf, mean(ids, mask))

    found = model(forward, combine=lambda v, _: v.mean(axis=0)).outputs(["5", "", "3 5", "3"])
    assert found.missing == {"no_tokens": 1, "not_finite": 2}
    np.testing.assert_array_equal(found.values[:, 0], [np.nan, np.nan, np.nan, 3.0])


def test_no_texts_no_rows() -> None:
    found = model(mean).outputs([])
    assert found.values.shape == (0, 1)
    assert found.values.dtype == np.float32


def test_padding_is_the_models_own_token() -> None:
    seen: list[Any] = []

    def forward(ids: Any, mask: Any) -> Any:
        seen.append((ids.tolist(), mask.tolist()))
        return mean(ids, mask)

    model(forward, pad=9).outputs(["1", "2"])
    assert seen == [([[2, 2], [1, 9]], [[1, 1], [1, 0]])]


def test_the_number_of_threads_is_given_back() -> None:
    before, inside = torch.get_num_threads(), []

    def forward(ids: Any, mask: Any) -> Any:
        inside.append(torch.get_num_threads())
        raise ValueError("stop")

    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="stop"):
            model(forward).outputs(["1"])
        assert inside == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_cpu_in_float32() -> None:
    with pytest.raises(InputError, match=r"device is cuda, but .* sees 0 GPUs .* set device to cpu or auto"):
        choose_device(Settings(device="cuda"))
    device = choose_device(Settings())
    assert (device.type, choose_dtype(Settings(), device)) == ("cpu", torch.float32)
    assert choose_dtype(Settings(precision="bfloat16"), device) == torch.bfloat16
