"""`python -m endwise`: the command, where its script is not on the path."""

from endwise.cli import main

main()
