"""`python -m llmcourse.cli ...` is the same as `llmcourse ...`."""

import sys

from llmcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
