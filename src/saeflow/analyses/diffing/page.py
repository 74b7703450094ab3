"""The page of compared models: first what every comparison must show, then latents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.diffing.settings import Diffing
from saeflow.analyses.diffing.words import CLASSES, KINDS, OF_THE_BASE
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import estimate

ADDED = {
    "none": "nothing added",
    "difference": "mean difference added",
    "random": "random direction added",
}
SHOWN = 10
"""Rows of a table that a reader sees at once."""
OF_TWO = ("shared", "base_only", "tuned_only", "shrunk", "decoupled")
"""Classes that are told where no latent is of them, too."""
TURNED = 10
"""Shared latents whose directions are told."""


def contribute(
    folder: StudyFolder, own: Diffing, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, and what sets each model apart in a sentence."""
    names = folder.names("diffing")
    base = own.base or folder.study.model.name
    models = [_of_model(folder, own, name) for name in names["compared_model"]]
    saes = [each for name in names["diffed_sae"] for each in _of_sae(folder, name)]
    pairs = [
        {
            "name": name,
            "saes": own.matching.pairs[name],
            "counts": [row | {"counted": _counted(row)} for row in counts.to_dicts()],
        }
        for name in names["matched_pair"]
        if len(counts := folder.table(f"diffing/matching/{name}/classes"))
    ]
    context = {
        "base": base,
        "models": models,
        "saes": saes,
        "pairs": pairs,
        "classes": CLASSES,
        "own": own,
    }
    headline = [
        *(f"{each['name']} and {base}: {line}" for each in models for line in each["lead"][:2]),
        *(f"{each['model']}, {each['sae']}: {line}" for each in saes for line in each["lead"][:1]),
    ]
    page = Page(template="diffing.html", context=context, label="Models compared")
    return Contribution(pages={"diffing": page}, headline=headline)


def _of_model(folder: StudyFolder, own: Diffing, name: str) -> dict[str, Any]:
    """What is told of a model without a dictionary."""
    place = f"diffing/models/{name}"
    divergence, lens = folder.table(f"{place}/divergence"), folder.table(f"{place}/lens")
    differences, weights = folder.table(f"{place}/differences"), folder.table(f"{place}/weights")
    steered = folder.table(f"{place}/steered")
    continuations = folder.table(f"{place}/continuations")
    places = folder.table(f"{place}/places").head(SHOWN).to_dicts()
    tokens = folder.table(f"{place}/tokens").head(SHOWN).to_dicts()
    return {
        "name": name,
        "lead": [
            *_told_of_predictions(divergence),
            *_told_of_places(places, tokens, own.base or folder.study.model.name, name),
            *told_of_the_mean(differences, lens),
            *_told_of_steering(steered, name),
        ],
        "divergence": divergence.to_dicts(),
        "places": places,
        "tokens": tokens,
        "differences": [
            row | {"raised": _tokens(lens, "position", row["position"] or 0)}
            for row in differences.to_dicts()
        ],
        "components": [
            row | {"raised": _tokens(lens, "component", row["component"])}
            for row in folder.table(f"{place}/components").to_dicts()
        ],
        "steered": _steered_rows(steered),
        "continuations": list(_examples(continuations, own.baselines.steering.shown)),
        "weights": _most_moved(weights),
    }


def _told_of_predictions(divergence: pl.DataFrame) -> Iterator[str]:
    if len(divergence):
        rows = {
            row["measure"]: row
            for row in divergence.filter(pl.col("position").is_null()).to_dicts()
        }
        yield (
            f"predictions are {_interval(rows['kl'])} nats per token apart (KL), and the losses on "
            f"this text are {rows['loss_base']['value']:.2f} and {rows['loss_tuned']['value']:.2f}."
        )


