"""Padded, packed and labelled values: round trips, and small cases by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Packed, Padded
from mmembed.streams import STREAMS, parse_subset, stream_subsets, subset_name

lengths_of_items = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def items_of(lengths: list[int], *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, *shape, generator=generator) for length in lengths]


@given(lengths_of_items, st.sampled_from([(), (3,), (2, 2)]))
def test_stack_pack_and_pad_keep_every_item(lengths: list[int], shape: tuple[int, ...]) -> None:
    items = items_of(lengths, *shape)
    padded = Padded.stack(items)
    assert padded.lengths.tolist() == lengths
    assert padded.values.shape == (len(lengths), max(1, *lengths), *shape)
    packed = padded.pack()
    assert len(packed.values) == sum(lengths)
    again = packed.pad()
    assert torch.equal(again.values, padded.values)
    for index, (item, split) in enumerate(zip(items, packed.split(), strict=True)):
        assert torch.equal(split, item)
        assert torch.equal(padded.item(index), item)
        assert torch.equal(
            packed.values[packed.offsets[index] : packed.offsets[index + 1]],
            item,
        )


@given(lengths_of_items)
def test_positions_and_item_index_name_every_step(lengths: list[int]) -> None:
    packed = Padded.stack(items_of(lengths)).pack()
    pairs = list(zip(packed.item_index().tolist(), packed.positions().tolist(), strict=True))
    assert pairs == [(b, t) for b, length in enumerate(lengths) for t in range(length)]


def test_packed_by_hand() -> None:
    packed = Packed(torch.tensor([10, 11, 12, 30]), torch.tensor([3, 0, 1]))
    assert packed.offsets.tolist() == [0, 3, 3, 4]
    assert packed.item_index().tolist() == [0, 0, 0, 2]
    assert packed.positions().tolist() == [0, 1, 2, 0]
    assert packed.pad().values.tolist() == [[10, 11, 12], [0, 0, 0], [30, 0, 0]]
    doubled = packed.with_values(packed.values * 2)
    assert [part.tolist() for part in doubled.split()] == [[20, 22, 24], [], [60]]


def test_mask_is_true_where_steps_are_real() -> None:
    padded = Padded(torch.zeros(3, 3), torch.tensor([2, 0, 3]))
    assert padded.mask.tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
    ]


@given(lengths_of_items)
def test_what_lies_in_the_padding_is_never_packed(lengths: list[int]) -> None:
    clean = Padded.stack(items_of(lengths, 2))
    dirty = Padded(clean.values.masked_fill(~clean.mask[..., None], torch.nan), clean.lengths)
    assert torch.equal(dirty.pack().values, clean.pack().values)
    assert torch.equal(dirty.pack().pad().values, clean.values)


def test_padded_refuses_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3,\)"):
        Padded(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(2,\) and \(2,\)"):
        Padded(torch.zeros(2), torch.zeros(2, dtype=torch.int64))


def test_stack_keeps_the_type_of_its_items() -> None:
    padded = Padded.stack([torch.ones(2, 4, 4, dtype=torch.uint8)] * 2)
    assert padded.values.dtype == torch.uint8
    assert len(padded) == 2


def labelled_batch() -> Batch:
    return Batch(
        ("a", "b", "c"),
        {"audio": Padded.stack(items_of([2, 0, 1], 80))},
        {
            "transcript": Padded.stack(
                [torch.tensor([4, 5, 6]), torch.tensor([]), torch.tensor([7])]
            ),
            "speaker": torch.tensor([0, UNLABELLED, UNLABELLED]),
            "sentiment": torch.tensor([0.0, float("nan"), -3.0]),
            "emotions": torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [float("nan")] * 2]),
        },
    )


def test_a_batch_counts_the_items_that_carry_a_label() -> None:
    batch = labelled_batch()
    assert len(batch) == 3
    assert batch.labelled("transcript").tolist() == [True, False, True]
    assert batch.labelled("speaker").tolist() == [True, False, False]
    assert batch.labelled("sentiment").tolist() == [True, False, True]
    assert batch.labelled("emotions").tolist() == [True, False, False]
    assert [batch.count(name) for name in ("transcript", "speaker", "sentiment")] == [2, 1, 2]
    bare = Batch(("a",), {})
    assert bare.count("speaker") == 0 and bare.labelled("speaker").shape == (1,)


def test_moving_a_batch_keeps_its_values() -> None:
    batch = labelled_batch()
    moved = batch.to("cpu")
    assert moved.keys == batch.keys
    assert torch.equal(moved.inputs["audio"].values, batch.inputs["audio"].values)
    assert moved.count("transcript") == 2


def test_a_batch_refuses_unknown_names_and_uneven_sizes() -> None:
    audio = Padded.stack(items_of([1, 2], 80))
    with pytest.raises(ValueError, match="vision"):
        Batch(("a", "b"), {"vision": audio})
    with pytest.raises(ValueError, match="mood"):
        Batch(("a", "b"), {"audio": audio}, {"mood": torch.zeros(2)})
    with pytest.raises(ValueError, match="audio has 2 items, the batch has 3"):
        Batch(("a", "b", "c"), {"audio": audio})


def test_stream_subsets_and_their_names() -> None:
    subsets = stream_subsets()
    assert [subset_name(subset) for subset in subsets] == [
        "audio",
        "video",
        "text",
        "audio+video",
        "audio+text",
        "video+text",
        "audio+video+text",
    ]
    assert all(parse_subset(subset_name(subset)) == subset for subset in subsets)
    assert subset_name(reversed(STREAMS)) == "audio+video+text"
    assert parse_subset("text+audio") == ("audio", "text")
    for wrong in ("", "audio+smell"):
        with pytest.raises(ValueError, match="name one or more of audio, video, text"):
            parse_subset(wrong)


def test_turns_are_counted_one_by_one() -> None:
    turns = Padded.stack([torch.tensor([0, -1, 2]), torch.tensor([-1]), torch.tensor([1])])
    who = Padded.stack([torch.tensor([0, 1, 0]), torch.tensor([0]), torch.tensor([0])])
    batch = Batch(
        ("a", "b", "c"), {}, {"turn_emotion": turns}, {"turn_speaker": who, "row": torch.arange(3)}
    )
    assert batch.count("turn_emotion") == 3
    assert batch.to("cpu").context["turn_speaker"].lengths.tolist() == [3, 1, 1]
    with pytest.raises(ValueError, match=r"context \['mood'\]"):
        Batch(("a",), {}, {}, {"mood": torch.zeros(1)})
