"""What a model makes of prompts: the objective, the cross-entropy, and the slope of both by token.

Everything before the free tokens is run once; its keys and values serve every prompt. A prompt that
opens as another does is run from where they part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache, DynamicLayer

from saeflow.models.fast_layers import few_tokens
from saeflow.models.hooks import attach
from saeflow.models.running import Stop, check_length, position_chunks, unembed

if TYPE_CHECKING:
    from saeflow.analyses.dreaming.frame import Frame
    from saeflow.analyses.dreaming.objectives import Objective
    from saeflow.models.language_model import LanguageModel

Position = Literal["last", "maximum", "end"]
_TOKENS_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 16}
"""Tokens of one pass, those of the frame that every row reads included."""
_LOGITS_AT_ONCE = {"cpu": 1 << 26, "cuda": 1 << 29}
"""Numbers that the predictions of parents hold at once, and those that an objective reads."""


class Scores(NamedTuple):
    """What prompts are worth; on the CPU.

    Attributes:
        values: the objective.
        losses: mean cross-entropy of the free tokens in nats, given what stands before each.
    """

    values: Float[Tensor, " rows"]
    losses: Float[Tensor, " rows"]


class Family(NamedTuple):
    """Prompts, and others that differ from one of them.

    Attributes:
        parents: prompts.
        of: the target of each parent, and of all its children.
        children: prompts.
        parent: of each child the place of its parent.
    """

    parents: Int[Tensor, "parents n"]
    of: Int[Tensor, " parents"]
    children: Int[Tensor, "rows n"]
    parent: Int[Tensor, " rows"]


class Ranked(NamedTuple):
    """Prompts' scores, and tokens that promise most in their places."""

    scores: Scores
    tokens: Int[Tensor, "rows n top"]
    """By the slope of ``weight × loss - value / scale``, the steepest descent first; on the CPU."""


