from .._pure import name_place as name_place
from .._pure.frames import FrameReader as FrameReader
