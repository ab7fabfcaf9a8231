"""The others' policies, for learners with joint critics and accessible information: by message.

In a simulation such a learner reads everybody's policy as it was before the updates of that moment. Here
each agent tells the others its policy after every update. In lockstep an update waits until everybody who is
there has told the version of as many updates as the agent itself has made, and uses just that one; in a
realtime world it uses the newest that it has.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from f2a2_sim.learners.joint.base import JointFleet
from network.wire import Message

POLICY = "policy"
_VERSIONS_KEPT = 4
_MOST_UPDATES = 2**31


class Policies:
    """What agent ``me`` knows of everybody's policy."""

    def __init__(self, learner: JointFleet, me: int, timeout_s: float, lockstep: bool) -> None:
        self._learner = learner
        self._me = me
        self._timeout_s = timeout_s
        self._lockstep = lockstep
        self._first = learner.actor_columns.start
        self._known: dict[int, dict[int, NDArray[Any]]] = {}
        self._waiting_since_s: float | None = None
        self._out_of_step: set[int] = set()

    def own(self, updates: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The message that tells the agent's policy after so many updates."""
        policy = self._learner.parameters[self._me, self._first :].cpu().numpy().copy()
        return {"updates": updates}, {"policy": policy}

    def hear(self, message: Message) -> bool:
        """Keep what another agent tells; False if it is of no use."""
        policy, updates = message.tensors.get("policy"), message.fields.get("updates")
        width = self._learner.parameters.shape[1] - self._first
        if (
            policy is None
            or policy.shape != (width,)
            or policy.dtype != np.float32
            or not isinstance(updates, int)
            or not 0 <= updates < _MOST_UPDATES
            or not 0 <= message.sender < self._learner.n_agents
            or message.sender == self._me
            or not np.isfinite(policy).all()
        ):
            return False
        versions = self._known.setdefault(message.sender, {})
        versions[updates] = np.array(policy)
        for old in sorted(versions)[:-_VERSIONS_KEPT]:
            del versions[old]
        return True

    def may_update(self, updates: int, present: NDArray[np.bool_]) -> bool:
        """Whether an agent that has made so many updates may make the next one, and knows what it needs."""
        if not self._lockstep or updates == 0:
            return True
        behind = {
            peer
            for peer in np.flatnonzero(present).tolist()
            if peer != self._me and max(self._known.get(peer, {0: None})) < updates
        }
        self._out_of_step &= behind
        if behind <= self._out_of_step:
            self._waiting_since_s = None
            return True
        now_s = time.monotonic()
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        if now_s - self._waiting_since_s < self._timeout_s:
            return False
        self._out_of_step |= behind  # they are not waited for again until they have caught up
        self._waiting_since_s = None
        return True

    def install(self, updates: int) -> None:
        """Give the learner the others' policies of that version, or their newest ones.

        Those before any update it has from the start; a peer that is ahead may have told its next one.
        """
        if self._lockstep and updates == 0:
            return
        for peer, versions in self._known.items():
            version = updates if self._lockstep and updates in versions else max(versions)
            self._learner.parameters[peer, self._first :] = torch.from_numpy(versions[version])
