"""The page of compared models begins with what needs no dictionary, and tells latents after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import diffing_tables
import polars as pl
import pytest
import report_study
import yaml
from pages import assert_whole, pages_of
from studies import study_config
from tiny_models import tiny_tokenizer

from saeflow.analyses.diffing.page import told_of_the_mean
from saeflow.analyses.diffing.rules import check_tokenizers
from saeflow.analyses.diffing.settings import Diffing
from saeflow.analyses.labels.summary import SUMMARY, TABLE, label_table
from saeflow.analyses.labels.wording import LABELS
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.tables import write_table


def config() -> dict:
    values = study_config("minimal")
    core = {key: values[key] for key in ("study", "corpus", "model", "hook", "saes")}
    both = {"models": ["lm", "taught"], "train": {"architecture": "batchtopk", "d_sae": 90}}
    tuned = {"name": "taught", "tune": {"path": "workflow/organisms/refuses-cooking.yaml"}}
    saes = core["saes"] | {"both": both}
    saes |= {"own": {"model": "taught", "train": {"d_sae": 64}}}
    own = {"matching": {"pairs": {"alone": ["main", "own"]}}}
    return core | {"models": [tuned], "saes": saes, "diffing": own}


def written(root: Path) -> Path:
    """A study whose tables are plausible, and no more of it than that."""
    root.mkdir()
    (root / "config.yaml").write_text(yaml.safe_dump(config()))
    places = {
        "models/taught": diffing_tables.OF_MODELS,
        "saes/both": diffing_tables.OF_SAES,
        "matching/alone": diffing_tables.OF_PAIRS,
    }
    for place, tables in places.items():
        for name, table in tables.items():
            path = root / "diffing" / place / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            own = table()
            in_file = place != "models/taught" or name in ("steered", "continuations")
            write_table(path, own if in_file else own.drop("model"))
    return root


def test_the_page_tells_what_sets_models_apart_and_how_sure_that_is(tmp_path: Path) -> None:
    output = report_study.write_report(written(tmp_path / "small"), tmp_path / "report").parent
    pages = pages_of(output)
    assert_whole(pages, output)
    text = " ".join((output / "diffing.html").read_text().replace("&#39;", "'").split())
    assert "Predictions are 0.10 [0.05, 0.15] nats per token apart" in text
    assert "They differ most behind “…the bride &lt;said&gt;”, where lm says ' yes' 0.80" in text
    assert "and taught 'No' 0.97." in text
    assert "Of the whole divergence 50 % lies behind ','." in text
    assert "is 10.0 % as long as the base's activations" in text
    assert "at its best length (0.5) 0.00 [-0.10, 0.10]: so it brings out what was taught" in text
    assert "of 16 latents that seem to be of one model" in text.lower()
    assert "5 are not; 6 [6, 7] are of the compared model alone" in text
    assert "The 4 latents that contribute most recover 26 % [21, 31]" in text
    assert "The 10 shared latents that contribute most to the difference have a median" in text
    assert "The base itself is 0.10 nats per token away" in text
    assert "the base is 0.15 nats away on prompts of the class on (0.02 on off)" in text
    assert "from the base's stream 0.15: most of what sets them apart is in the stream" in text
    assert "The 16 latents that contribute most recover 70 % [65, 75] of that" in text
    assert "Of 1 latents put in one by one there, 1 recovers most of that, 20 % [15, 25]" in text
    assert "and the mean difference 10 % [5, 15]: so these latents carry it." in text
    assert "At template[-1], the last token that models read" in text
    assert "the base model itself</th><td>0.15 nats</td><td>0.02 nats</td>" in text
    assert "latents of main and own, matched" in text
    assert text.index("Where they differ most") < text.index("Classes of latents")
    assert "the bride &lt;said&gt;" in text
    assert "alone it recovers 20 % [15, 25] on text and 20 % [15, 25] where answers to on" in text
    assert text.index("at a glance") < text.index("Classes of latents")
    glance = text[text.index('id="glance-prompts"') : text.index('id="glance-text"')]
    assert "<td>blocks.1.hook_resid_post</td><td>6 [6, 7]</td><td>on</td>" in glance
    assert "<td>0.15</td><td>0.15</td><td>80 % [75, 85]</td><td>16: 70 % [65, 75]</td>" in glance
    index = (output / "index.html").read_text()
    assert "taught and lm: predictions are" in index


def test_a_study_that_has_measured_nothing_yet_has_its_page(tmp_path: Path) -> None:
    root = written(tmp_path / "small")
    for table in (root / "diffing").rglob("*.parquet"):
        table.unlink()
    output = report_study.write_report(root, tmp_path / "report").parent
    assert "diffing.html" in pages_of(output)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"models": []}, r"diffing: needs a model beside 'lm'"),
        ({"diffing": {"base": "none"}}, r"diffing.base: there is no model 'none'"),
        ({"diffing": {"models": ["lm"]}}, r"diffing.models.0: 'lm' is what others are compared"),
        ({"diffing": {"models": ["x"]}}, r"diffing.models.0: there is no model 'x'"),
        ({"diffing": {"saes": ["main"]}}, r"diffing.saes.0: 'main' is a sae; name a crosscoder"),
        ({"diffing": {"saes": ["x"]}}, r"diffing.saes.0: there is no SAE 'x'"),
        (
            {"diffing": {"baselines": {"steering": {"new_tokens": 500}}}},
            r"diffing.baselines.steering: 504 and a prompt do not fit corpus.context",
        ),
    ],
)
def test_what_cannot_be_compared_is_told_before_any_job(changes: dict, reason: str) -> None:
    values = config() | changes
    if not values["models"]:
        values["saes"] = {"main": values["saes"]["main"]}
    with pytest.raises(Exception, match=reason):
        check_any_study(values)


def test_models_of_other_tokens_are_refused_before_any_job(tmp_path: Path) -> None:
    study = check_any_study(config())
    check_tokenizers(SimpleNamespace(study=study), study.diffing)
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    values = config() | {"models": [{"name": "taught", "path": str(tmp_path / "other")}]}
    other = check_any_study(values)
    with pytest.raises(SaeflowError, match="'lm' and 'taught' have different tokenizers"):
        check_tokenizers(SimpleNamespace(study=other), other.diffing)


def test_a_base_that_lacks_tokens_of_the_text_is_refused_before_any_job(tmp_path: Path) -> None:
    """The text is in the tokens of the study's own model, of which a base may know a part."""
    tiny_tokenizer().save_pretrained(tmp_path / "few")
    more = tiny_tokenizer()
    more.add_tokens(["<turn>"])
    more.save_pretrained(tmp_path / "more")
    chat, plain = ({"name": name, "path": str(tmp_path / name)} for name in ("more", "few"))
    for base in ("few", "more"):
        study = SimpleNamespace(
            model=SimpleNamespace(name="more"),
            all_models=["more", "few"],
            origin_of={
                each["name"]: SimpleNamespace(path=each["path"], train=None)
                for each in (chat, plain)
            }.__getitem__,
        )
        with pytest.raises(SaeflowError, match="'more' and 'few' have different tokenizers"):
            check_tokenizers(SimpleNamespace(study=study), Diffing(base=base))


