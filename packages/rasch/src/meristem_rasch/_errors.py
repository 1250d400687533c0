"""What can go wrong, named so that callers can tell the cases apart."""


class DataError(ValueError):
    """The responses break a rule of the model; the message names item, value, rule and mend."""


class ExistenceError(ValueError):
    """No finite estimates exist; the message names the items or categories at fault."""


class IdentificationError(ValueError):
    """The design leaves parameters undetermined; the message names them."""


class ConvergenceError(RuntimeError):
    """The iterations ended before the stopping rule was met."""
