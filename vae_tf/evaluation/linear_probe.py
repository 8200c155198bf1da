"""How much of an image's class is in its code, for a classifier that draws
straight lines.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
MOST = 10_000  # images, of which it takes seconds


def linear_accuracy(codes: np.ndarray, labels: np.ndarray) -> float:
    """Share of the first 10,000 images, in [0, 1], whose class is that named by
    a logistic regression on standardised codes, fitted to the other four
    fifths; NaN where there are fewer than five images or one class alone.

    Args:
      codes: `[N, D]`, such as the means of q(z|x).
      labels: integers `[N]`.
    """
    codes, labels = codes[:MOST], labels[:MOST]
    if len(codes) < FOLDS or len(np.unique(labels)) < 2:
        return float("nan")
    right = np.zeros(len(codes), bool)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    for others, fold in folds.split(codes):
        if len(np.unique(labels[others])) < 2:  # nothing to tell apart
            named = labels[others[0]]
        else:
            probe = make_pipeline(
                StandardScaler(), LogisticRegression(max_iter=1000)
            )
            named = probe.fit(codes[others], labels[others]).predict(
                codes[fold]
            )
        right[fold] = named == labels[fold]
    return float(right.mean())
