"""Gradient statistics of any model and loss: the variance split in two, correlations, and what M copies are worth."""

from seqba.statistics.advice import Advice, advise
from seqba.statistics.cells import CellSplit, CellWatch
from seqba.statistics.correlations import Correlations, Related, measure_correlations
from seqba.statistics.estimate import Estimate
from seqba.statistics.fork_noise import measure_noise_above
from seqba.statistics.gradients import ExampleGradients, Gradient, pearson
from seqba.statistics.pass_costs import PassCosts
from seqba.statistics.split import VarianceSplit, measure_split

__all__ = [
    "Advice",
    "CellSplit",
    "CellWatch",
    "Correlations",
    "Estimate",
    "ExampleGradients",
    "Gradient",
    "PassCosts",
    "Related",
    "VarianceSplit",
    "advise",
    "measure_correlations",
    "measure_noise_above",
    "measure_split",
    "pearson",
]
