"""Which way do the stripes run? A project of its own that uses Equipoise as a library."""

from stripes.network import StripeNetwork
from stripes.pictures import Stripes
from stripes.slowest import SlowestPictures
from stripes.solver import HeavyBall

__all__ = ["HeavyBall", "SlowestPictures", "StripeNetwork", "Stripes"]
