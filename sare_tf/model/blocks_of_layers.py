"""Blocks of the layers of a graph, of which a step keeps only the outputs."""

import dataclasses
import math
from collections.abc import Sequence

import keras


@dataclasses.dataclass(frozen=True)
class Block:
    """Nodes of a graph between two places where one tensor passes."""

    nodes: list
    outputs: list

    def inputs(self, known: dict) -> list[keras.KerasTensor]:
        """Returns the tensors of others that it takes."""
        tensors = {
            id(tensor): tensor
            for node in self.nodes
            for tensor in node.input_tensors
        }
        # An output of the backbone may come from an earlier block.
        tensors |= {id(tensor): tensor for tensor in self.outputs}
        return [tensor for number, tensor in tensors.items() if number in known]


def nodes_of(model: keras.Model) -> list:
    """Returns the calls of layers in a graph, each after those it needs."""
    return [
        node
        for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True)
        for node in nodes
        if not node.is_input
    ]


def divide(
    nodes: Sequence, outputs: Sequence, *, sizes: dict[int, int]
) -> list[Block]:
    """Divides nodes into the blocks with which a step holds the least.

    A step holds the outputs of all blocks, and everything of one block.

    Args:
        nodes: calls of layers, each after those it needs.
        outputs: tensors that the last block gives.
        sizes: id of each tensor of the nodes -> numbers of an image.
    """
    return _joined(_segments(nodes, outputs), sizes)


def _segments(nodes: Sequence, outputs: Sequence) -> list[Block]:
    """Divides nodes at every place where one tensor passes."""
    last_use = {}
    for position, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = position
    for tensor in outputs:
        last_use[id(tensor)] = len(nodes)
    segments, block, passing = [], [], {}
    for position, node in enumerate(nodes[:-1]):
        block.append(node)
        passing.update({id(tensor): tensor for tensor in node.outputs})
        passing = {
            number: tensor
            for number, tensor in passing.items()
            if last_use.get(number, -1) > position
        }
        if len(passing) == 1:
            segments.append(Block(block, list(passing.values())))
            block = []
    return [*segments, Block([*block, *nodes[-1:]], list(outputs))]


def _joined(segments: list[Block], sizes: dict[int, int]) -> list[Block]:
    """Joins segments that follow each other to the best blocks."""
    counts = [
        sum(sizes[id(each)] for node in segment.nodes for each in node.outputs)
        for segment in segments
    ]
    passing = [
        sum(sizes.get(id(each), 0) for each in segment.outputs)
        for segment in segments
    ]
    best, fewest = None, math.inf
    # Of segments that follow each other, as many as hold no more than this.
    for limit in {
        sum(counts[first : last + 1])
        for last in range(len(counts))
        for first in range(last + 1)
        if sum(counts[first : last + 1]) >= max(counts)
    }:
        ends, inside, largest = [], 0, 0
        for number, count in enumerate(counts):
            if inside and inside + count > limit:
                ends.append(number)
                inside = 0
            inside += count
            largest = max(largest, inside)
        held = largest + sum(passing[end - 1] for end in ends)
        if held < fewest:
            best, fewest = [*ends, len(segments)], held
    starts = [0, *best[:-1]]
    return [
        Block(
            [node for each in segments[start:end] for node in each.nodes],
            segments[end - 1].outputs,
        )
        for start, end in zip(starts, best, strict=True)
    ]
