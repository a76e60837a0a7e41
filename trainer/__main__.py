"""`python -m trainer`, the same as the console script."""

from trainer.cli import main

main()
