"""Chooses actions, steps the envs, and makes blocks of n-step transitions."""