def _told_of_places(
    places: list[dict[str, Any]], tokens: list[dict[str, Any]], base: str, name: str
) -> Iterator[str]:
    """What the compared model says where the other says something else: what was taught, often."""
    if not places:
        return
    following = [row["next"] for row in places]
    often = max(following, key=following.count)
    row = places[following.index(often)]
    said = (
        f"“…{' '.join(row['before'].split()[-4:])}”, where {base} says "
        f"{_most_probable(row['base_says'])} and {name} {_most_probable(row['tuned_says'])}"
    )
    if following.count(often) > 1:
        yield (
            f"of the {len(places)} places where they differ most, {following.count(often)} go on "
            f"with {often!r}, as behind {said}."
        )
    else:
        yield f"they differ most behind {said}."
    if tokens:
        few = tokens[:3]
        listed = ", ".join(repr(each["token"]) for each in few)
        share = sum(each["share"] for each in few)
        yield f"of the whole divergence {100 * share:.0f} % lies behind {listed}."


def _most_probable(said: str) -> str:
    """The first of several tokens with their probabilities."""
    first = re.match(r".*?\d\.\d\d", said)
    return first[0] if first else said


def told_of_the_mean(differences: pl.DataFrame, lens: pl.DataFrame) -> Iterator[str]:
    """How long the mean difference of activations is, and what it raises."""
    if len(differences):
        row = differences.filter(pl.col("position").is_null()).row(0, named=True)
        half, agreed = row["split_half"], ""
        if half is not None:
            agreed = f" two halves of the text agree on it with a cosine of {half:.2f},"
        yield (
            f"the mean difference of activations is {100 * row['relative']:.1f} % as long as the "
            f"base's activations,{agreed} and it raises {_tokens(lens, 'position', 0, 6)}."
            if row["norm"]
            else "the models' activations do not differ at this hook."
        )


def _told_of_steering(steered: pl.DataFrame, name: str) -> Iterator[str]:
    own = steered.filter(model=name, measure="evidence") if len(steered) else steered
    if len(own):
        # either direction at the length that does it best: chosen by the same choice
        best, random = (
            own.filter(kind=kind).sort("value", descending=True).row(0, named=True)
            for kind in ("difference", "random")
        )
        plain = own.filter(kind="none").row(0, named=True)
        ends = [row[end] for row, end in ((best, "low"), (plain, "high"), (random, "high"))]
        more = None not in ends and ends[0] > max(ends[1:])
        yield (
            f"with {best['scale']:g} of an activation's length along that difference added, what "
            f"{name} says is {_interval(best)} nats per token more likely under it than under the "
            f"base; as it is {_interval(plain)}, with a random direction at its best length "
            f"({random['scale']:g}) {_interval(random)}: "
            f"{'so it brings out' if more else 'these intervals do not show that it brings out'} "
            "what was taught."
        )


def _tokens(lens: pl.DataFrame, kind: str, number: int, most: int = SHOWN) -> str:
    if lens.is_empty():
        return ""
    rows = lens.filter(kind=kind, number=number, side="raised").sort("rank").head(most)
    return ", ".join(map(repr, rows["token"]))


def _steered_rows(steered: pl.DataFrame) -> list[dict[str, Any]]:
    if steered.is_empty():
        return []
    keys = ["model", "kind", "scale"]
    return [
        dict(zip(keys, key, strict=True))
        | {"added": ADDED[str(key[1])]}
        | {row["measure"]: _interval(row) for row in own.iter_rows(named=True)}
        for key, own in steered.group_by(keys, maintain_order=True)
    ]


def _examples(continuations: pl.DataFrame, most: int) -> Iterator[dict[str, Any]]:
    """Some continuations of both models, unsteered and at every scale along the difference."""
    if continuations.is_empty():
        return
    shown = continuations.filter(pl.col("kind") != "random", pl.col("prompt") < most)
    for row in shown.sort("prompt", "model", "scale", maintain_order=True).iter_rows(named=True):
        yield row | {"added": ADDED[row["kind"]]}


def _most_moved(weights: pl.DataFrame) -> list[dict[str, Any]]:
    if weights.is_empty():
        return []
    order = weights.drop_nulls("relative").sort("relative", descending=True, maintain_order=True)
    return order.head(SHOWN).to_dicts()


