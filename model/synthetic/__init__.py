"""A procedural world: vectors and imagery that agree, as much of both as training asks for.

`generate_world` invents a piece of country; `paint` photographs it, or any real vector map.
"""

from c2gm.model.synthetic.layout import generate_world
from c2gm.model.synthetic.paint import Painter, paint
from c2gm.model.synthetic.style import PaintStyle, random_style

__all__ = ["PaintStyle", "Painter", "generate_world", "paint", "random_style"]
