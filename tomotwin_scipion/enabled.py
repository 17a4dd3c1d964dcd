"""Items of a set that count: in Scipion's viewers single items can be disabled, and those stay out of everything."""

from typing import Any, Iterator, List, Optional

from tomo.objects import Coordinate3D, SetOfCoordinates3D, Tomogram

ENABLED = "enabled=1"
"""The same as a condition of Scipion's sets."""


def enabled_items(items: Any) -> Iterator[Any]:
    """The items of a set that are not disabled; they are one object, to be cloned where they are kept."""
    return (item for item in items.iterItems() if item.isEnabled())


def enabled_coordinates(coordinates: SetOfCoordinates3D, tomogram: Optional[Tomogram] = None) -> Iterator[Coordinate3D]:
    """The coordinates of a set, or of those in one tomogram, that are not disabled, in the order of the set."""
    return (item for item in coordinates.iterCoordinates(volume=tomogram) if item.isEnabled())


def groups_of(coordinates: SetOfCoordinates3D) -> List[int]:
    """The group ids of coordinates that are not disabled."""
    return sorted(coordinates.getUniqueValues(Coordinate3D.GROUP_ID_ATTR, where=ENABLED))


def ts_ids(items: Any) -> List[str]:
    """The tsIds of items that are not disabled, of any set that knows them: tomograms, embeddings, masks, coordinates."""
    attribute = Coordinate3D.TOMO_ID_ATTR if isinstance(items, SetOfCoordinates3D) else Tomogram.TS_ID_FIELD
    return items.getUniqueValues(attribute, where=ENABLED)
