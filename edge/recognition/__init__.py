"""The story: what becomes of a picture, from the bytes to who it was.

`recognizer` is the door; behind it `faces` looks at a picture, `judging` searches, decides and writes, and each other
module is one thing that callers ask for.
"""

from edge.recognition.acting import ActionResult, Searched
from edge.recognition.comparing import Comparison, Inspected
from edge.recognition.faces import Seen
from edge.recognition.fusion import FusionResult, RejectedPicture
from edge.recognition.judging import CreateResult, FaceResult
from edge.recognition.passages import Passages
from edge.recognition.photos import PhotoRequest, Preview, Previewed
from edge.recognition.recognizer import Recognizer
from edge.recognition.requests import ActionRequest, CompareRequest, DetectRequest, FusionRequest, VectorSearch
from edge.recognition.room import Settings, Workers
from edge.recognition.strangers import Group, NamingRequest, StrangersRequest

__all__ = [
    "ActionRequest",
    "ActionResult",
    "CompareRequest",
    "Comparison",
    "CreateResult",
    "DetectRequest",
    "FaceResult",
    "FusionRequest",
    "FusionResult",
    "Group",
    "Inspected",
    "NamingRequest",
    "Passages",
    "PhotoRequest",
    "Preview",
    "Previewed",
    "Recognizer",
    "RejectedPicture",
    "Searched",
    "Seen",
    "Settings",
    "StrangersRequest",
    "VectorSearch",
    "Workers",
]
