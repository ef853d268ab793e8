"""A closed form with one Gaussian a class, learned in four rounds of a phase each."""

FOUR_ROUNDS = [
    "model.mixture.components=1",
    "model.phases.means-first.rounds=1",
    "model.phases.means.rounds=1",
    "~model.phases.variances",
    "~model.phases.components",
    "~model.phases.component_covariance",
]
