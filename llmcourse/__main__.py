"""`python -m llmcourse ...` is the same as `llmcourse ...`, also where the command is not on the PATH. Every week."""

import sys

from llmcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
