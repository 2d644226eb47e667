"""The experiment's own objects on seeded inputs of its own shapes and options, beside the stated formulas.

Recordings prove what an original did with its options. Whether the run does the same with the experiment's options, its
seed and its wiring is compared here: what the run executes (experiment/own.py) on one side, restated formulas on
the other. A family gives its inputs and formulas as a `Family` (family.py).
"""
