"""``python -m pathclip`` is the command line; ``torchrun -m pathclip train …`` uses it."""

from pathclip.cli.__main__ import main

main()
