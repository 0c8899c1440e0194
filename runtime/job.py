"""What a run is: its options, and everything that it opens and checks before it writes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from c2gm.runtime.archive import partial_path
from c2gm.runtime.area import area_of_bounds, read_area
from c2gm.runtime.backends import Opened, open_backend
from c2gm.runtime.backends.base import Backend
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.bundle import Bundle, file_sha256
from c2gm.runtime.cascade import reference_spans
from c2gm.runtime.contract import prompt_name
from c2gm.runtime.engines import has_engines
from c2gm.runtime.errors import LevelError, OptionError, ReferenceMapError
from c2gm.runtime.footprint import Box
from c2gm.runtime.grid import (
    DEFAULT_HALO,
    WINDOW_MULTIPLE,
    WINDOW_SIDES,
    Plan,
    Window,
    parse_levels,
    plan,
)
from c2gm.runtime.grid import Cascade as CascadeKind
from c2gm.runtime.lanes import Lanes, open_sampler
from c2gm.runtime.levels import LEVELS, TILE_SIZE
from c2gm.runtime.mbtiles import Metadata
from c2gm.runtime.progress import Stopwatch
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.sampler import Sampler
from c2gm.runtime.scene import ReferenceMap, Scene
from c2gm.runtime.shards import Shard, shard_of
from c2gm.runtime.shipped import find_bundle
from c2gm.runtime.workers import Drawn, Recipe

MAX_SEED = (1 << 64) - 1

GUIDE_PX = TILE_SIZE
"""A level guides finer ones only where the imagery is so wide and high there. On less the model
hardly sees what it looks at, and what it misses it would talk the finer levels out of, too."""


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What a run is asked to do; the fields are the flags of `c2gm-infer`.

    `levels`: `10-16` or `10,12,14`; `output`: default the scene's name with `.mbtiles`; `model`: a
    bundle folder or a shipped one's name; `steps`: default the bundle's; `early_stop`: by the
    bundle's rules; `guide_from`: coarsest level that guides finer ones, default by the imagery's
    size; `bounds`: west, south, east, north in degrees; `batch`: windows at a time,
    default: what suits the backend; `window`: tiles a side; `halo`: pixels on every side;
    `blend`: mix windows where their halos overlap, or cut halos off; `keep_filling`: draw a map of
    black or white rims, too, that the file does not declare as empty; `publish`: formats and tiles;
    `shard`: the part of the map that is written, default all of it.
    """

    imagery: Path
    levels: str
    output: Path | None = None
    model: Path | None = None
    backend: str = "auto"
    steps: int | None = None
    seed: int = 0
    cascade: CascadeKind = "4x"
    guide_from: int | None = None
    reference: Path | None = None
    bounds: Box | None = None
    aoi: Path | None = None
    early_stop: bool = True
    batch: int | None = None
    window: int = 1
    halo: int = DEFAULT_HALO
    blend: bool = True
    keep_filling: bool = False
    overwrite: bool = False
    publish: PublishOptions = PublishOptions()
    shard: Shard | None = None

    @property
    def output_path(self) -> Path:
        """Where the result goes."""
        whole = Path(self.imagery.name).with_suffix(".mbtiles")
        by_default = whole if self.shard is None else Path(self.shard.file_name(whole.stem))
        return self.output or by_default


@dataclass(frozen=True, slots=True)
class Job:
    """A run that may begin: everything is open, nothing is written."""

    options: InferOptions
    scene: Scene
    base_map: ReferenceMap | None
    bundle: Bundle
    backend: Backend
    plan: Plan
    guides: tuple[int, ...]
    """Levels that finer ones may be drawn from."""
    steps: int
    recipe: Recipe
    warnings: tuple[str, ...]
    passed_over: tuple[str, ...]
    stopwatch: Stopwatch

    @property
    def model_name(self) -> str:
        """Model and precision, for users."""
        return f"{self.bundle.manifest.name} ({self.bundle.manifest.precision})"

    @property
    def backend_text(self) -> str:
        """Backend, for users: what it is, and where `auto` chose it, why not a faster one."""
        why = "; ".join(self.passed_over)
        return self.backend.describe() + (f" (auto; {why})" if why else "")

    def sampler(self, blend: bool = True) -> Sampler[Drawn] | Lanes[Drawn]:
        """The sampling loop for this run's windows; `blend`: False if alone."""
        side, painted = _window_sides(self.options)
        with self.stopwatch.part("load"):
            return open_sampler(
                self.bundle,
                self.backend,
                self.options.batch,
                side=side,
                painted=painted if blend else side,
                steps=self.steps,
                early_stop=self.options.early_stop,
                stopwatch=self.stopwatch,
            )

    def fingerprint(self) -> dict[str, str]:
        """All that decides what the tiles look like, to the last bit."""
        options = self.options
        return {
            "version": version("c2gm"),
            "imagery": self.scene.fingerprint(),
            "model": self.bundle.fingerprint,
            "backend": self.backend.identity(options.batch),
            "levels": ",".join(map(str, self.plan.levels)),
            "steps": str(self.steps),
            "early_stop": str(options.early_stop and bool(self.bundle.manifest.early_stop)),
            "seed": str(options.seed),
            "cascade": options.cascade,
            "guides": ",".join(map(str, self.guides)),
            "reference": "none" if self.base_map is None else self.base_map.fingerprint(),
            "bounds": "none" if options.bounds is None else ",".join(map(repr, options.bounds)),
            "aoi": "none" if options.aoi is None else file_sha256(options.aoi),
            "window": str(options.window),
            "halo": str(options.halo),
            "blend": str(self.recipe.blend),
            "keep_filling": str(options.keep_filling),
            "shard": "none" if options.shard is None else str(options.shard),
        }

    def metadata(self) -> Metadata:
        """What the output says about itself."""
        provenance = self.bundle.manifest.provenance
        return Metadata(
            name=self.options.output_path.stem,
            attribution=provenance.attribution,
            description=(
                f"AI-generated map, made from {self.scene.path.name} by c2gm {version('c2gm')} "
                f"with the model {self.bundle.manifest.name}; not surveyed, check before use"
            ),
            version="1",
            date=_today(),
            c2gm={
                "version": version("c2gm"),
                "model": self.bundle.manifest.name,
                "model_sha256": self.bundle.fingerprint,
                "precision": self.bundle.manifest.precision,
                "weights": provenance.weights,
                "licence": provenance.licence,
                "training_data": list(provenance.training_data),
                "imagery": self.scene.path.name,
                "stretch": None if self.scene.stretch is None else asdict(self.scene.stretch),
                "seed": self.options.seed,
                "steps": self.steps,
                "cascade": self.options.cascade,
                "backend": self.backend.describe(),
            },
        )


