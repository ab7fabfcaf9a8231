"""Any PettingZoo parallel environment with discrete actions as a world."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.worlds.base import AgentSpec, Observations, WorldStep
from f2a2_sim.worlds.spaces import discrete_actions, observation_encoder


class PettingZooWorld:
    """The environment that ``path`` ("package.module:callable") makes from ``env_args``; all agents learn.

    Agents are the environment's ``possible_agents``, in its order, each alive while the environment lists it.
    One that leaves without a word (neither terminated nor truncated) counts as terminated. The environment
    must be a function of its reset seed and its actions, or a run can be neither repeated nor resumed. Its
    own time limit and ``episode_steps`` both end an episode, whichever comes first.

    Raises UsageError at construction for what a scenario can mend, RunError when the environment fails.
    """

    rollouts = 1

    def __init__(
        self,
        path: str,
        env_args: Mapping[str, Any],
        episode_steps: int = 200,
        default_action: int = 0,
    ) -> None:
        self._path = path
        self._env = _construct(path, env_args)
        self._names: list[str] = list(self._env.possible_agents)
        self._encoders = []
        self._first_action: list[int] = []
        self.agents: list[AgentSpec] = []
        for name in self._names:
            where = f"world.env = {path!r}, agent {name!r}"
            size, encoder = observation_encoder(self._env.observation_space(name), where)
            n_actions, first = discrete_actions(self._env.action_space(name), where)
            self._encoders.append(encoder)
            self._first_action.append(first)
            self.agents.append(AgentSpec(str(name), size, n_actions))
        self.default_action = default_action
        self.episode_steps = episode_steps
        self._same_size = len({agent.observation_size for agent in self.agents}) == 1
        self._alive = np.zeros(len(self._names), dtype=np.bool_)
        self._step = 0

    def reset(self, seed: int) -> WorldStep:
        seen = self._call("reset", lambda: self._env.reset(seed=seed))
        self._alive = self._listed()
        self._step = 0
        n = len(self._names)
        return WorldStep(
            observations=self._encode(seen[0], self._alive),
            rewards=np.zeros(n, dtype=np.float32),
            terminated=np.zeros(n, dtype=np.bool_),
            alive=self._alive.copy(),
        )

    def step(self, actions: NDArray[np.int64]) -> WorldStep:
        before = self._alive
        chosen = {self._names[i]: int(actions[i]) + self._first_action[i] for i in np.flatnonzero(before)}
        seen, rewards, ended, cut, _ = self._call("step", lambda: self._env.step(chosen))
        self._step += 1
        self._alive = self._listed()
        flagged_end = self._flags(ended)
        cut_off = before & self._flags(cut) & ~flagged_end
        self._alive &= ~(flagged_end | cut_off)  # some environments list an agent for one step too long
        terminated = before & ~self._alive & ~cut_off
        gained = [float(rewards.get(name, 0.0)) for name in self._names]
        done = not self._alive.any() or self._step >= self.episode_steps
        return WorldStep(
            observations=self._encode(seen, self._alive | cut_off),
            rewards=np.where(before, np.array(gained, dtype=np.float32), np.float32(0.0)),
            terminated=terminated,
            alive=self._alive.copy(),
            done=done,
            truncated=done and not bool(terminated[before].all()),
        )

    def restore(self, seed: int, actions: NDArray[np.int64]) -> WorldStep:
        state = self.reset(seed)
        for row in actions:
            state = self.step(row)
        return state

    def episode_summary(self) -> dict[str, float]:
        return {"alive": float(np.count_nonzero(self._alive))}

    def render(self) -> NDArray[np.uint8]:
        """The environment's own picture, uint8 ``[h, w, 3]``; UsageError if it draws none."""
        picture = (
            self._call("render", self._env.render)
            if getattr(self._env, "render_mode", None) == "rgb_array"
            else None
        )
        if picture is None:
            raise UsageError(
                f"world.env = {self._path!r}: draws no picture; expected render_mode 'rgb_array'. "
                "Set world.env_args: {render_mode: rgb_array}, if the environment knows it."
            )
        return np.asarray(picture, dtype=np.uint8)

    def _listed(self) -> NDArray[np.bool_]:
        """Which of the agents the environment lists now: bool ``[n]``."""
        now = set(self._env.agents)
        if not now <= set(self._names):
            strangers = sorted(str(name) for name in now - set(self._names))
            raise RunError(
                f"world.env = {self._path!r}: agents {strangers} are not among its possible_agents."
            )
        return np.array([name in now for name in self._names], dtype=np.bool_)

    def _flags(self, values: Mapping[str, bool]) -> NDArray[np.bool_]:
        return np.array([bool(values.get(name, False)) for name in self._names], dtype=np.bool_)

    def _encode(self, seen: Mapping[str, Any], who: NDArray[np.bool_]) -> Observations:
        rows = [np.zeros(agent.observation_size, dtype=np.float32) for agent in self.agents]
        for index in np.flatnonzero(who).tolist():
            name = self._names[index]
            if name not in seen:
                raise RunError(
                    f"world.env = {self._path!r}: gave no observation for {name!r}, which it lists."
                )
            encoded = self._encoders[index](seen[name])
            if encoded.shape != rows[index].shape:
                raise RunError(
                    f"world.env = {self._path!r}: agent {name!r} observed {encoded.size} numbers, "
                    f"its observation space holds {rows[index].size}."
                )
            rows[index] = encoded
        return np.stack(rows) if self._same_size else rows

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            raise RunError(f"world.env = {self._path!r}: its {what} failed ({_told(error)}).") from error


def _construct(path: str, env_args: Mapping[str, Any]) -> Any:
    """The environment, checked to be a parallel one."""
    make = _find(path)
    try:
        env = make(**env_args)
    except Exception as error:
        raise UsageError(
            f"world.env = {path!r}: cannot be made from world.env_args = {dict(env_args)!r} "
            f"({_told(error)}). "
            "Mend world.env_args."
        ) from error
    if hasattr(env, "agent_iter"):
        raise UsageError(
            f"world.env = {path!r}: makes an environment in which agents move in turn; expected a PettingZoo "
            "parallel one. Name its 'parallel_env', or wrap it with pettingzoo.utils.aec_to_parallel."
        )
    needed = ("reset", "step", "observation_space", "action_space", "possible_agents")
    missing = [name for name in needed if not hasattr(env, name)]
    if missing or not list(env.possible_agents):
        lack = f"lacks {', '.join(missing)}" if missing else "has no possible_agents"
        raise UsageError(
            f"world.env = {path!r}: makes a {type(env).__name__}, which {lack}; expected a PettingZoo "
            "parallel environment. Name a callable that makes one."
        )
    return env


def _find(path: str) -> Callable[..., Any]:
    """The callable named by "package.module:callable" (dots allowed in the callable)."""
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(
            f"world.env = {path!r}: expected 'battle', 'ctc', 'rover_tower' or "
            "'package.module:callable', e.g. 'magent2.environments.battle_v4:parallel_env'."
        )
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"world.env = {path!r}: module {module_name!r} cannot be imported ({_told(error)}); expected "
            "the name of an installed module. Install its package, mend the name, or set PYTHONPATH."
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [name for name in dir(found) if name[0] != "_"], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"world.env = {path!r}: {module_name!r} has no {part!r}; mend the name.{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"world.env = {path!r}: {attribute!r} is a {type(found).__name__}; expected a callable that "
            "makes a PettingZoo parallel environment, usually named 'parallel_env'."
        )
    make: Callable[..., Any] = found
    return make


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
