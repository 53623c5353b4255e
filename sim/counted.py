"""Numbers of things, in words."""


def counted(number: int, noun: str, form: str = ",") -> str:
    """`1 turn`, `1,200 turns`; the number as `form` has it."""
    return f"{number:{form}} {noun}{'' if abs(number) == 1 else 's'}"
