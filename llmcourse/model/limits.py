"""What can be asked of a model: a prompt it knows the tokens of, and room behind it for an answer.

Every text a model can hold, prompt and answer together, is at most ``max_length`` tokens. A prompt that breaks a rule
is refused at the door, with the numbers; a wish for too long an answer is cut to the room there is. No torch: engine
and model share these rules. Weeks 1-2.
"""

from collections.abc import Sequence

from llmcourse.errors import UserError
from llmcourse.model.config import ModelConfig


def room_for(config: ModelConfig, tokens: Sequence[int], max_tokens: int) -> int:
    """How many tokens may follow this prompt. Raises UserError when the prompt or the wish cannot be served."""
    if not tokens:
        raise UserError("the prompt has no tokens; give at least one")
    if max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}; it must be at least 1")
    unknown = next((token for token in tokens if not 0 <= token < config.vocab_size), None)
    if unknown is not None:
        raise UserError(f"token {unknown} is unknown to the model; its ids are 0 to {config.vocab_size - 1}")
    if len(tokens) >= config.max_length:
        raise UserError(f"the prompt has {len(tokens)} tokens; the model takes texts of {config.max_length} in all, "
                        f"so at most {config.max_length - 1} may be the prompt")
    return min(max_tokens, config.max_length - len(tokens))


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raise UserError for settings that name no distribution (NaN included)."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}; it must be 0 (greedy) or a number above")
    if top_k < 0:
        raise UserError(f"top_k is {top_k}; it must be 0 (off) or the number of tokens to keep")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it must be above 0 and at most 1 (off)")
