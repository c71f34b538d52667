"""Typed, checked settings, and errors of one line. Knows Hydra, needs no torch.

`schema` has the sections and the base classes of choices, `fields` declares bounds, `compose` makes a
`Config` of what Hydra composed, `values` makes plain values of a `Config` and back, `one_line_errors`
prints what a user can fix.
"""
