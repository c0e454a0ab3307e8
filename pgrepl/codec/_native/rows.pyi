from .._pure.rows import Row as Row
