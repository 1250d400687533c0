"""Truncated power series order by order: a function is recorded once, then replayed.

- coefficient k of every intermediate result follows from lower ones by the usual recurrences,
  so M orders of a product cost M^2 / 2 multiplications
- a coefficient may be a float, an Arb ball, a Fraction, an array (a batch), or a homogeneous
  polynomial in two variables as an array of k + 1 numbers, whose product is the convolution
- the recurrences use the Euler derivative t d/dt, which multiplies grade k by k in one variable
  and in two
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

Product = Callable[[Any, Any], Any]


class Node:
    """An intermediate result of a recorded function: an operation and its operands."""

    __slots__ = ("args", "index", "op", "tape")
    __array_ufunc__ = None

    def __init__(self, tape: list["Node"], op: str, args: tuple[Any, ...]) -> None:
        self.tape, self.op, self.args, self.index = tape, op, args, len(tape)
        tape.append(self)

    def _made(self, op: str, *args: Any) -> "Node":
        return Node(self.tape, op, args)

    def __neg__(self) -> "Node":
        return self._made("scale", self.index, -1)

    def __pos__(self) -> "Node":
        return self

    def __add__(self, other: Any) -> "Node":
        if isinstance(other, Node):
            return self._made("add", self.index, other.index)
        return self._made("shift", self.index, other)

    def __sub__(self, other: Any) -> "Node":
        if isinstance(other, Node):
            return self._made("sub", self.index, other.index)
        return self._made("shift", self.index, -other)

    def __rsub__(self, other: Any) -> "Node":
        return (-self) + other

    def __mul__(self, other: Any) -> "Node":
        if isinstance(other, Node):
            return self._made("mul", self.index, other.index)
        return self._made("scale", self.index, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Node":
        if isinstance(other, Node):
            return self._made("div", self.index, other.index)
        return self._made("over", self.index, other)

    def __rtruediv__(self, other: Any) -> "Node":
        return self._made("div", (self * 0 + other).index, self.index)

    def __pow__(self, power: int) -> "Node":
        if power < 0:
            return 1 / self ** (-power)
        if power == 0:
            return self * 0 + 1
        half = self ** (power // 2) if power > 1 else None
        square = self if half is None else half * half
        return square * self if half is not None and power % 2 else square

    def exp(self) -> "Node":
        """Record the exponential."""
        return self._made("exp", self.index)

    def log(self) -> "Node":
        """Record the natural logarithm."""
        return self._made("log", self.index)

    def sqrt(self) -> "Node":
        """Record the square root."""
        return self._made("sqrt", self.index)

    def sin(self) -> "Node":
        """Record the sine; the cosine stands next to it on the tape."""
        sine = self._made("sin", self.index)
        self._made("cos", self.index)
        return sine

    def cos(self) -> "Node":
        """Record the cosine; the sine stands before it on the tape."""
        self._made("sin", self.index)
        return self._made("cos", self.index)


class Tape:
    """A recorded function of `dim` variables.

    Parameters
    ----------
    f
        ``f(z, p)`` as in `Map`; branches on the value of z cannot be recorded.
    dim
        Number of variables.
    p
        Parameters in the arithmetic of the coefficients to come.
    """

    def __init__(self, f: Callable[[Sequence[Any], Any], Sequence[Any]], dim: int, p: Any) -> None:
        self.nodes: list[Node] = []
        inputs = [Node(self.nodes, "input", ()) for _ in range(dim)]
        try:
            image = f(inputs, p)
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"f cannot be expanded in a series: {error}; write it with + - * / ** and "
                "meristem_dynamics.ops, without branches on the values"
            ) from error
        self.outputs = [
            y.index if isinstance(y, Node) else (inputs[0] * 0 + y).index for y in image
        ]

    @property
    def polynomial(self) -> bool:
        """Whether only + - * and division by constants were recorded."""
        plain = {"input", "add", "sub", "mul", "scale", "shift", "over"}
        return all(node.op in plain for node in self.nodes)

    def degree(self) -> int:
        """Return an upper bound of the degree of a recorded polynomial."""
        degrees: list[int] = []
        for node in self.nodes:
            of = [degrees[i] for i in node.args[: 2 if node.op in {"add", "sub", "mul"} else 1]]
            match node.op:
                case "input":
                    degrees.append(1)
                case "mul":
                    degrees.append(sum(of))
                case "scale" if node.args[1] == 0:
                    degrees.append(0)
                case _:
                    degrees.append(max(of))
        return max(degrees[i] for i in self.outputs)


class Expansion:
    """The series of a recorded function along given input series.

    Parameters
    ----------
    tape
        The function.
    product
        Product of two coefficients; `np.convolve` for homogeneous polynomials.
    """

    def __init__(self, tape: Tape, *, product: Product = operator.mul) -> None:
        self.tape, self.product = tape, product
        self.series: list[list[Any]] = [[] for _ in tape.nodes]

    def push(self, order: int, inputs: Sequence[Any]) -> list[Any]:
        """Set coefficient `order` of the inputs, return that coefficient of the outputs.

        Parameters
        ----------
        order
            The next order, or the last one again with other inputs.
        inputs
            One coefficient for each variable.
        """
        series = self.series
        for i, node in enumerate(self.tape.nodes):
            value = inputs[i] if node.op == "input" else self._coefficient(node, order)
            if len(series[i]) == order:
                series[i].append(value)
            else:
                series[i][order] = value
        return [series[i][order] for i in self.tape.outputs]

    def _coefficient(self, node: Node, k: int) -> Any:
        s, first = self.series, node.args[0]
        a = s[first]
        match node.op:
            case "add":
                return a[k] + s[node.args[1]][k]
            case "sub":
                return a[k] - s[node.args[1]][k]
            case "scale":
                return a[k] * node.args[1]
            case "over":
                return a[k] / node.args[1]
            case "shift":
                return a[k] + node.args[1] if k == 0 else a[k]
            case "mul":
                return self._dot(a[: k + 1], s[node.args[1]][k::-1])
            case "div":
                b, q = s[node.args[1]], s[node.index]
                rest = a[k] - self._dot(b[1 : k + 1], q[k - 1 :: -1]) if k else a[k]
                return rest / b[0]
            case _:
                return self._elementary(node, a, k)

    def _elementary(self, node: Node, a: list[Any], k: int) -> Any:
        own = self.series[node.index]
        if k == 0:
            return _function(node.op, a[0])
        if node.op == "sqrt":
            rest = a[k] - self._dot(own[1:k], own[k - 1 : 0 : -1]) if k > 1 else a[k]
            return rest / (own[0] * 2)
        if node.op == "log":
            graded = [j * own[j] for j in range(1, k)]
            rest = a[k] - self._dot(graded, a[k - 1 : 0 : -1]) / k if k > 1 else a[k]
            return rest / a[0]
        graded = [j * a[j] for j in range(1, k + 1)]
        other = {"exp": 0, "sin": 1, "cos": -1}[node.op]
        total = self._dot(graded, self.series[node.index + other][k - 1 :: -1]) / k
        return -total if node.op == "cos" else total

    def _dot(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        return reduce(operator.add, map(self.product, a, b))


def taylor_polynomials(tape: Tape, point: Sequence[Any], order: int) -> list[list[Any]]:
    """Return the Taylor coefficients of a planar function at `point` by total degree.

    Returns
    -------
    list
        For each component a list over degree k of arrays with k + 1 coefficients, of
        x^k, x^(k-1) y, ..., y^k.
    """
    expansion = Expansion(tape, product=np.convolve)
    one, zero = point[0] * 0 + 1, point[0] * 0
    dtype: Any = float if isinstance(one, int | float) else object
    rows: list[list[Any]] = []
    for k in range(order + 1):
        if k == 0:
            given = [np.array([x], dtype=dtype) for x in point]
        elif k == 1:
            given = [np.array([one, zero], dtype=dtype), np.array([zero, one], dtype=dtype)]
        else:
            given = [np.array([zero] * (k + 1), dtype=dtype)] * 2
        rows.append(expansion.push(k, given))
    return [[row[i] for row in rows] for i in range(len(tape.outputs))]


def _function(name: str, x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return _on_array(name, x)
    if isinstance(x, int | float):
        return float(getattr(np, name)(x))
    return getattr(x, name)()


def _on_array(name: str, x: Any) -> Any:
    if x.dtype != object:
        return getattr(np, name)(x)
    return np.array([getattr(item, name)() for item in x], dtype=object)
