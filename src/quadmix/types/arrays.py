"""Names of the array types that travel."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Copies = NDArray[np.int32]
