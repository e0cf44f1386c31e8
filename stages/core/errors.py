"""The base of every error that a user can cause and mend."""


class DenoisingError(Exception):
    """A mistake in the input, the parameters or the surroundings that the user can mend.

    Its message names the file or key, what was expected, what was found and how to mend it: in a sentence or two, or in a line
    for each of many files. A stage prints the message without a traceback and ends with exit code 1.
    """


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends as a question does."""
    return text if text.endswith("?") else f"{text}."
