"""The one exception for bad input.

Whatever is wrong with what the user gave (a file, an option, a value) is raised as a `UserError` whose text is one
sentence: which file or option, what is wrong with it, what to do. The command line prints it after
``tomotwin: error:`` and exits with code 2; every other exception is a mistake of ours and keeps its traceback.
"""


class UserError(Exception):
    """Bad input, told in one sentence that names the file or option, the problem and what to do."""
