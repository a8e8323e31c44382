"""How fast training goes: over all steps of this process, and over the last twenty."""

from typing import Any

from llmtune.training.loop import StepResult

RECENT = 20  # steps


class Pace:
    """Adds up what steps took."""

    def __init__(self):
        self._seconds = self._wait = 0.0
        self._tokens = self._positions = 0
        self._recent: list[StepResult] = []

    def note(self, result: StepResult) -> None:
        self._seconds += result.seconds
        self._wait += result.wait_seconds
        self._tokens += result.num_tokens
        self._positions += result.num_positions
        self._recent = [*self._recent[1 - RECENT :], result]

    def live_line(self) -> str:
        """What stands beside the bar."""
        recent = self._recent
        loss = sum(r.loss for r in recent) / len(recent)
        rate = sum(r.num_tokens for r in recent) / sum(r.seconds for r in recent)
        return f"loss {loss:.4f}  lr {recent[-1].lr:.2e}  {rate:,.0f} tokens/s  padding {_padding(recent):.0%}"

    def recent_rates(self) -> dict[str, float]:
        """What the log tells beside a step."""
        seconds = sum(r.seconds for r in self._recent)
        return {
            "tokens_per_second": round(sum(r.num_tokens for r in self._recent) / seconds, 1),
            "padding_share": round(_padding(self._recent), 4),
            "wait_share": round(sum(r.wait_seconds for r in self._recent) / seconds, 4),
        }

    def total_rates(self) -> dict[str, Any]:
        """What the result tells; None where there were no steps."""
        return {
            "train_seconds": round(self._seconds, 2),
            "tokens_per_second": round(self._tokens / self._seconds, 1) if self._seconds else None,
            "padding_share": round(1 - self._tokens / self._positions, 4) if self._positions else None,
            "wait_share": round(self._wait / self._seconds, 4) if self._seconds else None,
        }


def _padding(results: list[StepResult]) -> float:
    positions = sum(r.num_positions for r in results)
    return 1 - sum(r.num_tokens for r in results) / positions if positions else 0.0
