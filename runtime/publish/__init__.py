"""Finished tiles in other clothes: MBTiles, PMTiles, XYZ folders, GeoTIFF; knows no model."""
