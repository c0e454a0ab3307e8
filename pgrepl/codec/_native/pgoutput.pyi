from .._pure.pgoutput import Decoder as Decoder
from .._pure.runs import Mould as Mould
from .._pure.runs import ready as ready
