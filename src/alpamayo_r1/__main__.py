"""`python -m alpamayo_r1 VERB`: the command line."""

from alpamayo_r1.cli.__main__ import app

app()
