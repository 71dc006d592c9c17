"""Alpamayo 1.5 under the original's names, over `alpamayo_r1`: nothing is computed here."""
