"""Numbers with their nouns: "1 request", "3 requests". All weeks."""


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural unless there is exactly one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
