"""How long dreaming takes beside the published program's way, and which method finds most.

    python benchmarks/dreaming.py speed --model MODEL --hook HOOK [--speaker user]
    PYTHONPATH=tests/support python benchmarks/dreaming.py planted [--seeds 3]

``speed`` searches for random directions at the hook, with as many prompts in a round. The published way: a plain transformers model, every prompt run with
all that stands before it, one-hot rows of the whole vocabulary as leaves, gradients kept on the
CPU in float32, one target at a time. ``planted`` has 20 latents that fire on bigrams of 200 words,
and tells which share each method finds, at equal compute.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saeflow.analyses.dreaming.frame import Frame, alphabet, frame_of
from saeflow.analyses.dreaming.objectives import LatentObjective, ProjectionObjective, Target
from saeflow.analyses.dreaming.scoring import Scorer
from saeflow.analyses.dreaming.search import Search, penalties
from saeflow.analyses.dreaming.settings import DreamFrame, DreamSearch
from saeflow.models.hooks import parse_hook
from saeflow.models.language_model import load_model, load_to_train


class Published:
    """EPO as the published program runs it."""

    def __init__(self, lm: Any, frame: Frame, layer: int, direction: torch.Tensor) -> None:
        self.model, self.before, self.after = lm.model.eval().requires_grad_(False), *frame
        self.block, self.direction, self.seen = lm.blocks[layer], direction, []
        self.block.register_forward_hook(self.see)
        self.table = lm.model.get_input_embeddings().weight
        self.d_vocab = len(self.table)

    def see(self, _module: Any, _inputs: Any, output: Any) -> None:
        self.seen.append(output[0] if isinstance(output, tuple) else output)

    def whole(self, prompts: torch.Tensor) -> torch.Tensor:
        before, after = (
            torch.tensor(side).expand(len(prompts), -1).long() for side in (self.before, self.after)
        )
        return torch.cat([before, prompts, after], dim=1)

    def evaluate(
        self, embedded: torch.Tensor, labels: torch.Tensor, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.clear()
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits
        first = len(self.before)
        value = self.seen[0][:, first + n - 1] @ self.direction
        log_probs = logits.log_softmax(-1)[:, first - 1 : first + n - 1]
        return value, -(log_probs * labels).sum(-1).mean(1)

    def round(
        self, prompts: torch.Tensor, weights: torch.Tensor, children: int, top: int
    ) -> torch.Tensor:
        n, first = prompts.shape[1], len(self.before)
        one_hot = torch.nn.functional.one_hot(self.whole(prompts), self.d_vocab).float()
        one_hot.requires_grad_()
        value, loss = self.evaluate(one_hot @ self.table, one_hot[:, first : first + n], n)
        (weights * loss - value).sum().backward()
        gradient = one_hot.grad[:, first : first + n].cpu()
        ranked = (-gradient).topk(top, dim=-1).indices
        rows = prompts.repeat_interleave(children, dim=0)
        places = torch.randint(n, (len(rows),))
        parents = torch.arange(len(prompts)).repeat_interleave(children)
        drawn = torch.randint(top, (len(rows),))
        rows[torch.arange(len(rows)), places] = ranked[parents, places, drawn]
        with torch.no_grad():
            own = torch.nn.functional.one_hot(rows, self.d_vocab).float()
            values, losses = self.evaluate(self.table[self.whole(rows)], own, n)
        every = torch.cat([prompts, rows])
        values, losses = torch.cat([value.detach(), values]), torch.cat([loss.detach(), losses])
        return every[(values[:, None] - weights * losses[:, None]).argmax(0)]


def speed(asked: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # two that wait for each other spend CPU on it
    lm, plain = load_model(asked.model), load_to_train(asked.model)
    layer = parse_hook(asked.hook).layer
    frame = frame_of(lm, DreamFrame(speaker=asked.speaker))
    search = DreamSearch(
        rounds=asked.rounds,
        children=asked.children,
        contexts=False,
        restart_every=0,
        tenths=False,
    )
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(asked.targets, 1, lm.d_model, generator=generator)
    vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    targets = [Target(str(i), "direction") for i in range(asked.targets)]
    scorer = Scorer(lm, frame, ProjectionObjective(asked.hook, targets, list(vectors)), "last")
    allowed = alphabet(lm, DreamFrame())
    print(f"{len(frame.before)} tokens before, {len(frame.after)} behind, {len(allowed)} allowed")
    begun = time.process_time()
    nothing = [np.empty((0, search.length), np.int64)] * asked.targets
    Search(scorer, targets, search, "epo", allowed, None, 0).run(range(asked.targets), nothing)
    own = (time.process_time() - begun) / asked.targets / asked.rounds
    weights = torch.from_numpy(penalties(search)).float()
    begun = time.process_time()
    for number in range(asked.peer_targets):
        peer = Published(plain, frame, layer, vectors[number, 0])
        prompts = torch.from_numpy(np.random.default_rng(0).choice(allowed, (8, search.length)))
        for _ in range(asked.rounds):
            prompts = peer.round(prompts, weights, search.children, min(search.top, peer.d_vocab))
    theirs = (time.process_time() - begun) / asked.peer_targets / asked.rounds
    print(
        f"CPU seconds per target and round: saeflow {own:.3f}, published way {theirs:.3f}, "
        f"{theirs / own:.1f} times"
    )


def planted(asked: argparse.Namespace) -> None:
    from planted_bigrams import HOOK, bigram_model, bigram_sae

    words, count = 200, 20
    lm = bigram_model(words)
    allowed = alphabet(lm, DreamFrame())
    for rounds in (3, 6, 12):
        best: dict[str, list[float]] = {}
        for seed in range(asked.seeds):
            draws = np.random.default_rng(seed)
            pairs = [tuple(map(int, draws.integers(1, words + 1, 2))) for _ in range(count)]
            targets = [Target(str(i), "latent", (i,)) for i in range(count)]
            objective = LatentObjective(bigram_sae(lm, pairs, seed), HOOK, targets)
            scorer = Scorer(lm, Frame([lm.bos_id], []), objective, "last")
            search = DreamSearch(
                length=6, rounds=rounds, children=8, top=32, contexts=False, penalties=[0.001, 0.01]
            )
            nothing = [np.empty((0, 6), np.int64)] * count
            for method in ("random", "epo", "adaptive"):
                run = Search(scorer, targets, search, method, allowed, None, seed)
                fronts = run.run(range(count), nothing)
                best.setdefault(method, []).extend(
                    float(each.front.values.max()) for each in fronts
                )
        for method, values in best.items():
            share = np.mean([value > 0 for value in values])
            draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
            low, high = np.quantile(draws, [0.025, 0.975])
            print(
                f"rounds {rounds:2d} {method:9s} fires {share:.2f}, mean value "
                f"{np.mean(values):+.3f} ({low:+.3f} to {high:+.3f}), {len(values)} searches"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    of_speed = kinds.add_parser("speed")
    of_speed.add_argument("--model", type=Path, required=True)
    of_speed.add_argument("--hook", required=True)
    of_speed.add_argument("--speaker", default="nobody")
    of_speed.add_argument("--rounds", type=int, default=5)
    of_speed.add_argument("--children", type=int, default=32)
    of_speed.add_argument("--targets", type=int, default=8)
    of_speed.add_argument("--peer-targets", type=int, default=2)
    of_speed.set_defaults(run=speed)
    of_planted = kinds.add_parser("planted")
    of_planted.add_argument("--seeds", type=int, default=3)
    of_planted.set_defaults(run=planted)
    arguments = parser.parse_args()
    arguments.run(arguments)
