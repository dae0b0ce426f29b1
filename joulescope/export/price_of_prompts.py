"""What computing prompts cost of late: a line through the accounts of finished requests."""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.model import FinishedRequest

_MEMORY = 0.98
"""What an account counts for when the next one comes: the last fifty or so decide."""


@dataclass(frozen=True, slots=True)
class PromptPrice:
    """Sums of a regression of prefill joules on computed tokens, by relative error, the latest most.

    A prompt shares a step whose weights are read once, so that short ones cost more a token: the line has
    a constant. The joules of the accounts and their tokens match, which totals read at one instant do not.
    """

    weight: float = 0.0
    """Σ 1/tokens²"""
    tokens: float = 0.0
    """Σ 1/tokens"""
    squares: float = 0.0
    """Σ 1"""
    joules: float = 0.0
    """Σ joules/tokens²"""
    products: float = 0.0
    """Σ joules/tokens"""
    computed: float = 0.0
    """Σ tokens computed"""
    prompts: float = 0.0
    """Σ tokens of the prompts, those found in a cache included"""
    time_ns: int = 0

    def with_request(self, request: FinishedRequest) -> PromptPrice:
        """What is known with one more account; the same, if it says nothing."""
        tokens, joules = request.prompt_tokens - request.cached_tokens, request.prefill_joules
        if tokens <= 0 or not joules or not request.complete or request.first_token_ns is None:
            return self
        return PromptPrice(
            weight=_MEMORY * self.weight + 1.0 / tokens**2,
            tokens=_MEMORY * self.tokens + 1.0 / tokens,
            squares=_MEMORY * self.squares + 1.0,
            joules=_MEMORY * self.joules + joules / tokens**2,
            products=_MEMORY * self.products + joules / tokens,
            computed=_MEMORY * self.computed + tokens,
            prompts=_MEMORY * self.prompts + request.prompt_tokens,
            time_ns=request.end_ns,
        )

    def together(self, other: PromptPrice) -> PromptPrice:
        """Of two engines that serve the same."""
        names = ("weight", "tokens", "squares", "joules", "products", "computed", "prompts")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return PromptPrice(**sums, time_ns=max(self.time_ns, other.time_ns))

    def joules_of(self, tokens: float) -> float | None:
        """Expected joules of a prompt of which so many tokens are computed."""
        if tokens <= 0.0 or not self.squares:
            return None
        determinant = self.weight * self.squares - self.tokens**2
        if determinant > 1e-6 * self.weight * self.squares:
            slope = (self.weight * self.products - self.tokens * self.joules) / determinant
            constant = (self.squares * self.joules - self.tokens * self.products) / determinant
            if slope > 0.0 and constant >= 0.0:
                return constant + slope * tokens
        return tokens * self.products / self.squares

    def computed_of(self, prompt_tokens: int, cached_tokens: int | None) -> float:
        """Tokens of a prompt that were computed; where it is not told, as many as is usual."""
        if cached_tokens is not None or not self.prompts:
            return max(prompt_tokens - (cached_tokens or 0), 1)
        return max(prompt_tokens * self.computed / self.prompts, 1.0)
