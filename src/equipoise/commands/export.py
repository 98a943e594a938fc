"""Write a trained model for others: weights with a model card, or a program that runs alone."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from equipoise.commands.arguments import Parser
from equipoise.commands.stored_model import READERS, StoredRequest
from equipoise.errors import UserError, nearest

if TYPE_CHECKING:
    from equipoise.report.model_card import Card, Program
    from equipoise.running.loaded import Loaded

Format = Literal["safetensors", "torch_export", "onnx"]
