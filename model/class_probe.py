"""What training alone adds so that thin and rare things count: classes of the true map.

Roads are white on off-white and buildings are small: in the latents' mean square error they hardly
weigh, and a model trained on that alone drew forest and water from imagery but no street, however
plain. So F_cond must also say the class of every second pixel, latent cells that show a road, a
path, a railway or a building weigh more in eq. 19, and the classes are read from the latents that
the U-Net predicts, by a reader that learns on true ones. Nothing of it is kept after training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model.critic import untaught
from c2gm.model.maps.classes import CLASSES, SHADES, class_table
from c2gm.model.maps.style import PALETTE
from c2gm.runtime.contract import LATENT_FACTOR

STRIDE = 2
"""Classes are read at every second pixel: the thinnest road is two pixels wide."""

GROUPS: dict[str, tuple[float, tuple[str, ...]]] = {
    "background": (1.0, ("background",)),
    "wood": (1.0, CLASSES["wood"]),
    "water": (2.0, CLASSES["water"]),
    "built-up": (2.0, (*CLASSES["built_up"], "railway")),
    "building": (4.0, CLASSES["building"]),
    "road": (4.0, CLASSES["road"]),
    "path": (3.0, ("track", "path")),
    "rail": (4.0, ("rail",)),
    "green": (1.5, ("grass", "park", "cemetery", "wetland", "pitch")),
    "farmland": (1.5, ("farmland",)),
    "bare": (2.0, ("sand", "rock", "ice")),
}
"""Classes with their weight in the cross-entropy, and the PALETTE colours that each is drawn in."""

THIN = ("building", "road", "path", "rail")
"""Classes whose latent cells weigh more."""

THIN_WEIGHT = 3.0
"""What a cell full of thin things weighs beyond the 1 of an empty one."""

DRAWN_WEIGHT = 0.25
"""What the classes read from predicted latents weigh beside eq. 19."""

READER_NOISE = 0.1
"""On the true latents that the reader learns from, so that it forgives small errors."""

_CELL = LATENT_FACTOR // STRIDE
_HIDDEN = 64
_IGNORED = -100


class MapClasses(nn.Module):
    """The classes of true maps, and what it costs to guess them wrong; learns nothing itself."""

    table: Tensor
    weights: Tensor
    thin: Tensor

    def __init__(self) -> None:
        super().__init__()
        names = list(GROUPS)
        group_of = {
            colour: names.index(n) for n, (_, members) in GROUPS.items() for colour in members
        }
        table = torch.from_numpy(class_table(group_of)).long()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer(
            "weights", torch.tensor([weight for weight, _ in GROUPS.values()]), persistent=False
        )
        self.register_buffer(
            "thin", torch.tensor([float(name in THIN) for name in names]), persistent=False
        )

    @torch.no_grad()
    def read(self, image: Tensor, imagery: Tensor) -> Tensor:
        """Classes int64 (b, H/2, H/2) of a true map (b, 3, H, H), by the nearest palette colour.

        Pixels without imagery, which is 0 there, are left out of the loss.
        """
        seen = image[:, :, ::STRIDE, ::STRIDE]
        shade = ((seen + 1.0) * (SHADES / 2)).long().clamp(0, SHADES - 1)
        red, green, blue = shade.unbind(dim=1)
        classes = self.table[red, green, blue]
        invalid = (imagery[:, :, ::STRIDE, ::STRIDE] == 0).all(dim=1)
        return classes.masked_fill(invalid, _IGNORED)

    @torch.no_grad()
    def thin_share(self, classes: Tensor, cell: int) -> Tensor:
        """Share of thin things (b, 1, h / cell, w / cell) in cells of classes (b, h, w)."""
        thin = self.thin[classes.clamp(min=0)] * (classes >= 0)
        return functional.avg_pool2d(thin[:, None], cell)

    def entropy(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy weighted by GROUPS, mean over valid pixels; 0 where none is valid."""
        if not bool((classes != _IGNORED).any()):
            return logits.new_zeros(())
        return functional.cross_entropy(logits, classes, weight=self.weights, ignore_index=_IGNORED)