def _today() -> str:
    """The day in UTC (ISO 8601), or that of SOURCE_DATE_EPOCH. Raises OptionError."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    if fixed is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return datetime.fromtimestamp(int(fixed), UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise OptionError(
            f"SOURCE_DATE_EPOCH is {fixed!r}, expected seconds since 1970 as a whole number; "
            "correct or unset it"
        ) from None


@contextmanager
def prepare(options: InferOptions) -> Iterator[Job]:
    """Open scene, bundle and backend, check that they fit, and plan. Raises C2GMError.

    `options` have passed `check_options`.
    """
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        levels = parse_levels(options.levels)
        with stopwatch.part("load"):
            bundle = Bundle.read(find_bundle(options.model, options.backend))
        _check_levels(levels, bundle)
        steps = bundle.manifest.default_steps if options.steps is None else options.steps
        if not 1 <= steps <= bundle.manifest.schedule.max_steps:
            raise OptionError(
                f"--steps is {steps}, expected 1 to {bundle.manifest.schedule.max_steps}"
            )
        with stopwatch.part("scene"):
            scene = stack.enter_context(
                Scene.open(options.imagery, keep_filling=options.keep_filling)
            )
        warning = scene.check_levels(levels)
        guides = _guides(levels, options.guide_from, scene, bundle)
        spans, map_spans = _spans(levels, guides, options, bundle)
        base_map = None
        if options.reference is not None:
            base_map = stack.enter_context(ReferenceMap.open(options.reference))
        with stopwatch.part("plan"):
            area = None
            if options.aoi is not None:
                area = read_area(options.aoi, scene.boxes)
            elif options.bounds is not None:
                area = area_of_bounds(options.bounds)
            planned = plan(levels, scene.footprints, area, options.window, options.halo)
            if options.shard is not None:
                planned = shard_of(planned, options.shard, scene.footprints)
        if base_map is not None and not base_map.touches(scene.boxes):
            raise ReferenceMapError(
                f"{options.reference} and {options.imagery} do not overlap; give a map of the same "
                "ground, or leave --reference out"
            )
        sides = _window_sides(options)
        opened = open_backend(options.backend, bundle, options.batch, *sides)
        yield Job(
            options=options,
            scene=scene,
            base_map=base_map,
            bundle=bundle,
            backend=opened.backend,
            passed_over=opened.passed_over,
            plan=planned,
            guides=guides,
            steps=steps,
            recipe=Recipe(
                seed=options.seed,
                latent_channels=bundle.manifest.latent_channels,
                latent_factor=bundle.manifest.latent_factor,
                spans=spans,
                map_spans=map_spans,
                blend=options.blend and options.halo > 0,
            ),
            warnings=tuple(
                w
                for w in (
                    warning,
                    *scene.warnings,
                    _gap_warning(levels),
                    _slow(bundle, opened),
                    *options.publish.warnings(),
                )
                if w
            ),
            stopwatch=stopwatch,
        )


def _slow(bundle: Bundle, opened: Opened) -> str | None:
    """A warning where a model with engines for a GPU runs on something slower."""
    if opened.passed_over and has_engines(bundle):
        return f"running on {opened.backend.describe()}: {'; '.join(opened.passed_over)}"
    return None


def _window_sides(options: InferOptions) -> tuple[int, int]:
    """Sides in pixels of all windows of a run, halo included, and of what is decoded of them."""
    window = Window(0, 0, 0, options.window, options.halo)
    return window.size, window.canvas.size if options.blend else window.size


def check_options(options: InferOptions) -> None:
    """Raises OptionError for values that no run can have, before anything is opened."""
    options.publish.check(parse_levels(options.levels))
    if options.batch not in (None, *BUCKETS):
        raise OptionError(
            f"--batch is {options.batch}, expected one of {', '.join(map(str, BUCKETS))}"
        )
    if options.window not in WINDOW_SIDES:
        raise OptionError(
            f"--window is {options.window}, expected one of {', '.join(map(str, WINDOW_SIDES))}"
        )
    if options.cascade not in get_args(CascadeKind):
        raise OptionError(
            f"--cascade is {options.cascade!r}, expected one of {', '.join(get_args(CascadeKind))}"
        )
    if not 0 <= options.seed <= MAX_SEED:
        raise OptionError(f"--seed is {options.seed}, expected 0 to {MAX_SEED}")
    if options.guide_from is not None and options.guide_from not in LEVELS:
        raise OptionError(
            f"--guide-from is {options.guide_from}, expected a level from {min(LEVELS)} to "
            f"{max(LEVELS)}"
        )
    if not options.imagery.name:
        raise OptionError(f"--imagery is {str(options.imagery)!r}, expected the name of a raster")
    most = options.window * TILE_SIZE // 2
    if not 0 <= options.halo <= most or options.halo % (WINDOW_MULTIPLE // 2):
        raise OptionError(
            f"--halo is {options.halo}, expected 0 to {most}, half of --window {options.window}, "
            "in steps of 32"
        )
    if options.output_path.suffix != ".mbtiles":
        raise OptionError(f"--output is {options.output_path}, expected a name ending in .mbtiles")
    inputs = {"--imagery": options.imagery, "--reference": options.reference, "--aoi": options.aoi}
    for written in (options.output_path, partial_path(options.output_path)):
        for name, path in inputs.items():
            if path is not None and same_file(path, written):
                raise OptionError(f"{written} is also {name}; give another --output")
    if options.bounds is not None and options.aoi is not None:
        raise OptionError("both --bounds and --aoi are given; choose one")


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are of one file; names of nothing are not."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _gap_warning(levels: Sequence[int]) -> str | None:
    """What readers make of a pyramid that lacks levels in between."""
    gaps = sorted(set(range(levels[0], levels[-1])) - set(levels))
    if not gaps:
        return None
    missing = ", ".join(map(str, gaps))
    return f"the map will lack level {missing}, at which GDAL and QGIS show nothing"


def _check_levels(levels: Sequence[int], bundle: Bundle) -> None:
    """Raises LevelError for levels that the model was not trained on."""
    trained = bundle.manifest.trained_levels
    foreign = [level for level in levels if level not in trained]
    if foreign:
        raise LevelError(
            f"levels {_spoken(foreign)} are outside what the model "
            f"{bundle.manifest.name!r} was trained on ({min(trained)}-{max(trained)}); choose "
            "--levels among these"
        )


def _spoken(levels: Sequence[int]) -> str:
    """Levels as a user would write them: 3-5, or 9,19."""
    first, last = levels[0], levels[-1]
    whole = len(levels) > 1 and list(levels) == list(range(first, last + 1))
    return f"{first}-{last}" if whole else ", ".join(map(str, levels))


def _guides(
    levels: Sequence[int], first: int | None, scene: Scene, bundle: Bundle
) -> tuple[int, ...]:
    """The levels that finer ones may be drawn from."""
    if first is not None:
        return tuple(level for level in levels if level >= first)
    trusted = [level for level in levels if level >= bundle.manifest.guide_from]
    return tuple(level for level in trusted if scene.narrow_px(level) >= GUIDE_PX)


def _spans(
    levels: Sequence[int], guides: Sequence[int], options: InferOptions, bundle: Bundle
) -> tuple[dict[int, int | None], dict[int, int]]:
    """Spans of references that the run makes itself, and of those read from the base map.

    Raises BundleError where the model has no prompt for one, ReferenceMapError where a base map
    can be used at no level.
    """
    spans = reference_spans(levels, guides, options.cascade)
    map_spans: dict[int, int] = {}
    for level in levels:
        for span in {None, spans[level]}:  # none: a reference may turn out to show nothing
            bundle.embeddings.row(level, span)
        known = bundle.manifest.cascade_spans
        usable = [span for span in known if prompt_name(level, span) in bundle.embeddings.index]
        if spans[level] is None and options.reference is not None and usable:
            map_spans[level] = usable[0] if options.cascade == "4x" else usable[-1]
    if options.reference is not None and not map_spans:
        coarsest = min(bundle.manifest.trained_levels)
        raise ReferenceMapError(
            f"--levels {options.levels} cannot start from --reference: the model starts from maps "
            f"of level {coarsest} or finer; give --levels from {coarsest + 1} on, or leave "
            "--reference out"
        )
    return spans, map_spans
