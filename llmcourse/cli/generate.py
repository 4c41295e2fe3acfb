"""`llmcourse generate "Count from 3 to 9."`: ask a model, and watch its answer come token by token.

The answer goes to stdout as it grows, one line about how it went to stderr. A token may end inside a character, so text
is shown as soon as its characters are whole. Week 1. With ``--predictor`` a predictor that was trained and kept says
first how long the answer will be. Week 9.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmcourse.cli.parser import Parser
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.model.tokenizer import Tokenizer




def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = Parser(prog="llmcourse generate", description="Ask a model and watch its answer come.")
    made.add_argument("prompt", help="what to ask, in quotes")
    made.add_argument("--model", default="course-tiny",
                      help="course-tiny (default), a folder in Hugging Face format, or a hub name")
    made.add_argument("--device", default="auto", help="auto (default: a GPU if there is one), cpu, cuda, ...")
    made.add_argument("--temperature", type=float, default=0.0, help="0 (default) always takes the likeliest token")
    made.add_argument("--top-k", type=int, default=0, help="draw from the k likeliest tokens; 0 (default) is off")
    made.add_argument("--top-p", type=float, default=1.0, help="draw from the nucleus of mass p; 1 (default) is off")
    made.add_argument("--max-tokens", type=int, default=512, help="stop after so many tokens (default 512)")
    made.add_argument("--seed", type=int, help="the same seed draws the same answer")
    made.add_argument("--predictor", type=Path, metavar="FILE",
                      help="say first how long the answer will be, by a predictor that save_predictor wrote (week 9)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code. Raises UserError for what cannot be done."""
    args = parser().parse_args(argv)
    prompt = _readable(args.prompt)

    # Torch loads here, so that --help and slips answer at once.
    from llmcourse.model.decoding import generate_stream
    from llmcourse.model.loading import load_model

    model, tokenizer = load_model(args.model, args.device)
    if tokenizer is None:
        raise UserError(f"{args.model} has no tokenizer.json: text cannot be turned into tokens; "
                        "put the tokenizer's file into the folder")
    if args.predictor is not None:
        print(_expected(args.predictor, prompt), file=sys.stderr)
    start = time.perf_counter()
    stream = generate_stream(model, tokenizer.encode_prompt(prompt), args.max_tokens, temperature=args.temperature,
                             top_k=args.top_k, top_p=args.top_p, seed=_seed(args.seed), eos_ids=tokenizer.eos_ids)
    tokens = _show(stream, tokenizer)
    how = "ended by itself" if tokens[-1] in tokenizer.eos_ids else "cut off"
    seconds = time.perf_counter() - start
    print(f"{len(tokens)} tokens in {seconds:.2f} s ({len(tokens) / seconds:.0f} tokens/s), {how}", file=sys.stderr)
    return 0


def _readable(prompt: str) -> str:
    if not prompt.strip():
        raise UserError('the prompt is empty; ask something, for example "Count from 3 to 9."')
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError("the prompt is not text in UTF-8; check the terminal's encoding") from None
    return prompt


def _expected(path: Path, prompt: str) -> str:
    """What a kept predictor says of the prompt: tokens, or a ranker's score."""
    from llmcourse.predict import load_predictor

    predictor = load_predictor(path)
    said = float(predictor.predict([prompt])[0])
    if predictor.is_ranker:
        return f"{predictor.name} gives it a score of {said:.2f} (smaller is shorter)"
    return f"{predictor.name} expects {said:.0f} tokens"


def _seed(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"--seed is {seed}; it must be a whole number from 0 to 2^63 - 1")
    return seed


def _show(stream: Iterator[int], tokenizer: "Tokenizer") -> list[int]:
    """Print the text of the tokens as they come; returns the tokens."""
    from llmcourse.model.tokenizer import StreamDecoder

    decoder, tokens = StreamDecoder(tokenizer), []
    for token in stream:
        tokens.append(token)
        print(decoder.push(token), end="", flush=True)
    print(decoder.flush())
    return tokens