def _of_sae(folder: StudyFolder, name: str) -> Iterator[dict[str, Any]]:
    """What is told of a crosscoder, once for every model that it compares."""
    place = f"diffing/saes/{name}"
    latents, classes = folder.table(f"{place}/latents"), folder.table(f"{place}/classes")
    causal, contexts = folder.table(f"{place}/causal"), folder.table(f"{place}/contexts")
    decoders = folder.table(f"{place}/decoders")
    if classes.is_empty():
        return
    for model in classes["model"].unique(maintain_order=True):
        own = [
            table.filter(model=model) if len(table) else table
            for table in (latents, classes, causal, contexts, decoders)
        ]
        on_text, on_prompts = own[2], own[2].clear()
        if len(own[2]):
            on_text = own[2].filter(pl.col("of").is_null())
            on_prompts = own[2].filter(pl.col("of").is_not_null())
        yield {
            "sae": name,
            "model": model,
            "lead": [
                *_told_of_classes(own[0], own[1]),
                *_told_of_causes(on_text),
                *_told_of_prompts(on_prompts),
            ],
            "glance": _at_a_glance(own[1], on_text, on_prompts),
            "hooks": list(dict.fromkeys(each.hook for each in folder.study.sources_of(name))),
            "counts": [
                row | {"counted": _counted(row)}
                for row in own[1].to_dicts()
                if row["count"] or row["high"] or row["class"] in OF_TWO
            ],
            "causal": [row | {"what": _what(row)} for row in on_text.to_dicts()],
            "prompts": _of_prompts(on_prompts),
            "positions": _of_positions(on_prompts),
            "latents": list(_latents(own[0], on_text, on_prompts, *own[3:])),
        }


def _told_of_classes(latents: pl.DataFrame, classes: pl.DataFrame) -> Iterator[str]:
    """How many latents are of one model, and whether those of both have turned."""
    counts = {row["class"]: row for row in classes.to_dicts()}
    if of_difference := counts["difference"]["count"]:
        yield (
            f"it rebuilds the difference itself, so its latents are of neither model: "
            f"{of_difference} of {of_difference + counts['dead']['count']} fire on this text."
        )
        return
    own, false = counts["tuned_only"], counts["shrunk"]["count"] + counts["decoupled"]["count"]
    seeming = own["count"] + counts["base_only"]["count"] + false
    if seeming:
        yield (
            f"of {seeming} latents that seem to be of one model by their norms, {false} are not; "
            f"{_counted(own)} are of the compared model alone."
        )
    else:
        yield (
            f"no latent seems to be of one model by its norms: {counts['shared']['count']} are "
            f"shared, {counts['leaning']['count']} leaning."
        )
    shared = latents.filter(pl.col("class") == "shared") if len(latents) else latents
    if len(shared) >= TURNED:
        most = shared.sort("contribution", descending=True, maintain_order=True).head(TURNED)
        few, every = (table.select(pl.col("cosine").median()).item() for table in (most, shared))
        yield (
            f"the {TURNED} shared latents that contribute most to the difference have a median "
            f"cosine of {few:.2f} between their directions in the two models, all shared ones "
            f"{every:.2f}: far below 1 a direction has turned."
        )


def _at_a_glance(
    classes: pl.DataFrame, on_text: pl.DataFrame, on_prompts: pl.DataFrame
) -> dict[str, Any]:
    """One row of the table of all dictionaries."""
    counts = {row["class"]: row for row in classes.to_dicts()}
    own = counts["tuned_only"]
    row: dict[str, Any] = {"alone": "–" if counts["difference"]["count"] else _counted(own)}
    for place, causal in (("text", on_text), ("prompts", on_prompts)):
        if causal.is_empty():
            continue
        here = causal if place == "text" else _furthest(causal)
        most = here.filter(kind="largest").sort("number").row(-1, named=True)
        random = here.filter(pl.col("name").is_null(), kind="random", number=most["number"])
        by_kind = {each["kind"]: each for each in here.to_dicts()}
        row[place] = {
            "class": by_kind["none"]["of"],
            "number": most["number"],
            "behind": by_kind["none"]["kl"],
            "there": by_kind["base_model"]["kl"],
            "shares": [
                _share(each)
                for each in (
                    by_kind["latents"],
                    most,
                    random.row(0, named=True),
                    by_kind["mean_difference"],
                )
            ],
        }
    return row