class Scorer:
    """Runs prompts in a frame.

    Args:
        lm: the model.
        frame: around the prompts.
        objective: what is read.
        position: of which token: ``last`` of the free ones, the ``maximum`` over them but one that
            nothing stands before, or the ``end`` of the frame behind them.

    Raises:
        SaeflowError: the frame leaves no room in the model's context.
    """

    def __init__(
        self, lm: LanguageModel, frame: Frame, objective: Objective, position: Position
    ) -> None:
        check_length(lm, len(frame.before) + 1 + len(frame.after))
        self.lm, self._frame, self._objective, self._position = lm, frame, objective, position
        self._embed = lm.model.get_input_embeddings()
        self._after = torch.tensor(frame.after, dtype=torch.long, device=lm.device)
        self._cache: DynamicCache | None = None
        self._opening = torch.tensor(frame.before, dtype=torch.long, device=lm.device)
        self._first: Tensor | None = None
        """Log-probabilities of the first free token."""
        if frame.before:
            self._open()

    @torch.no_grad()
    def _open(self) -> None:
        lm = self.lm
        shares = not (lm.keeps_states or lm.family.adapted)
        cache = DynamicCache() if shares else None
        states = lm.decoder(
            self._opening[None], past_key_values=cache, use_cache=shares
        ).last_hidden_state
        self._first = unembed(lm, states[0, -1:]).float().log_softmax(-1)[0]
        self._cache = cache

    @torch.no_grad()
    def score(
        self, prompts: Int[Tensor, "rows n"], of: Int[Tensor, " rows"], losses: bool = True
    ) -> Scores:
        """The scores of prompts.

        Args:
            prompts: free tokens alone.
            of: the target of each.
            losses: whether cross-entropy is asked for; without it nothing above the hook is run,
                and all losses are 0.
        """
        values, costs = [], []
        for part in self._parts(len(prompts), prompts.shape[1]):
            tokens, targets = prompts[part].to(self.lm.device), of[part].to(self.lm.device)
            cache = self._opened(len(tokens))
            along, states = self._run(self._embed(tokens), targets, losses, cache)
            values.append(self._at(along, tokens.shape[1]).float().cpu())
            cost = self._losses(states, tokens) if states is not None else torch.zeros(len(tokens))
            costs.append(cost.cpu())
        if not values:
            return Scores(torch.empty(0), torch.empty(0))
        return Scores(torch.cat(values), torch.cat(costs))

    @torch.no_grad()
    def score_children(self, family: Family) -> Scores:
        """The scores of children as `score` gives them; what a child opens with as its parent does
        is run once, with the parent."""
        if self._cache is None:
            return self.score(family.children, family.of[family.parent])
        values, losses = torch.empty(len(family.parent)), torch.empty(len(family.parent))
        n, device = family.parents.shape[1], self.lm.device
        most = max(1, _LOGITS_AT_ONCE[device.type] // (n * self.lm.d_vocab))
        for part in self._parts(len(family.parents), n, most):
            own = torch.arange(len(family.parents))[part]
            inside = torch.isin(family.parent, own).nonzero()[:, 0]
            if len(inside):
                parents, of = family.parents[part].to(device), family.of[part].to(device)
                children, parent = (
                    each[inside].to(device) for each in (family.children, family.parent - own[0])
                )
                scores = self._from_parents(Family(parents, of, children, parent))
                values[inside], losses[inside] = scores.values, scores.losses
        return Scores(values, losses)

    def _from_parents(self, family: Family) -> Scores:
        parents, of, children, parent = family
        n = parents.shape[1]
        cache = self._opened(len(parents))
        along, states = self._run(self._embed(parents), of, True, cache)
        assert states is not None
        assert cache is not None
        log_probs = self._log_probs(states, n)
        spent = -log_probs.gather(2, parents[..., None])[..., 0]
        values = self._at(along, n)[parent].float()
        losses = spent.mean(1)[parent]
        differs = parents[parent] != children
        parts_at = torch.where(differs.any(1), differs.int().argmax(1), n)
        for place in range(n):
            every = (parts_at == place).nonzero()[:, 0]
            for part in self._parts(len(every), n):
                rows = every[part]
                above, tokens = parent[rows], children[rows]
                begun = _cropped(cache, len(self._frame.before) + place, above)
                needed = place < n - 1  # what the last token predicts is not scored
                own, later = self._run(self._embed(tokens[:, place:]), of[above], needed, begun)
                values[rows] = self._at(torch.cat([along[above, :place], own], dim=1), n).float()
                cost = spent[above, :place].sum(1) - log_probs[above, place, tokens[:, place]]
                if later is not None:
                    cost = cost + self._next_losses(later, tokens[:, place:]).sum(1)
                losses[rows] = cost / n
        return Scores(values.cpu(), losses.cpu())

    @torch.no_grad()
    def along(
        self, prompts: Int[Tensor, "rows n"], of: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows n"]:
        """The objective at every free token; on the CPU."""
        rows = []
        for part in self._parts(len(prompts), prompts.shape[1]):
            tokens, targets = prompts[part].to(self.lm.device), of[part].to(self.lm.device)
            cache = self._opened(len(tokens))
            along, _ = self._run(self._embed(tokens), targets, False, cache)
            rows.append(along[:, : tokens.shape[1]].float().cpu())
        return torch.cat(rows) if rows else torch.empty(prompts.shape)

    def rank(
        self,
        prompts: Int[Tensor, "rows n"],
        of: Int[Tensor, " rows"],
        weights: Float[Tensor, " rows"],
        scales: Float[Tensor, " rows"],
        alphabet: Int[Tensor, " tokens"],
        top: int,
    ) -> Ranked:
        """Score prompts, and rank what may stand in each place.

        Args:
            prompts: free tokens alone.
            of: the target of each.
            weights: of cross-entropy, for each row that of its own slot.
            scales: of the objective.
            alphabet: tokens that may stand there.
            top: how many are told.
        """
        values, losses, ranked = [], [], []
        width = len(self._frame.before) + prompts.shape[1] + len(self._frame.after)
        most = max(1, _TOKENS_AT_ONCE[self.lm.device.type] // width // 4)
        for part in self._parts(len(prompts), prompts.shape[1], most):
            scores, slopes = self._slopes(prompts[part], of[part], weights[part], scales[part])
            values.append(scores.values)
            losses.append(scores.losses)
            own = slopes(alphabet.to(self.lm.device))
            best = own.topk(min(top, own.shape[-1]), dim=-1, largest=False).indices
            ranked.append(alphabet[best.cpu()])
        return Ranked(Scores(torch.cat(values), torch.cat(losses)), torch.cat(ranked))

    def slopes(
        self,
        prompts: Int[Tensor, "rows n"],
        of: Int[Tensor, " rows"],
        weights: Float[Tensor, " rows"],
        scales: Float[Tensor, " rows"],
        alphabet: Int[Tensor, " tokens"],
    ) -> Float[Tensor, "rows n tokens"]:
        """The slope of ``weight × loss - value / scale`` towards each token in each place; on the
        CPU."""
        _, of_tokens = self._slopes(prompts, of, weights, scales)
        return of_tokens(alphabet.to(self.lm.device)).cpu()

    def _slopes(
        self,
        prompts: Int[Tensor, "rows n"],
        of: Int[Tensor, " rows"],
        weights: Float[Tensor, " rows"],
        scales: Float[Tensor, " rows"],
    ) -> tuple[Scores, Callable[[Int[Tensor, " tokens"]], Float[Tensor, "rows n tokens"]]]:
        device = self.lm.device
        tokens, of, weights, scales = (
            each.to(device) for each in (prompts, of, weights.float(), scales.float())
        )
        n, fluent = tokens.shape[1], bool(weights.any())
        with torch.enable_grad():
            embedded = self._embed(tokens).detach().requires_grad_()
            along, states = self._run(embedded, of, fluent, self._opened(len(tokens)))
            values = self._at(along, n).float()
            goal = -values / scales
            losses, log_probs = torch.zeros_like(values), None
            if states is not None:
                log_probs = self._log_probs(states, n)
                losses = self._mean_loss(log_probs, tokens)
                goal = goal + weights * losses
            (gradient,) = torch.autograd.grad(goal.sum(), embedded)
        scores = Scores(values.detach().cpu(), losses.detach().cpu())

        def of_tokens(alphabet: Int[Tensor, " tokens"]) -> Float[Tensor, "rows n tokens"]:
            with torch.no_grad():
                slopes = (gradient @ self._embed(alphabet).T).float()
                if log_probs is not None:
                    # a token is also what is predicted in its place
                    scored = log_probs.shape[1]
                    share = weights[:, None, None] / scored
                    slopes[:, n - scored :] -= share * log_probs.detach()[..., alphabet]
            return slopes

        return scores, of_tokens

    def _parts(self, rows: int, n: int, at_once: int | None = None) -> Sequence[slice]:
        width = len(self._frame.before) + n + len(self._frame.after)
        check_length(self.lm, width)
        most = max(1, _TOKENS_AT_ONCE[self.lm.device.type] // width)
        if self._objective.hook is None:  # logits of every token are held
            logits = (n + len(self._frame.after)) * self.lm.d_vocab
            most = min(most, max(1, _LOGITS_AT_ONCE[self.lm.device.type] // logits))
        most = min(most, at_once or most)
        return [slice(first, first + most) for first in range(0, rows, most)]

    def _opened(self, rows: int) -> DynamicCache | None:
        """The keys and values of what stands before the free tokens, for so many prompts."""
        if self._cache is None:
            return None
        nothing = torch.zeros(rows, dtype=torch.long, device=self.lm.device)
        return _cropped(self._cache, len(self._frame.before), nothing)

    def _run(
        self,
        embedded: Float[Tensor, "rows n d_model"],
        of: Int[Tensor, " rows"],
        losses: bool,
        cache: DynamicCache | None,
    ) -> tuple[Float[Tensor, "rows pos"], Float[Tensor, "rows pos d_model"] | None]:
        """The objective at every position behind what the cache holds, and final states of them; no
        states where no cross-entropy is asked for. What stands behind the free tokens is run where
        the objective is read there."""
        lm, rows, inputs, opening = self.lm, len(embedded), embedded, 0
        if self._position == "end":
            behind = self._embed(self._after).expand(rows, -1, -1)
            inputs = torch.cat([embedded, behind], dim=1)
        if cache is None and self._frame.before:
            opening = len(self._frame.before)
            inputs = torch.cat([self._embed(self._opening).expand(rows, -1, -1), inputs], dim=1)
        objective, read = self._objective, []

        def see(tensor: Tensor) -> None:
            read.append(tensor)
            if not losses:
                raise Stop

        hooks = [(objective.hook, see)] if objective.hook else []
        states = None
        with suppress(Stop), attach(lm, hooks), few_tokens(lm.model):
            states = lm.decoder(
                inputs_embeds=inputs, past_key_values=cache, use_cache=cache is not None
            ).last_hidden_state[:, opening:]
        if objective.hook is None:
            assert states is not None
            read = [unembed(lm, states.flatten(0, 1)).view(*states.shape[:2], -1)]
        else:
            read = [read[0][:, opening:]]
        return objective.along(read[0], of), states if losses else None

    def _at(self, along: Float[Tensor, "rows pos"], n: int) -> Float[Tensor, " rows"]:
        if self._position == "maximum":
            # what nothing stands before is unlike any other token to a model
            first = 0 if self._frame.before or n == 1 else 1
            return along[:, first:n].amax(1)
        return along[:, n - 1 if self._position == "last" else -1]

    def _log_probs(
        self, states: Float[Tensor, "rows pos d_model"], n: int
    ) -> Float[Tensor, "rows scored d_vocab"]:
        """Of every free token given what stands before it; without an opening not of the first."""
        rows = states[:, : n - 1].flatten(0, 1)
        later = unembed(self.lm, rows).float().log_softmax(-1).view(len(states), n - 1, -1)
        if self._first is None:
            return later
        return torch.cat([self._first.expand(len(states), 1, -1), later], dim=1)

    @staticmethod
    def _mean_loss(
        log_probs: Float[Tensor, "rows scored d_vocab"], tokens: Int[Tensor, "rows n"]
    ) -> Float[Tensor, " rows"]:
        scored = tokens[:, tokens.shape[1] - log_probs.shape[1] :]
        return -log_probs.gather(2, scored[..., None])[..., 0].mean(1)

    def _losses(
        self, states: Float[Tensor, "rows pos d_model"], tokens: Int[Tensor, "rows n"]
    ) -> Float[Tensor, " rows"]:
        """As `_mean_loss`, a part of the logits at a time."""
        later = self._next_losses(states, tokens)
        if self._first is None:
            return later.mean(1) if tokens.shape[1] > 1 else later.sum(1)
        first = -self._first[tokens[:, :1]]
        return torch.cat([first, later], dim=1).mean(1)

    def _next_losses(
        self, states: Float[Tensor, "rows pos d_model"], tokens: Int[Tensor, "rows n"]
    ) -> Float[Tensor, "rows n_1"]:
        """The cross-entropy of every token but the first of those that states are of."""
        rows, targets = states[:, : tokens.shape[1] - 1].flatten(0, 1), tokens[:, 1:].flatten()
        parts = [
            cross_entropy(unembed(self.lm, rows[part]).float(), targets[part], reduction="none")
            for part in position_chunks(self.lm, len(rows))
        ]
        return torch.cat([rows.new_empty(0, dtype=torch.float32), *parts]).view(len(tokens), -1)


def _cropped(cache: DynamicCache, length: int, rows: Int[Tensor, " rows"]) -> DynamicCache:
    """Some rows of a cache, up to a length."""
    cropped = DynamicCache()
    for layer in cache.layers:
        own = DynamicLayer()
        if layer.is_initialized:
            own.lazy_initialization(layer.keys, layer.values)
            own.keys, own.values = (
                each[:, :, :length].index_select(0, rows) for each in (layer.keys, layer.values)
            )
        cropped.layers.append(own)
    return cropped
