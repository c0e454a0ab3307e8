from .._pure.values import Types as Types
from .._pure.values import ValueType as ValueType
