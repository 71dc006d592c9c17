"""Closed loop: a driver plans, a car follows, the world answers; and what came of it, in figures and films."""
