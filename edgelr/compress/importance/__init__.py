"""Importance of components, from the loss of the whole model, and the scales that follow from it.

A decomposition orders its components by the error of one weight, in some metric. Their effect on
the loss of the model, together, is computed in closed form (``surgery``) or learned (``soco``).
"""

from edgelr.compress.importance.soco import KEEP, STEPS, Schedule, learn_importance
from edgelr.compress.importance.surgery import collect_importance

__all__ = ["KEEP", "STEPS", "Schedule", "collect_importance", "learn_importance"]
