"""The card of a repository: what it holds, from which study, how good it is, how to use it, what
made it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import yaml

from saeflow.analyses import Study
from saeflow.config.sections import Publish
from saeflow.publishing.contents import Item, without_places
from saeflow.report.wording import metric_facts

SHOWN_PER_FOLDER = 12


class Results(NamedTuple):
    """What a card tells of a study beside its config."""

    provenance: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    """By file."""
    best: pl.DataFrame
    """``steering/best.parquet``, or an empty table."""


def card(study: Study, settings: Publish, items: Sequence[Item], results: Results) -> str:
    """The text of README.md, for a reader and, in its head, for the hub.

    Args:
        study: the study.
        settings: where it is published.
        items: the files.
        results: what is known of them.
    """
    fetchable = study.model.fetchable
    model = fetchable.where if fetchable else study.model.name
    parts = [
        _head(study, settings),
        f"# {study.study}: {study.model.name} through sparse autoencoders\n",
        f"Made by the study `{study.study}` of [saeflow](https://pypi.org/project/saeflow/): model "
        f"`{model}`, hook `{study.hook}`, SAEs {', '.join(study.saes)}.\n",
        "## Files\n",
        *_files(items),
        "## Use\n",
        "In the config of a study with the same model, hook and SAE:\n",
        f"```yaml\n{_use(study, settings, items)}```\n",
        *_measured(results),
        *_table(results.best),
        "## Config\n",
        f"```yaml\n{_yaml(without_places(study).model_dump(mode='json', exclude_unset=True))}```\n",
        "## Provenance\n",
        f"```json\n{json.dumps(results.provenance, indent=2, sort_keys=True)}\n```\n",
    ]
    return "\n".join(parts)


def _head(study: Study, settings: Publish) -> str:
    fields: dict[str, Any] = {
        "tags": ["saeflow", "sparse-autoencoder", "activation-steering", "interpretability"]
    }
    if settings.licence:
        fields["license"] = settings.licence
    if study.model.published and study.model.published.repo_type == "model":
        fields["base_model"] = study.model.published.repo
    return f"---\n{_yaml(fields)}---\n"


def _files(items: Iterable[Item]) -> list[str]:
    by_folder: dict[str, list[Item]] = {}
    for item in items:
        by_folder.setdefault(item.name.rpartition("/")[0], []).append(item)
    lines = ["| file | bytes |", "|---|---:|"]
    for those in by_folder.values():
        lines += [f"| `{item.name}` | {item.size:,} |" for item in those[:SHOWN_PER_FOLDER]]
        if more := those[SHOWN_PER_FOLDER:]:
            lines.append(f"| … and {len(more)} more | {sum(item.size for item in more):,} |")
    return [*lines, ""]


def _use(study: Study, settings: Publish, items: Sequence[Item]) -> str:
    """The sections that fetch what is here."""
    names = {item.name for item in items}

    def published(file: str) -> dict[str, Any]:
        kind = {} if settings.repo_type == "model" else {"repo_type": settings.repo_type}
        return {"published": {"repo": settings.repo, **kind, "file": file}}

    sections: dict[str, Any] = {}
    for name in study.saes:
        if f"saes/{name}/cfg.json" in names:
            sections.setdefault("saes", {})[name] = published(f"saes/{name}")
    for analysis, own in study.asked:
        firsts = {name: values[0] for name, values in analysis.names(study, own).items() if values}
        for key, file in analysis.fetched(study, own).items():
            if file.format_map(firsts) in names:
                at = sections
                for part in key.split("."):
                    at = at.setdefault(part, {})
                at.update(published(file))
    return _yaml(sections) if sections else "# nothing here is fetched by a study\n"


def _measured(results: Results) -> list[str]:
    lines = []
    for file, metrics in results.metrics.items():
        if facts := metric_facts(dict(metrics)):
            lines += [f"### `{file}`\n", "| measure | value | |", "|---|---:|---|"]
            lines += [f"| {fact[0]} | {fact[1]} | {fact[2]} |" for fact in facts] + [""]
    return ["## How good it is\n", *lines] if lines else []


def _table(best: pl.DataFrame) -> list[str]:
    if best.is_empty():
        return []
    averages = best.filter(goal="average").sort("product", descending=True)
    lines = [
        "### Steering, on average over goals\n",
        "| method | behaviour × coherence | interval |",
        "|---|---:|---|",
    ]
    for row in averages.iter_rows(named=True):
        lines.append(
            f"| {row['method']} | {row['product']:.3f} | {row['product_low']:.3f} – "
            f"{row['product_high']:.3f} |"
        )
    return [
        *lines,
        "\nScales were chosen on one half of the completions and reported on the other.\n",
    ]


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
