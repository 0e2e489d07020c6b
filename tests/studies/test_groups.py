"""Which items a bootstrap draws together."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mmembed.data.manifest.utterance import Utterance
from mmembed.studies.groups import Groups, group_items

KEYS = ("k1", "k2", "k3")
Names = Sequence[str | None]


def grouped(keys: Sequence[str], speakers: Names, dialogues: Names, item: str = "clip") -> Groups:
    rows = [
        Utterance(key, None, transcript="so", speaker=speaker, dialogue=dialogue)
        for key, speaker, dialogue in zip(keys, speakers, dialogues, strict=True)
    ]
    return group_items(rows, item)


def test_items_are_grouped_by_speaker() -> None:
    groups = grouped(KEYS, ("ann", "bob", "ann"), ("d", "d", "d"))
    assert (groups.names, groups.kind) == (("ann", "bob", "ann"), "speaker")


def test_without_speakers_by_dialogue() -> None:
    groups = grouped(KEYS, (None, "", " "), ("d", "e", "d"))
    assert (groups.names, groups.kind) == (("d", "e", "d"), "dialogue")


def test_without_either_each_by_itself() -> None:
    assert grouped(KEYS, (None,) * 3, (None, "", None)).names == KEYS
    assert grouped(KEYS, (None,) * 3, (None,) * 3).kind == "clip"
    assert grouped(KEYS, (None,) * 3, (None,) * 3, "text").kind == "text"
    assert grouped((), (), ()).kind == "clip"


def test_a_speaker_and_a_dialogue_of_one_name_are_two_groups() -> None:
    groups = grouped(("x", "y", "z"), ("x", None, None), ("d", "x", None))
    assert groups.names == ("speaker x", "dialogue x", "clip z")
    assert groups.kind == "speaker or dialogue or clip"
    assert grouped(KEYS, ("a", None, "a"), ("d", "d", "d")).kind == "speaker or dialogue"


NAMES = st.sampled_from([None, "", "a", "b", "speaker a", "dialogue a", "clip a", "None"])


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=8))
def test_two_items_share_a_group_only_where_they_share_what_names_it(
    rows: list[tuple[str | None, str | None]],
) -> None:
    speakers, dialogues = zip(*rows, strict=True)
    keys = tuple(f"a{number}" for number in range(len(rows)))
    names = grouped(keys, speakers, dialogues).names
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            by_speaker = bool(one[0]) and one[0] == other[0]
            by_dialogue = not one[0] and not other[0] and bool(one[1]) and one[1] == other[1]
            assert (names[i] == names[j]) == (i == j or by_speaker or by_dialogue)
