"""How unsure the coefficients of fitted laws are, from the covariance that minutes keep.

A fit is told more noise than there is, so that it leans on its prior. What it says of itself holds both:
what data tell, with that noise, and the prior, which no noise changes. Plans need them apart, as
:meth:`joulescope.attribution.learn.PriorRegression.covariance_where` has them: the part that data tell is
known better than stated, and what they do not tell is as unsure as the prior. Minutes keep the whole only;
but the prior follows from the GPU's name, as it did for the fit, so that it can be taken out again.

Where the data scattered more than the fit was told, less is taken for told than was, and the result is too
wide. Where the GPU was of so unknown a kind that the fit moved its prior, the result is no wider than the
prior that is taken here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.fit import StepFit
from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.prior import expectation_of
from joulescope.attribution.uncertainty import ATTRIBUTED, PRIOR_RATIO
from joulescope.minute_model import Laws

Floats = NDArray[np.float64]


def coefficient_covariances(laws: Laws, gpu_name: str, gpu_count: int) -> tuple[Floats | None, Floats | None]:
    """Relative covariances of the coefficients of time and of energy; ``None`` where the laws have none."""
    fit = StepFit(laws.cost, gpu_count, expectation_of(gpu_name, laws.limit_watts or None))
    return (
        _apart(laws.time_covariance, laws.time_coefficients, fit.time),
        _apart(laws.energy_covariance, laws.energy_coefficients, fit.energy),
    )


def _apart(
    whole: tuple[tuple[float, ...], ...], coefficients: tuple[float, ...], untaught: PriorRegression
) -> Floats | None:
    if not whole:
        return None
    stated = np.array(whole, dtype=np.float64)
    values = np.array(coefficients, dtype=np.float64)
    if stated.shape != (len(values),) * 2 or len(values) != len(untaught.prior) or not (values > 0.0).all():
        return np.asarray(stated * ATTRIBUTED.coefficients**2)
    ratio = untaught.prior / values
    return where(stated, untaught.relative_covariance() * np.outer(ratio, ratio))


def where(stated: Floats, prior: Floats) -> Floats:
    """The covariance if the noise is :data:`ATTRIBUTED`'s part of what was stated, and the prior
    :data:`PRIOR_RATIO` of its width.

    Args:
        stated: covariance that the fit says.
        prior: covariance from which it started; positive definite.
    """
    root = np.linalg.cholesky(prior)
    inverse = np.linalg.inv(root)
    parts, vectors = np.linalg.eigh(inverse @ stated @ inverse.T)
    told = np.maximum(1.0 / np.maximum(parts, 1e-12) - 1.0, 0.0)
    variances = 1.0 / (told / ATTRIBUTED.coefficients**2 + 1.0 / PRIOR_RATIO**2)
    turned = root @ vectors
    return np.asarray((turned * variances) @ turned.T)