class ClassProbe(MapClasses):
    """Linear guesses of the latents and the classes from F_cond; a reader of classes in latents."""

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.latents = nn.Conv2d(channels, latent_channels, 1)
        self.classes = nn.Conv2d(channels, len(GROUPS) * _CELL**2, 1)
        self.reader = nn.Sequential(
            nn.Conv2d(latent_channels, _HIDDEN, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_HIDDEN, len(GROUPS) * _CELL**2, 1),
        )

    def logits(self, f_cond: Tensor) -> Tensor:
        """F_cond (b, c, h, h) -> (b, len(GROUPS), 4h, 4h), float32: a value for every class."""
        return _by_pixel(self.classes(f_cond))

    @torch.no_grad()
    def cell_weights(self, classes: Tensor) -> Tensor:
        """Weights (b, 1, H/8, H/8) of latent cells in eq. 19, of mean one over the batch."""
        share = self.thin_share(classes, _CELL)
        weights = 1.0 + THIN_WEIGHT * (3.0 * share).clamp(max=1.0)
        return weights / weights.mean()

    def loss(self, f_cond: Tensor, latents: Tensor, classes: Tensor) -> Tensor:
        """Mean square error of the latents' guess plus weighted cross-entropy of the classes'.

        The reader's own loss on the true `latents` (b, c, h, h) is added.
        """
        guess_error: Tensor = (self.latents(f_cond).float() - latents).square().mean()
        if not bool((classes != _IGNORED).any()):
            return guess_error
        noisy = latents.detach() + READER_NOISE * torch.randn_like(latents)
        read = _by_pixel(self.reader(noisy))
        return (
            guess_error + self.entropy(self.logits(f_cond), classes) + self.entropy(read, classes)
        )

    def drawn_loss(self, predicted: Tensor, classes: Tensor) -> Tensor:
        """Weighted cross-entropy of the classes read from predicted latents (n b, c, h, h).

        `classes` (b, H/2, H/2) stand for each of the n predictions of a pair, whole batches one
        after the other. The reader itself learns nothing from it.
        """
        cells = untaught(self.reader, predicted)
        repeated = classes.repeat(predicted.shape[0] // classes.shape[0], 1, 1)
        return DRAWN_WEIGHT * self.entropy(_by_pixel(cells), repeated)

    def colours(self, classes: Tensor) -> Tensor:
        """Classes (b, h, w) as a picture uint8 (b, h, w, 3), each in its first PALETTE colour."""
        first = torch.tensor([PALETTE[members[0]] for _, members in GROUPS.values()])
        return first.to(torch.uint8)[classes.clamp(min=0).cpu()]


def _by_pixel(cells: Tensor) -> Tensor:
    """(b, len(GROUPS) * _CELL^2, h, h) -> logits (b, len(GROUPS), 4h, 4h), float32."""
    return functional.pixel_shuffle(cells.float(), _CELL)


class ProbeScores:
    """Entropy and IoU of classes read from F_cond, summed over tiles as they are added."""

    def __init__(self) -> None:
        self._entropy: list[float] = []
        self._both = torch.zeros(len(GROUPS))
        self._either = torch.zeros(len(GROUPS))

    @torch.no_grad()
    def add(self, probe: ClassProbe, logits: Tensor, classes: Tensor) -> None:
        """Take in tiles: logits (b, groups, h, w) and true classes (b, h, w)."""
        self._entropy.append(float(probe.entropy(logits, classes)))
        read, valid = logits.argmax(dim=1), classes != _IGNORED
        for group in range(len(GROUPS)):
            one, other = (read == group) & valid, (classes == group) & valid
            self._both[group] += float((one & other).sum())
            self._either[group] += float((one | other).sum())

    def of(self, groups: Sequence[str]) -> dict[str, float]:
        """`entropy`, and `iou_GROUP` of the named groups that occur."""
        names = list(GROUPS)
        found = {"entropy": sum(self._entropy) / max(len(self._entropy), 1)}
        for name in groups:
            index = names.index(name)
            if self._either[index] > 0:
                found[f"iou_{name}"] = float(self._both[index] / self._either[index])
        return found
