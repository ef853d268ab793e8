"""MNIST end to end: ten sites train at ε = 1, then images, their utility, and attacks.

    python examples/mnist.py [FOLDER]

Takes about three minutes on two cores. `dppm data fetch mnist` brings the data first.
"""

import sys

import dppm

SETTINGS = ("data=mnist", "sites=10", "privacy.epsilon=1")
print(f"costs a site's own reports ε = {dppm.plan(*SETTINGS)['epsilon_site']:.2f}")

run = dppm.simulate(sys.argv[1] if len(sys.argv) > 1 else "runs/mnist-eps1", *SETTINGS)
images, labels = dppm.sample(run, "sampler.per_class=500")
print(f"{len(images)} images in {run / 'samples'}; look at {run / 'samples.png'}")

found = dppm.evaluate(run)
print(f"accuracy {found['accuracy']:.3f}, of real images {found['accuracy_real']:.3f}")
for game in dppm.audit(run, trials=10_000)["games"]:
    print(f"{game['game']}, {game['view']}: ε ≥ {game['epsilon']:.2f}, claimed {game['claim']:.2f}")
