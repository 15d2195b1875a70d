"""Shapes in signatures: `image: Float[Tensor, "n 3 h w"]` is a tensor of floats with four sides, one of 3.

The notation is jaxtyping's: a name is a side of any length, "..." or "*names" any number of sides, "" none
(and " n" begins with a space, or linters take it for a name of Python's). To Python and to static checkers it
is a plain Tensor (`typing.Annotated`), so that nothing more is needed to run. The tests put jaxtyping's own
`Float` in its place before anything else is imported, and beartype compares the kind, the number of sides and
those given as numbers with what comes and goes at each call.
"""

from typing import Annotated as Float

__all__ = ["Float"]
