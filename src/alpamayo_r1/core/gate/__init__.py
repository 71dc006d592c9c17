"""The gate: where anything from outside becomes one of our records, checked once. What it refuses, it refuses with the likely cause;
what is merely unusual becomes a Note, which travels with the Plan."""
