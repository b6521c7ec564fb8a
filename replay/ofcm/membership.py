"""Which class of the model each flow of a table is in.  Pure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from replay.ofcm.addresses import Int64
from replay.ofcm.classes import Partition, parted
from replay.ofcm.grouping import Grouping
from replay.ofcm.model import KEY, SEEN, model_of

_NO_GROUPING = Grouping()


def class_of_flows(flows: pd.DataFrame, grouping: Grouping = _NO_GROUPING) -> tuple[Int64, pd.DataFrame]:
    """The place of each flow's class in the table of class names (CLASS_KEY and `zone`) beside it.

    The classes are those of the flows' own model; a grain that cuts addresses is a ValueError, because flows can no
    more be told by their addresses then.
    """
    if (grouping.grain_ipv4, grouping.grain_ipv6) != (_NO_GROUPING.grain_ipv4, _NO_GROUPING.grain_ipv6):
        raise ValueError("flows are found in their classes by whole addresses: give a grouping without a grain")
    model = model_of(flows, grouping)
    partition: Partition = parted(grouping, [model.cells])
    place = pd.Series(partition.of_cell, index=pd.MultiIndex.from_frame(model.cells[list(KEY)]))
    return np.asarray(place.reindex(_keys(flows)).to_numpy(), np.int64), partition.names


def _keys(flows: pd.DataFrame) -> pd.MultiIndex:
    """The cell of every flow, written as the model writes it."""
    own = pd.DataFrame(
        {
            "source_address": flows["source_address"].astype("str"),
            "destination_address": flows["destination_address"].astype("str"),
            "protocol": flows["protocol"].astype("int64"),
            "port": flows["destination_port"].astype("int64"),
            **{
                name: flows[name].fillna("").astype("str") if name in flows.columns else pd.Series("", flows.index)
                for name in SEEN
            },
        }
    )
    return pd.MultiIndex.from_frame(own[list(KEY)])