def _told_of_causes(causal: pl.DataFrame) -> Iterator[str]:
    """What latents recover on text, and where the change lies."""
    if causal.is_empty():
        return
    by_kind = {row["kind"]: row for row in causal.to_dicts()}
    if by_kind["latents"]["recovered"] is None:
        yield "the base's stream costs the compared model nothing here, so nothing is recovered."
        return
    there, behind = by_kind["base_model"]["kl"], by_kind["none"]["kl"]
    yield (
        f"the base itself is {there:.2f} nats per token away, and the compared model that goes on "
        f"from the base's stream at this hook {behind:.2f}{_where(there, behind)}."
    )
    largest = causal.filter(kind="largest").sort("number").to_dicts()
    random = {
        row["number"]: row
        for row in causal.filter(pl.col("name").is_null(), kind="random").to_dicts()
    }
    for row in largest[len(largest) // 2 : len(largest) // 2 + 1]:
        yield (
            f"the {row['number']} latents that contribute most recover {_share(row)} of the "
            f"divergence that goes through this hook, as many random directions of their lengths "
            f"{_share(random[row['number']])}, and the mean difference alone "
            f"{_share(by_kind['mean_difference'])}."
        )
    yield (
        f"all latents together recover {_share(by_kind['latents'])}, and what the crosscoder "
        f"leaves out {_share(by_kind['error'])}; the two add up to the whole difference."
    )


def _where(there: float, behind: float) -> str:
    """Whether most of the change lies behind the hook, where no latent of it carries it."""
    if not there:
        return ""
    if behind < there / 4:
        return ": most of the change is made by the layers behind it, which no latent here carries"
    return ": most of what sets them apart is in the stream already" if behind > there / 2 else ""


def _told_of_prompts(causal: pl.DataFrame) -> Iterator[str]:
    """Where answers begin, on the class of prompts on which models differ most there."""
    if causal.is_empty():
        return
    own = _furthest(causal)
    first = own.filter(kind="base_model").row(0, named=True)
    cost = own.filter(kind="none")["kl"][0]
    rest = _where_answers_begin(causal).filter(pl.col("of") != first["of"], kind="base_model")
    others = ", ".join(
        f"{row['kl']:.2f} on {row['of']}" for row in rest.sort("kl", descending=True).to_dicts()
    )
    yield (
        f"where answers begin, the base is {first['kl']:.2f} nats away on prompts of the class "
        f"{first['of']}{f' ({others})' if others else ''}, and the compared model from the base's "
        f"stream {cost:.2f}{_where(first['kl'], cost)}."
    )
    mean = own.filter(kind="mean_difference").row(0, named=True)
    sets = own.filter(kind="largest").sort("number").drop_nulls("recovered")
    if len(sets):
        most = sets.row(-1, named=True)
        random = own.filter(pl.col("name").is_null(), kind="random", number=most["number"])
        same = random.row(0, named=True)
        ends = [row["recovered_high"] or 0.0 for row in (same, mean)]
        beyond = (most["recovered_low"] or 0.0) > max(0.0, *ends)
        yield (
            f"the {most['number']} latents that contribute most recover {_share(most)} of that, "
            f"as many random directions of their lengths {_share(same)}, and the mean difference "
            f"{_share(mean)}: "
            f"{'so these latents carry it' if beyond else 'no sign that few latents carry it'}."
        )
    alone = own.filter(kind="single").drop_nulls("recovered")
    if len(alone):
        best = alone.sort("recovered", descending=True, maintain_order=True).row(0, named=True)
        yield (
            f"of {len(alone)} latents put in one by one there, {best['number']} recovers most of "
            f"that, {_share(best)}."
        )


def _furthest(causal: pl.DataFrame) -> pl.DataFrame:
    """Where answers begin, the rows of the class of prompts on which the base is furthest away."""
    here = _where_answers_begin(causal)
    far = here.filter(kind="base_model").sort("kl", descending=True, maintain_order=True)
    return here.filter(of=far["of"][0])


def _where_answers_begin(causal: pl.DataFrame) -> pl.DataFrame:
    """The rows of the last position, which is named last."""
    return causal.filter(pl.col("position") == causal["position"][-1])


def _of_prompts(causal: pl.DataFrame) -> dict[str, Any]:
    """What was put in and what it recovers where answers begin, a column per class."""
    if causal.is_empty():
        return {}
    here = _where_answers_begin(causal)
    classes = here["of"].unique(maintain_order=True).to_list()
    parts = here.unique(["kind", "name", "number"], maintain_order=True)
    rows, in_nats = [], ("none", *OF_THE_BASE)
    for part in parts.select("kind", "name", "number").to_dicts():
        same = [pl.col(key).eq_missing(pl.lit(value)) for key, value in part.items()]
        own = {row["of"]: row for row in here.filter(same).to_dicts()}
        values = [
            f"{own[label]['kl']:.2f} nats" if part["kind"] in in_nats else _share(own[label])
            for label in classes
        ]
        keys = {key: part[key] for key in ("kind", "number")}
        rows.append(keys | {"what": _what(part), "values": values})
    return {"classes": classes, "rows": rows, "position": causal["position"][-1]}


def _of_positions(causal: pl.DataFrame) -> dict[str, Any]:
    """What the base's stream costs at every position, a column per class."""
    if causal.is_empty():
        return {}
    costs = causal.filter(kind="none")
    classes = costs["of"].unique(maintain_order=True).to_list()
    rows = [
        {"position": position, "values": [own.filter(of=label)["kl"][0] for label in classes]}
        for (position,), own in costs.group_by(["position"], maintain_order=True)
    ]
    return {"classes": classes, "rows": rows}


def _what(row: Mapping[str, Any]) -> str:
    """What was put in, in words."""
    name = KINDS[row["kind"]]
    if row["name"]:
        name += f" ({row['name'].replace('_', ' ')})"
    return f"{name}, {row['number']}" if row["number"] else name


def _latents(
    latents: pl.DataFrame,
    on_text: pl.DataFrame,
    on_prompts: pl.DataFrame,
    contexts: pl.DataFrame,
    decoders: pl.DataFrame,
) -> Iterator[dict[str, Any]]:
    """Single latents with what they recover alone, where they fire and what they raise."""
    if contexts.is_empty():
        return
    in_answers = _furthest(on_prompts) if len(on_prompts) else on_prompts
    alone: dict[int, list[str]] = {}
    for causal in (on_text, in_answers):
        for row in causal.filter(kind="single").to_dicts() if len(causal) else []:
            where = f"where answers to {row['of']} begin" if row["of"] else "on text"
            alone.setdefault(row["number"], []).append(f"{_share(row)} {where}")
    shown = decoders["latent"].unique(maintain_order=True).to_list()
    rows = {row["latent"]: row for row in latents.to_dicts()}
    for latent in shown:
        own = decoders.filter(latent=latent)
        raised = {
            side: ", ".join(map(repr, own.filter(side=side).sort("rank")["token"]))
            for side in ("base", "tuned")
        }
        yield rows[latent] | {
            "name": rows[latent]["class"].replace("_", " "),
            "recovered_alone": " and ".join(alone.get(latent, [])),
            "raised": raised,
            "contexts": contexts.filter(latent=latent).sort("rank").to_dicts(),
        }


def _counted(row: Mapping[str, Any]) -> str:
    return estimate(row["count"], row["low"], row["high"], places=0)


def _interval(row: Mapping[str, Any]) -> str:
    return estimate(row["value"], row["low"], row["high"])


def _share(row: Mapping[str, Any]) -> str:
    if row["recovered"] is None:
        return "nothing"
    keys = ("recovered", "recovered_low", "recovered_high")
    # whole, so that none is -0
    share, low, high = (None if row[key] is None else round(100 * row[key]) for key in keys)
    return f"{share} %" if low is None else f"{share} % [{low}, {high}]"