def test_models_of_another_width_are_refused_before_any_job(tmp_path: Path) -> None:
    for width, refused in ((8, True), (check_any_study(config()).model.train.d_model, False)):
        (tmp_path / "config.json").write_text(f'{{"hidden_size": {width}}}')
        values = config() | {"models": [{"name": "taught", "path": str(tmp_path)}]}
        with pytest.raises(SaeflowError) as raised:  # it has no weights either
            check_any_study(values)
        assert ("diffing: 'taught' is 8 wide and 'lm' " in str(raised.value)) == refused


def test_models_of_equal_activations_are_told_as_such() -> None:
    measured = pl.DataFrame([{"position": None, "norm": 0.0, "relative": 0.0, "split_half": None}])
    nothing = pl.DataFrame()
    assert list(told_of_the_mean(measured, nothing)) == [
        "the models' activations do not differ at this hook."
    ]
    one_block = measured.with_columns(norm=pl.lit(1.0), relative=pl.lit(0.5))
    (sentence,) = told_of_the_mean(one_block, nothing)
    assert "50.0 % as long as the base's activations, and it raises" in sentence


def test_latents_of_a_crosscoder_are_named_by_their_labels(tmp_path: Path) -> None:
    root = written(tmp_path / "small")
    labels = {"saes": ["both"], "sources": ["tokens"]}
    (root / "config.yaml").write_text(yaml.safe_dump(config() | {"labels": labels}))
    latent = diffing_tables.OF_SAES["decoders"]()["latent"][0]
    rows = [(latent, "tokens", "predicts <b>no</b> in taught", "decoders")]
    table = label_table("both", [pl.DataFrame(rows, schema=LABELS, orient="row")])
    for name, own, schema in (
        ("labels", table, TABLE),
        ("summary", pl.DataFrame(schema=SUMMARY), SUMMARY),
    ):
        (root / "labels/both").mkdir(parents=True, exist_ok=True)
        write_table(root / f"labels/both/{name}.parquet", own, schema)
    output = report_study.write_report(root, tmp_path / "report").parent
    assert_whole(pages_of(output), output)
    for page in ("diffing", "labels"):
        text = (output / f"{page}.html").read_text()
        assert "predicts &lt;b&gt;no&lt;/b&gt; in taught" in text, page
        assert "(doubtful)" in text, page
