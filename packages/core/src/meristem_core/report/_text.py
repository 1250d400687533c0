"""Any text made safe to stand in HTML and in SVG."""

import html
import re

Number = float | int  # type checkers of running programs tell them apart
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def clean(text: str) -> str:
    r"""Return the text escaped, each character that HTML or XML forbids shown as U+FFFD.

    Examples
    --------
    >>> clean("</script> & \x00")
    '&lt;/script&gt; &amp; �'
    """
    return html.escape(UNPRINTABLE.sub("\ufffd", text))
