"""Regularizers and techniques: one module each, with a class `Regularizer`.

A Regularizer is a `gantrain.game.parts.Hooks`: it overrides the hooks it needs. A config lists any
number of them as [[regularizers]]; keyword-only arguments are the schema of such a section.
"""
