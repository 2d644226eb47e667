"""The stated formulas once more, in float64 NumPy: what an original's code computes, written from its description.

A reproduction is proved by two implementations that agree. What a training run executes is one of them; this folder is
the other. So nothing here imports anything of the product but the types of its configuration, nothing is copied from
it, and what is compared with recordings of an original is compared here, too.

Decisions are made in float64 of float32 inputs. Where float32 may decide otherwise, `undecided` says so.
"""
