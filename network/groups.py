"""Links with the same spec form a group, so that per-link figures are one look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from network.errors import LinkError
from network.spec import LinkSpec
from network.streams import Ints


class LinkGroups:
    """The distinct link specs of a graph, which sender has which, and their figures as arrays by group."""

    def __init__(
        self,
        n_agents: int,
        links: LinkSpec | Sequence[LinkSpec],
        overrides: Mapping[tuple[int, int], LinkSpec] | None,
    ) -> None:
        """``links``: the spec of each sender's links, or one for all; ``overrides``: of single links."""
        per_sender = [links] * n_agents if isinstance(links, LinkSpec) else list(links)
        if len(per_sender) != n_agents:
            raise LinkError(
                "links", len(per_sender), f"one link spec for each of {n_agents} agents", "add or drop some"
            )
        single = dict(overrides or {})
        for (sender, receiver), spec in single.items():
            _check_override(sender, receiver, spec, n_agents, per_sender)
        self.specs = list(dict.fromkeys([*per_sender, *single.values()]))
        number = {spec: index for index, spec in enumerate(self.specs)}
        self.of_sender: Ints = np.array([number[spec] for spec in per_sender], dtype=np.int64)
        self.of_link_id = {s * n_agents + r: number[spec] for (s, r), spec in single.items()}
        self.bandwidth_bps = np.array(
            [np.inf if spec.bandwidth_bps is None else spec.bandwidth_bps for spec in self.specs]
        )
        self.timeout_s = np.array([spec.arq.timeout_s if spec.arq else 0.0 for spec in self.specs])
        self.ordered = np.array([spec.ordered for spec in self.specs])
        self.mtu_bytes = [spec.mtu_bytes for spec in self.specs]
        self.any_finite = bool(np.isfinite(self.bandwidth_bps).any())
        self.any_ordered = bool(self.ordered.any())
        self.any_arq = any(spec.arq is not None for spec in self.specs)
        resends = np.array([spec.arq is not None for spec in self.specs])
        self.varying_sender = resends[self.of_sender]
        """Senders whose messages of one broadcast may need the transmitter for different times."""
        self.varying_sender[[sender for sender, _ in single]] = True


def _check_override(
    sender: int, receiver: int, spec: LinkSpec, n_agents: int, per_sender: Sequence[LinkSpec]
) -> None:
    """Raise LinkError unless the link can exist and leaves its sender's transmitter and queue as they are."""
    key = f"link_overrides[{sender}, {receiver}]"
    if not (0 <= sender < n_agents and 0 <= receiver < n_agents):
        raise LinkError(key, (sender, receiver), f"agent numbers from 0 to {n_agents - 1}", "correct them")
    for name in ("uplink", "queue_packets", "queue_bytes"):
        of_sender = getattr(per_sender[sender], name)
        if getattr(spec, name) != of_sender:
            raise LinkError(
                f"{key}.{name}",
                getattr(spec, name),
                f"the sender's own value ({of_sender!r})",
                "set it on the sender: a link cannot change its sender's transmitter",
            )
