"""A data set of one's own, from arrays: python train.py extensions=[examples/own_data.py] dataset=stripes"""

import numpy as np

from harness.extend import Arrays, Dataset, number, register


@register("stripes")
class Stripes(Dataset):
    """Noisy grey images of 8x8 pixels with stripes, down or across."""

    images: int = number(at_least=20, at_most=1e6, default=600)
    noise: float = number(at_least=0, at_most=1e3, default=150.0)  # standard deviation, of 255

    def read(self) -> tuple[Arrays, Arrays | None, list[str]]:
        """Return arrays to train on, none to test with, and the names of the classes."""
        rng = np.random.default_rng(0)
        labels = np.arange(self.images) % 2
        stripes = 200.0 * (np.indices((8, 8))[labels] % 2)
        noisy = stripes + rng.normal(0, self.noise, stripes.shape)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)[..., None]
        return (pixels, labels), None, ["down", "across"]
