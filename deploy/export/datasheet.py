"""`DATASHEET.md`, which lies beside exported images and says what they are."""

from __future__ import annotations

from deploy.export.synthetic import SOFTWARE, SyntheticSet
from deploy.pages.render import render
from deploy.show import epsilon_text
from sampler.images import digest_of


def datasheet(images: SyntheticSet, form: str, layout: str, carrier: str, *, folders: bool) -> str:
    """Write the datasheet of an export.

    ``layout`` says where the images are, ``carrier`` where each has its facts; ``folders``, whether
    classes have folders.
    """
    classes = [
        (str(label), name, str(images.per_class), *([images.folders[label]] if folders else ()))
        for label, name in enumerate(images.config.class_names)
    ]
    return render(
        "datasheet.md",
        images=images,
        classes=classes,
        digest=digest_of(images.manifest),
        epsilon=epsilon_text(images.epsilon),
        simulated=images.run.sites.is_dir(),
        format=form,
        layout=layout,
        carrier=carrier,
        folders=folders,
        software=SOFTWARE,
    )
