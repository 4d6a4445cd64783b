"""A radix tree over token sequences: the stored one that shares the longest prefix. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .slots import common_prefix


class _Node:
    def __init__(self, edge: list[int], parent: _Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.key: int | None = None


class RadixTree:
    """Maps token sequences to integer keys, each sequence and each key at most once."""

    def __init__(self) -> None:
        self._root = _Node([], None)
        self._nodes: dict[int, _Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def insert(self, tokens: list[int], key: int) -> None:
        node, depth = self._descend(tokens)
        if depth < len(tokens):
            leaf = _Node(tokens[depth:], node)
            node.children[tokens[depth]] = leaf
            node = leaf
        if node.key is not None:
            del self._nodes[node.key]
        node.key = key
        self._nodes[key] = node

    def remove(self, key: int) -> None:
        node: _Node | None = self._nodes.pop(key)
        assert node is not None
        node.key = None
        while node.parent is not None and node.key is None and not node.children:
            del node.parent.children[node.edge[0]]
            node = node.parent
        self._join(node)

    def longest(self, tokens: list[int]) -> tuple[int | None, int]:
        """A key whose sequence shares the most leading tokens, and how many; None for none."""
        node, depth = self._root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            shared = common_prefix(child.edge, tokens[depth : depth + len(child.edge)])
            depth += shared
            node = child
            if shared < len(child.edge):
                break
        return (self._any_key(node), depth) if depth else (None, 0)

    def prefixes(self, tokens: list[int]) -> list[int]:
        """The keys of all stored sequences that are prefixes of `tokens`, itself included."""
        return [node.key for node in self._path(tokens) if node.key is not None]

    def _path(self, tokens: list[int]) -> Iterator[_Node]:
        node, depth = self._root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            end = depth + len(child.edge)
            if child.edge != tokens[depth:end]:
                return
            yield child
            node, depth = child, end

    def _descend(self, tokens: list[int]) -> tuple[_Node, int]:
        """The node where `tokens` ends or leaves the tree; an edge it leaves halfway is split."""
        node, depth = self._root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            shared = common_prefix(child.edge, tokens[depth : depth + len(child.edge)])
            node = child if shared == len(child.edge) else self._split(child, shared)
            depth += shared
        return node, depth

    def _split(self, node: _Node, length: int) -> _Node:
        assert node.parent is not None
        upper = _Node(node.edge[:length], node.parent)
        node.parent.children[upper.edge[0]] = upper
        node.edge, node.parent = node.edge[length:], upper
        upper.children[node.edge[0]] = node
        return upper

    def _join(self, node: _Node) -> None:
        """A node without a key and with one child is that child's edge, longer."""
        if node.parent is None or node.key is not None or len(node.children) != 1:
            return
        (child,) = node.children.values()
        child.edge = node.edge + child.edge
        child.parent = node.parent
        node.parent.children[child.edge[0]] = child

    def _any_key(self, node: _Node) -> int | None:
        while node.key is None and node.children:
            node = next(iter(node.children.values()))
        return node.key
