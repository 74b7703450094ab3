"""The order in which documents of several sources come."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from saeflow.seeds import numpy_generator

T = TypeVar("T")


def in_turn(
    parts: Iterable[tuple[float, Iterator[T]]], size: Callable[[T], int], at_once: int | None = None
) -> Iterator[T]:
    """Items of several iterators: the next is of the one that is furthest behind its share.

    Args:
        parts: the share of each, and its items.
        size: of an item, in what shares are shares of.
        at_once: how many are begun at a time; where one ends, the next one takes its place.
    """
    waiting = iter(parts)
    turns: list[tuple[float, int, float, Iterator[T]]] = []
    for number, (share, items) in enumerate(waiting):
        turns.append((0.0, number, share, items))
        if len(turns) == at_once:
            break
    begun = len(turns)
    while turns:
        given, number, share, items = turns[0]
        for item in items:
            heapq.heapreplace(turns, (given + size(item) / share, number, share, items))
            yield item
            break
        else:
            successor = next(waiting, None)
            if successor is None:
                heapq.heappop(turns)
            else:
                heapq.heapreplace(turns, (given, begun, *successor))
                begun += 1


def shuffled(items: Iterator[T], held: int, seed: int, *purpose: str) -> Iterator[T]:
    """Items in another order, of which so many are in memory: each next one is drawn from them.

    Args:
        items: any.
        held: how many wait; 0 leaves the order.
        seed: of the study.
        purpose: what the draws are for.
    """
    if not held:
        yield from items
        return
    draw, waiting = numpy_generator(seed, *purpose), list[T]()
    for item in items:
        if len(waiting) < held:
            waiting.append(item)
            continue
        place = int(draw.integers(held))
        yield waiting[place]
        waiting[place] = item
    yield from (waiting[place] for place in draw.permutation(len(waiting)))
