"""KV-cache accounting in blocks, with shared prefixes that outlive their requests.

As in vLLM's V1 block pool: blocks of a prefix that no request uses any more stay until their place is
needed, least recently used first. Kept simpler than there in one respect: only declared prefixes are
found again, not any run of equal blocks, so a preempted request recomputes all but its shared prefix.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Prefix:
    blocks: int
    users: int


class KvCache:
    """Counts blocks. Requests own private blocks and may use a shared prefix.

    Args:
        total_tokens: capacity.
        block_tokens: tokens in one block (vLLM's default is 16).
    """

    def __init__(self, total_tokens: int, block_tokens: int = 16) -> None:
        self.block_tokens = block_tokens
        self.total_blocks = total_tokens // block_tokens
        self._private_blocks = 0
        self._prefixes: OrderedDict[str, _Prefix] = OrderedDict()
        self._prefix_blocks = 0
        self._unused_blocks = 0

    @property
    def usage_ratio(self) -> float:
        """Share of blocks in use by requests, 0..1; prefixes kept just in case do not count."""
        return 1.0 - self.free_blocks / self.total_blocks

    @property
    def free_blocks(self) -> int:
        """Blocks that can be had, if need be by evicting prefixes."""
        return self.total_blocks - self._private_blocks - self._prefix_blocks + self._unused_blocks

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def hit_tokens(self, prefix: str, limit_tokens: int) -> int:
        """Tokens of ``prefix`` that need not be computed, at most ``limit_tokens``, in whole blocks."""
        kept = self._prefixes.get(prefix)
        if kept is None:
            return 0
        return min(kept.blocks, limit_tokens // self.block_tokens) * self.block_tokens

    def take(self, blocks: int) -> bool:
        """Gives a request ``blocks`` more private blocks, or says that there are not so many."""
        if blocks > self.free_blocks:
            return False
        self._private_blocks += blocks
        self._evict()
        return True

    def give_back(self, blocks: int) -> None:
        self._private_blocks -= blocks

    def use(self, prefix: str) -> None:
        """A request begins to use a kept prefix, which cannot be evicted meanwhile."""
        kept = self._prefixes[prefix]
        if kept.users == 0:
            self._unused_blocks -= kept.blocks
        kept.users += 1
        self._prefixes.move_to_end(prefix)

    def release(self, prefix: str) -> None:
        kept = self._prefixes[prefix]
        kept.users -= 1
        if kept.users == 0:
            self._unused_blocks += kept.blocks

    def keep(self, prefix: str, tokens: int) -> int:
        """A request has computed ``prefix``: its whole blocks become shared, with it as first user.

        Returns:
            the private blocks that thereby passed to the prefix; 0 if another request was faster.
        """
        blocks = tokens // self.block_tokens
        if prefix in self._prefixes or blocks == 0:
            return 0
        self._prefixes[prefix] = _Prefix(blocks=blocks, users=1)
        self._prefix_blocks += blocks
        self._private_blocks -= blocks
        return blocks

    def _evict(self) -> None:
        """Drops unused prefixes, oldest first, until everything fits."""
        while self._private_blocks + self._prefix_blocks > self.total_blocks:
            name = next(name for name, prefix in self._prefixes.items() if prefix.users == 0)
            dropped = self._prefixes.pop(name)
            self._prefix_blocks -= dropped.blocks
            self._unused_blocks -= dropped.blocks
