"""Fine-tune and align a causal language model with any loss by name.

The public names are listed in `__init__.pyi`; each is imported at its first use, so that the
command can explain itself without torch.
"""

# pyright: basic
# lazy_loader has no types; those of the names come from the stub

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
