"""The picture of the house in docs/design.md is drawn from the imports."""

from checkout import ROOT

from saeflow.describe.house import PAGE, mermaid, room_of, without_detours


def test_the_picture_in_the_docs_is_that_of_the_source() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert mermaid(ROOT / "src/saeflow") in page, "run python -m saeflow.describe.house"


def test_what_follows_through_other_rooms_is_left_out() -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert without_detours(edges) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_a_module_lies_in_its_folder_and_an_analysis_is_a_room() -> None:
    folders = {"analyses", "analyses.effects", "saes"}
    assert room_of("saeflow.saes.io", folders) == "saes"
    assert room_of("saeflow.analyses.effects.io", folders) == "analyses.effects"
    assert room_of("saeflow.analyses.reading", folders) == "analyses"
    assert room_of("saeflow.seeds", folders) == "ground"
    assert room_of("torch.nn", folders) is None
