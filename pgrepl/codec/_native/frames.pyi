from .._pure.frames import FrameReader as FrameReader
