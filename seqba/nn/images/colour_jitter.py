"""Random brightness, contrast and saturation, in a random order, each row with its own."""

from __future__ import annotations

from torch import Tensor, nn

from seqba.nn.images.image_noise import check_images, draw_uniform

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601-2), with torchvision's digits."""


class ColourJitter(nn.Module):
    """Changes brightness, contrast and saturation of each picture by random factors, in a random order.

    Each change mixes the picture with a target, x ← clamp(f·x + (1 − f)·target, 0, 255), where the target is

        brightness   black, 0
        contrast     the mean grey level of the whole picture as it then is
        saturation   each pixel's own grey level

    and f is uniform on [max(0, 1 − strength), 1 + strength]. Since the three differ in their targets alone, a pass over
    all rows applies whichever change comes first, second or third in each row: three passes make every order.

    Randomness: three factors and one of the six orders per row. Inside an update they are keyed by (seed, update,
    micro-batch, copy, site); outside one they come from the global generator. In evaluation the pictures are returned
    as they are. The mean of contrast is a sum over pixels: on a GPU it may be rounded otherwise in the company of other
    rows.

    Args:
        brightness: strength, at least 0; 0 leaves it out.
        contrast: likewise.
        saturation: likewise.

    Shape:
        (k·B, 3, H, W), uint8 or floating levels from 0 to 255 → the same levels in float32, not rounded; k copies in
        the pass, copy-major. The pictures must be whole: zeros around a smaller one would count in its mean.

    Raises:
        ValueError: if a strength is negative, or the pictures haven't 3 channels.

    Source: definitions, order and clamping of torchvision's `ColorJitter`, without its hue.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        super().__init__()
        if not all(strength >= 0 for strength in (brightness, contrast, saturation)):
            raise ValueError(
                f"brightness is {brightness}, contrast {contrast}, saturation {saturation}; none may be negative"
            )
        self.strengths = (brightness, contrast, saturation)

    def forward(self, images: Tensor) -> Tensor:
        """Changes the colours of `images` (k·B, 3, H, W)."""
        check_images(images)
        if images.shape[1] != 3:
            raise ValueError(f"pictures must be red, green and blue, but they have {images.shape[1]} channels")
        if not self.training:
            return images
        numbers = draw_uniform(self, (len(images), 6), images.device)
        lowest = numbers.new_tensor([max(0.0, 1 - strength) for strength in self.strengths])
        highest = numbers.new_tensor([1 + strength for strength in self.strengths])
        factors = lowest + (highest - lowest) * numbers[:, :3]
        order = numbers[:, 3:].argsort(1)  # (R, 3): which change comes first, second, third
        levels = images.float()
        for change in order.unbind(1):
            levels = _blend(levels, change, factors.gather(1, change[:, None]))
        return levels

    def extra_repr(self) -> str:
        """`brightness=0.4, contrast=0.4, saturation=0.4`."""
        brightness, contrast, saturation = self.strengths
        return f"brightness={brightness}, contrast={contrast}, saturation={saturation}"


def _blend(levels: Tensor, change: Tensor, factor: Tensor) -> Tensor:
    """One change of each of `levels` (R, 3, H, W): `change` (R,) in the order of the strengths, by `factor` (R, 1)."""
    red, green, blue = levels.unbind(1)
    grey = (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]).unsqueeze(1)  # (R, 1, H, W)
    change = change.view(-1, 1, 1, 1)
    target = grey * (change == 2) + grey.mean((2, 3), keepdim=True) * (change == 1)
    factor = factor.view(-1, 1, 1, 1)
    return (levels * factor).add_(target * (1 - factor)).clamp_(0, 255)
