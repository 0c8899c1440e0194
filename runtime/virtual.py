"""Virtual rasters (GDAL's VRT format) as text, which GDAL opens like a file's name."""

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from rasterio.enums import MaskFlags

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's name of every type of pixels that is read."""


def virtual_raster(
    dataset: Any, bands: Sequence[int], *, palette: bool = False, mask: str | None = None
) -> str:
    """Some bands of an open raster, or with `palette` the colours and alpha of a band with one.

    `mask` names a raster of the same size that says where there is data, 255, and where not, 0,
    whatever the file itself says.
    """
    nodata = None if palette or mask else dataset.nodata
    kind = GDAL_TYPES[dataset.dtypes[0]]
    name = _source(dataset.name)
    lines = [
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">',
        f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>",
        f"<GeoTransform>{','.join(map(repr, dataset.transform.to_gdal()))}</GeoTransform>",
    ]
    sources = [(bands[0], part) for part in (1, 2, 3, 4)] if palette else [(b, 0) for b in bands]
    meaning = ["Red", "Green", "Blue", "Alpha"] if palette else None
    for number, (band, part) in enumerate(sources, start=1):
        colour = meaning[number - 1] if meaning else dataset.colorinterp[band - 1].name.title()
        table = f"<ColorTableComponent>{part}</ColorTableComponent>" if palette else ""
        # A palette's invalid pixels are left out, so that their alpha stays 0.
        masked = "<UseMaskBand>true</UseMaskBand>" if palette else ""
        lines += [
            f'<VRTRasterBand dataType={quoteattr(kind)} band="{number}">',
            f"<ColorInterp>{colour}</ColorInterp>",
            f"<NoDataValue>{nodata!r}</NoDataValue>" if nodata is not None else "",
            f"<ComplexSource>{name}<SourceBand>{band}</SourceBand>{table}{masked}</ComplexSource>",
            "</VRTRasterBand>",
        ]
    flags = dataset.mask_flag_enums[bands[0] - 1]
    shared = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    if mask is not None or (shared and not palette):
        own = f"{name}<SourceBand>mask,1</SourceBand>"
        lines += [
            '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource>',
            own if mask is None else f"{_source(mask)}<SourceBand>1</SourceBand>",
            "</SimpleSource></VRTRasterBand></MaskBand>",
        ]
    return "".join([*lines, "</VRTDataset>"])


def _source(name: str) -> str:
    return f'<SourceFilename relativeToVRT="0">{escape(name)}</SourceFilename>'
