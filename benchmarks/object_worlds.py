"""The two particle worlds agent by agent: bodies as objects, Python loops over them, a small array for each.

So the particle worlds are written that users have today (MAAC's, ``mpe2``), one rollout a world and a
PettingZoo environment outside. They are the reference that `benchmarks.particle` times batches against. They
share nothing with ``f2a2_sim`` and give the same observations and rewards
(tests/benchmarks/test_object_worlds.py). As in MAAC's code, the distances of Cooperative Treasure Collection
are taken once a step.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Seen = dict[str, Array]

STEP_TIME, DAMPING = 0.1, 0.25
CONTACT_FORCE, CONTACT_MARGIN = 100.0, 1e-3
N_MOVES = 5


class Body:
    """Anything with a place. Agents have a name; a silent one has an empty message."""

    def __init__(
        self,
        name: str,
        size: float,
        mass: float = 1.0,
        movable: bool = False,
        collides: bool = False,
        symbols: int = 0,
    ) -> None:
        self.name, self.size, self.mass = name, size, mass
        self.movable, self.collides, self.symbols = movable, collides, symbols
        self.number = 0  # in its world
        self.accel, self.max_speed = 1.5, 1.0
        self.position, self.velocity = np.zeros(2), np.zeros(2)
        self.control, self.message = np.zeros(2), np.zeros(symbols)

    def act(self, action: int) -> None:
        if self.symbols:
            self.message = one_hot(action, self.symbols)
        if self.movable:
            chosen = one_hot(action, N_MOVES)
            self.control = self.accel * np.array([chosen[1] - chosen[2], chosen[3] - chosen[4]])


AnyBody = TypeVar("AnyBody", bound=Body)


class World:
    """Bodies, and how they move and push each other."""

    def __init__(self, bodies: list[Body]) -> None:
        self.bodies = bodies
        for number, body in enumerate(bodies):
            body.number = number

    def step(self) -> None:
        forces = [body.mass * body.accel * body.control for body in self.bodies]
        for i, one in enumerate(self.bodies):
            for j, other in enumerate(self.bodies[:i]):
                push = self.contact(one, other)
                if push is None:
                    continue
                if one.movable:
                    forces[i] = forces[i] + (other.mass / one.mass if other.movable else 1.0) * push
                if other.movable:
                    forces[j] = forces[j] - (one.mass / other.mass if one.movable else 1.0) * push
        for body, force in zip(self.bodies, forces, strict=True):
            if body.movable:
                self.integrate(body, force)

    def contact(self, one: Body, other: Body) -> Array | None:
        """Force on ``one`` before it is scaled by masses; None if they cannot collide."""
        if not (one.collides and other.collides):
            return None
        away, distance = one.position - other.position, self.distance(one, other)
        penetration = np.logaddexp(0.0, (one.size + other.size - distance) / CONTACT_MARGIN) * CONTACT_MARGIN
        return np.asarray(CONTACT_FORCE * away / distance * penetration)

    def integrate(self, body: Body, force: Array) -> None:
        body.velocity = body.velocity * (1.0 - DAMPING) + force / body.mass * STEP_TIME
        speed = np.sqrt(np.sum(np.square(body.velocity)))
        if speed > body.max_speed:
            body.velocity = body.velocity / speed * body.max_speed
        body.position = body.position + body.velocity * STEP_TIME

    def distance(self, one: Body, other: Body) -> float:
        return float(np.sqrt(np.sum(np.square(one.position - other.position))))

    def touch(self, one: Body, other: Body) -> bool:
        return self.distance(one, other) < one.size + other.size


class MeasuredWorld(World):
    """Distances of all bodies are taken together, whenever bodies have moved."""

    def measure(self) -> None:
        places = np.array([body.position for body in self.bodies])
        self.distances = np.sqrt(np.sum(np.square(places[:, None] - places[None]), axis=2)).tolist()

    def distance(self, one: Body, other: Body) -> float:
        return float(self.distances[one.number][other.number])

    def step(self) -> None:
        super().step()
        self.measure()


class ObjectEnvironment(Generic[AnyBody]):
    """What both have of a PettingZoo parallel environment; rewards and observations are each agent's own."""

    episode_steps: int
    world: World
    bodies: list[AnyBody]  # of the agents

    def start(self) -> None:
        self.possible_agents = [body.name for body in self.bodies]
        self.agents: list[str] = []
        self.draws: Any = None
        self.steps = 0

    def reset(self, seed: int | None = None) -> tuple[Seen, dict[str, dict[str, Any]]]:
        if seed is not None:
            self.draws = np.random.RandomState(seed)
        self.agents, self.steps = list(self.possible_agents), 0
        self.reset_world(self.draws)
        return {body.name: self.observation(body) for body in self.bodies}, {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[Seen, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        for body in self.bodies:
            body.act(actions[body.name])
        self.world.step()
        self.after_physics()
        self.steps += 1
        seen: Seen = {}
        rewards: dict[str, float] = {}
        ended: dict[str, bool] = {}
        cut: dict[str, bool] = {}
        infos: dict[str, dict[str, Any]] = {}
        for body in self.bodies:
            seen[body.name] = self.observation(body)
            rewards[body.name] = self.reward(body)
            ended[body.name], cut[body.name] = False, self.steps >= self.episode_steps
            infos[body.name] = {}
        self.after_step()
        if self.steps >= self.episode_steps:
            self.agents = []
        return seen, rewards, ended, cut, infos

    def reset_world(self, draws: Any) -> None:
        raise NotImplementedError

    def observation(self, agent: AnyBody) -> Array:
        raise NotImplementedError

    def reward(self, agent: AnyBody) -> float:
        raise NotImplementedError

    def after_physics(self) -> None:
        pass

    def after_step(self) -> None:
        pass


class Treasure(Body):
    kind, alive = 0, True


class Collector(Body):
    holding: int | None = None


class Deposit(Body):
    kind = 0


class ObjectTreasureCollection(ObjectEnvironment[Collector | Deposit]):
    """Cooperative Treasure Collection."""

    episode_steps = 100

    def __init__(self) -> None:
        movers = {"movable": True, "collides": True}
        self.collectors = [Collector(f"collector_{i}", 0.05, **movers) for i in range(6)]
        self.deposits = [Deposit(f"deposit_{i}", 0.075, 2.25, **movers) for i in range(2)]
        for kind, deposit in enumerate(self.deposits):
            deposit.kind = kind
        self.treasures = [Treasure(f"treasure_{i}", 0.025) for i in range(6)]
        self.bodies = [*self.collectors, *self.deposits]
        self.world: MeasuredWorld = MeasuredWorld([*self.bodies, *self.treasures])
        self.start()

    def reset_world(self, draws: Any) -> None:
        for body in self.bodies:
            body.position, body.velocity = draws.uniform(-1.0, 1.0, 2), np.zeros(2)
        for collector in self.collectors:
            collector.holding = None
        for treasure in self.treasures:
            treasure.kind = int(draws.choice(2))
            treasure.position, treasure.alive = draws.uniform(-0.95, 0.95, 2), True
        self.world.measure()

    def observation(self, agent: Collector | Deposit) -> Array:
        parts = [agent.position, agent.velocity]
        if isinstance(agent, Collector):
            parts.append(one_hot(agent.holding, 2))
        distance = self.world.distance
        others = [other for other in self.bodies if other is not agent]
        for other in sorted(others, key=lambda body: distance(agent, body)):
            parts += [other.position - agent.position, other.velocity]
            parts.append(one_hot(other.kind if isinstance(other, Deposit) else None, 2))
            parts.append(one_hot(other.holding if isinstance(other, Collector) else None, 2))
        for treasure in sorted(self.treasures, key=lambda body: distance(agent, body)):
            parts += [treasure.position - agent.position, one_hot(treasure.kind, 2)]
        return np.concatenate(parts)

    def after_physics(self) -> None:
        self.shared = self.shared_reward()

    def shared_reward(self) -> float:
        """5 for every touch of a free collector and a treasure, or of a carrier and its deposit."""
        reward = 0.0
        for collector in self.collectors:
            if collector.holding is None:
                reward += 5.0 * sum(self.world.touch(collector, treasure) for treasure in self.treasures)
            elif self.world.touch(collector, self.deposits[collector.holding]):
                reward += 5.0
        return reward

    def reward(self, agent: Collector | Deposit) -> float:
        distance = self.world.distance
        if isinstance(agent, Deposit):
            bringing = [body for body in self.collectors if body.holding == agent.kind]
            if bringing:
                return self.shared - 0.1 * min(distance(agent, body) for body in bringing)
            middle = np.mean([body.position for body in self.collectors], axis=0)
            return self.shared - 0.1 * float(np.sqrt(np.sum(np.square(middle - agent.position))))
        others = [body for body in self.collectors if body is not agent]
        touched = sum(self.world.touch(agent, body) for body in others)
        if agent.holding is None:
            way = min(distance(agent, treasure) for treasure in self.treasures)
        else:
            way = distance(agent, self.deposits[agent.holding])
        return self.shared - 5.0 * touched - 0.1 * way

    def after_step(self) -> None:
        for treasure in self.treasures:
            if treasure.alive:
                for collector in self.collectors:
                    if collector.holding is None and self.world.touch(collector, treasure):
                        collector.holding, treasure.alive = treasure.kind, False
                        treasure.position = np.array([-999.0, -999.0])
                        break
            elif self.draws.uniform(0.0, 1.0) <= 1.0:
                treasure.position = self.draws.uniform(-0.95, 0.95, 2)
                treasure.kind, treasure.alive = int(self.draws.choice(2)), True
        for collector in self.collectors:
            kind = collector.holding
            if kind is not None and self.world.touch(collector, self.deposits[kind]):
                collector.holding = None


class Rover(Body):
    tower: Tower


class Tower(Body):
    rover: Rover
    goal: Body


class ObjectRoverTower(ObjectEnvironment[Rover | Tower]):
    """Rover Tower."""

    episode_steps = 25

    def __init__(self) -> None:
        self.rovers = [Rover(f"rover_{i}", 0.075, movable=True) for i in range(4)]
        self.towers = [Tower(f"tower_{i}", 0.075, symbols=5) for i in range(4)]
        self.landmarks = [Body(f"landmark_{i}", 0.04) for i in range(6)]
        self.bodies = [*self.rovers, *self.towers]
        self.world = World([*self.bodies, *self.landmarks])
        self.start()

    def reset_world(self, draws: Any) -> None:
        pairing = [0, 1, 2, 3]
        draws.shuffle(pairing)
        for tower, number in zip(self.towers, pairing, strict=True):
            tower.rover, tower.message = self.rovers[number], np.zeros(5)
            self.rovers[number].tower = tower
        for tower in self.towers:
            tower.goal = self.landmarks[int(draws.choice(6))]
        for body in self.world.bodies:
            body.position, body.velocity = draws.uniform(-1.0, 1.0, 2), np.zeros(2)

    def observation(self, agent: Rover | Tower) -> Array:
        if isinstance(agent, Tower):
            return np.concatenate([one_hot(agent.rover.number, 4), agent.rover.position, agent.goal.position])
        tower = agent.tower
        return np.concatenate([one_hot(tower.number - 4, 4), tower.message, agent.position, agent.velocity])

    def reward(self, agent: Rover | Tower) -> float:
        tower = agent if isinstance(agent, Tower) else agent.tower
        squared = float(np.sum(np.square(tower.rover.position - tower.goal.position)))
        return -squared + (10.0 if squared < 1.5 * (tower.rover.size + tower.goal.size) else 0.0)


def one_hot(index: int | None, n: int) -> Array:
    """Row of n; zeros for None."""
    row = np.zeros(n)
    if index is not None:
        row[index] = 1.0
    return row
