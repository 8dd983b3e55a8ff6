"""Number formats, memory words and the primitive that makes them visible."""

from jaxnas.numerics.calibration import absmax_scale as absmax_scale
from jaxnas.numerics.calibration import power_of_two as power_of_two
from jaxnas.numerics.codebooks import Binary as Binary
from jaxnas.numerics.codebooks import Codebook as Codebook
from jaxnas.numerics.codebooks import Ternary as Ternary
from jaxnas.numerics.exponents import PowerOfTwo as PowerOfTwo
from jaxnas.numerics.fixed_point import FixedPoint as FixedPoint
from jaxnas.numerics.fixed_point import q_format as q_format
from jaxnas.numerics.floats import IEEE as IEEE
from jaxnas.numerics.floats import MiniFloat as MiniFloat
from jaxnas.numerics.formats import Format as Format
from jaxnas.numerics.formats import word_dtype as word_dtype
from jaxnas.numerics.logarithmic import Logarithmic as Logarithmic
from jaxnas.numerics.logarithmic import TwoTermLogarithmic as TwoTermLogarithmic
from jaxnas.numerics.observers import Observer as Observer
from jaxnas.numerics.posits import Posit as Posit
from jaxnas.numerics.primitives import quantize as quantize
from jaxnas.numerics.primitives import quantize_p as quantize_p
from jaxnas.numerics.words import all_words as all_words
from jaxnas.numerics.words import bit_planes as bit_planes
from jaxnas.numerics.words import field as field
from jaxnas.numerics.words import flip as flip
from jaxnas.numerics.words import from_planes as from_planes
from jaxnas.numerics.words import population_count as population_count
