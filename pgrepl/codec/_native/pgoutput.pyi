from .._pure.pgoutput import Decoder as Decoder
