"""The scenario: everything that a user decides about a run, typed, with units in the names of its keys."""

from __future__ import annotations

from math import isclose
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from devices.spec import AlwaysOn, AvailabilitySpec, CustomProfile, JitterSpec, NoJitter
from f2a2_sim.consensus.config import ConsensusConfig
from f2a2_sim.learners.config import DEFAULTS, LearnerConfig
from network.profiles import resolve_link
from network.spec import LinkSpec, PartitionSpec, RingPlusRandomTopology, TopologySpec

BATTLE_MIN_AGENTS = 12
BATTLE_MAX_AGENTS = 625
PARTICLE_EPISODE_STEPS = {"ctc": 100, "rover_tower": 25}
"""The particle worlds by name, with the length of their episodes unless the scenario says otherwise."""


class Section(BaseModel):
    """A part of the scenario: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DurationConfig(Section):
    """When the run ends: at the first of the limits that are given."""

    episodes: int | None = Field(None, ge=1, description="Episodes of the world.")
    env_steps: int | None = Field(
        None, ge=1, description="Steps of the world; the episode in which the limit is reached is finished."
    )
    virtual_time_s: float | None = Field(None, gt=0.0, description="Seconds of simulated time.")
    wall_time_s: float | None = Field(
        None,
        gt=0.0,
        description="Seconds of real time; the only limit that makes two runs of one scenario differ.",
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if all(
            limit is None for limit in (self.episodes, self.env_steps, self.virtual_time_s, self.wall_time_s)
        ):
            raise ValueError(
                "episodes, env_steps, virtual_time_s and wall_time_s are all null, so the run would never "
                "end; "
                "give at least one"
            )
        return self


class WorldConfig(Section):
    """The environment, and how its clock runs against the devices' clocks."""

    env: str = Field(
        "battle",
        pattern=r"^(battle|ctc|rover_tower|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        description=(
            "battle = MAgent2's battle_v4; ctc = Cooperative Treasure Collection, rover_tower = Rover Tower, "
            "both of 8 agents; or package.module:callable that returns a PettingZoo parallel environment "
            "with discrete actions."
        ),
    )
    env_args: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="Keyword arguments of that callable; the named worlds take none."
    )
    agents: int | None = Field(
        None,
        ge=1,
        description="Learning agents: 12 to 625 for battle; null = as many as any other environment has.",
    )
    map_size: int | None = Field(
        None,
        ge=12,
        le=400,
        description="Side of battle's square map in cells; null = the smallest that fits.",
    )
    opponent: str = Field(
        "random",
        pattern=r"^(random|iql|.+\.safetensors)$",
        description="Policy of battle's other army: random, iql (shipped weights), or a .safetensors file of "
        "weights.",
    )
    episode_steps: int = Field(
        200,
        ge=1,
        description="Steps after which an episode is cut off; if left out, ctc has 100 and rover_tower 25.",
    )
    rollouts: int = Field(
        1,
        ge=1,
        le=1024,
        description=(
            "Copies of the world that every agent plays at a time, on its one device (12 in the paper's "
            "particle worlds); for ctc and rover_tower with a learner that has joint critics."
        ),
    )
    observation_limit: float | None = Field(
        None,
        gt=0.0,
        description=(
            "Agents observe every number clipped to this size (null = as it is): what is near is seen the "
            "more clearly, of what is far the direction. In ctc agents touch at 0.1, and what was taken lies "
            "at -999, beside which standardised inputs hardly show all else."
        ),
    )
    mode: Literal["lockstep", "realtime"] = Field(
        "lockstep",
        description=(
            "lockstep = a step happens when every live agent's action has arrived; realtime = a step every "
            "period_s, "
            "and a late action is replaced by the default action."
        ),
    )
    period_s: float | None = Field(None, gt=0.0, description="Time between two steps in realtime mode.")
    after_death: Literal["keep_learning", "silent"] = Field(
        "keep_learning",
        description=(
            "What the device of a dead agent does until the next episode: goes on learning and exchanging, "
            "or nothing."
        ),
    )
    observation_latency_s: float = Field(
        0.001, ge=0.0, description="Delay from the world to an agent's device."
    )
    action_latency_s: float = Field(0.001, ge=0.0, description="Delay from an agent's device to the world.")
    default_action: int | None = Field(
        None, ge=0, description="Action that replaces a missing one; null = the world's own (battle: stay)."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_the_length_of_the_world(cls, given: Any) -> Any:
        env = given.get("env") if isinstance(given, dict) else None
        if not isinstance(env, str) or env not in PARTICLE_EPISODE_STEPS:
            return given
        return {"episode_steps": PARTICLE_EPISODE_STEPS[env], **given}

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.mode == "realtime" and self.period_s is None:
            raise ValueError("mode: realtime steps every period_s, but period_s is null; give period_s")
        if self.mode == "lockstep" and self.period_s is not None:
            raise ValueError(
                f"period_s: {self.period_s:g} has no meaning with mode: lockstep; set mode: realtime or "
                "period_s: null"
            )
        if self.period_s is not None and self.observation_latency_s > self.period_s:
            raise ValueError(
                f"observation_latency_s: {self.observation_latency_s:g} is longer than period_s, "
                f"{self.period_s:g}: the next step would come before the observation of this one; use at "
                "most period_s, or a longer action_latency_s"
            )
        if self.rollouts > 1 and self.env not in PARTICLE_EPISODE_STEPS:
            raise ValueError(
                f"rollouts: {self.rollouts} is for env: ctc or rover_tower, but env is {self.env}; "
                "set rollouts: 1"
            )
        if self.env == "battle":
            self._check_battle()
        else:
            self._check_custom()
        return self

    def _check_battle(self) -> None:
        if self.agents is None:
            raise ValueError(
                f"env: battle needs agents, but agents is null; give {BATTLE_MIN_AGENTS} to "
                f"{BATTLE_MAX_AGENTS}"
            )
        if not BATTLE_MIN_AGENTS <= self.agents <= BATTLE_MAX_AGENTS:
            raise ValueError(
                f"env: battle takes {BATTLE_MIN_AGENTS} to {BATTLE_MAX_AGENTS} agents a side, "
                f"but agents is {self.agents}; change agents"
            )
        self._check_no_env_args()

    def _check_no_env_args(self) -> None:
        if self.env_args:
            raise ValueError(
                f"env: {self.env} takes no env_args, but env_args has {', '.join(self.env_args)}; remove them"
            )

    def _check_custom(self) -> None:
        if self.env in PARTICLE_EPISODE_STEPS:
            self._check_no_env_args()
        if self.opponent != "random":
            raise ValueError(
                f"opponent: {self.opponent} is for env: battle, but env is {self.env}; remove opponent"
            )
        if self.map_size is not None:
            raise ValueError(
                f"map_size: {self.map_size} is for env: battle, but env is {self.env}; remove map_size"
            )


class FleetGroup(Section):
    """Some of the agents, all on one kind of device."""

    profile: str = Field(
        description="Device of these agents: a name of `f2a2-sim profiles` or of custom_profiles."
    )
    share: float = Field(
        1.0, gt=0.0, le=1.0, description="Part of all agents; the shares of a fleet add up to 1."
    )
    link: str | None = Field(
        None,
        description="Link of these agents: a name of `f2a2-sim profiles` or of custom_links; null = "
        "network.link.",
    )
    availability: AvailabilitySpec | None = Field(
        None, description="When these devices are on; null = devices.availability."
    )


class DevicesConfig(Section):
    """Which device every agent lives on, and when it is on."""

    fleet: tuple[FleetGroup, ...] = Field(
        default_factory=lambda: (
            FleetGroup(profile="raspberry_pi_5", share=1.0, link=None, availability=None),
        ),
        description="Groups of agents by device, at least one.",
    )
    assignment: Literal["shuffled", "in_order"] = Field(
        "shuffled",
        description="Whether agents are dealt to the groups at random (by the run's seed) or in order.",
    )
    availability: AvailabilitySpec = Field(
        default_factory=AlwaysOn, description="When devices are on, unless their group says otherwise."
    )
    jitter: JitterSpec = Field(default_factory=NoJitter, description="Random variation of computing times.")
    custom_profiles: dict[str, CustomProfile] = Field(
        default_factory=dict, description="Devices of your own by name, beside those of the catalogue."
    )

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        if not self.fleet:
            raise ValueError(
                "fleet is empty, so no agent has a device; give at least one group, such as "
                "{profile: raspberry_pi_5}"
            )
        total = sum(group.share for group in self.fleet)
        if not isclose(total, 1.0, abs_tol=1e-6):
            shares = " + ".join(f"{group.share:g}" for group in self.fleet)
            raise ValueError(
                f"the shares of the fleet must add up to 1, but {shares} = {total:g}; change a share"
            )
        return self


class LinkChoice(LinkSpec):
    """A link: a profile of the catalogue with some keys changed, or all keys of one's own."""

    profile: str | None = Field(
        None,
        description=(
            "Link of `f2a2-sim profiles links`, or for network.link of custom_links, that supplies every key "
            "not given here; null = none."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_profile(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("profile"), str):
            return given
        return {**resolve_link(given["profile"]).model_dump(), **given}

    @property
    def spec(self) -> LinkSpec:
        """The link without the name of where its figures come from."""
        return LinkSpec(**{key: getattr(self, key) for key in LinkSpec.model_fields})


class NetworkConfig(Section):
    """Who can reach whom, over what kind of link."""

    topology: TopologySpec = Field(
        default_factory=lambda: RingPlusRandomTopology(share=0.03), description="The graph of the agents."
    )
    custom_links: dict[str, LinkChoice] = Field(
        default_factory=dict, description="Links of your own by name, beside those of the catalogue."
    )
    link: LinkChoice = Field(
        default_factory=LinkChoice, description="The link of every agent whose group names no other."
    )
    partitions: tuple[PartitionSpec, ...] = Field(
        default=(), description="Times in which groups of agents cannot reach each other."
    )

    @field_validator("link", mode="before")
    @classmethod
    def _start_from_custom_link(cls, given: Any, info: ValidationInfo) -> Any:
        name = given.get("profile") if isinstance(given, dict) else None
        custom: dict[str, LinkChoice] = info.data.get("custom_links", {})
        if not isinstance(name, str) or name not in custom:
            return given
        return {**custom[name].spec.model_dump(), **given, "profile": None}


class RecordConfig(Section):
    """What a run writes down beside its results."""

    every_steps: int = Field(20, ge=1, description="World steps between two rows of metrics.parquet.")
    timeline_agents: int = Field(
        8, ge=0, description="Devices whose every activity is kept for the timeline."
    )
    timeline_events: int = Field(20_000, ge=0, description="Most activities kept for the timeline.")
    tensorboard: bool = Field(True, description="Whether TensorBoard event files are written.")
    links: bool = Field(True, description="Whether totals of every link are written to tables/links.parquet.")
    baseline_episodes: int = Field(
        3, ge=0, description="Episodes of the random policy, measured before the run for comparison."
    )


class CheckpointConfig(Section):
    """When the whole state of the run is saved; it is always saved on interruption."""

    every_wall_s: float | None = Field(
        60.0,
        gt=0.0,
        description="Seconds of real time between two checkpoints; longer where saving would take more than "
        "a fiftieth of the time.",
    )
    every_episodes: int | None = Field(None, ge=1, description="Episodes between two checkpoints.")
    keep: int = Field(2, ge=1, description="Newest checkpoints that are kept.")


class DeploymentConfig(Section):
    """How long real processes wait for each other; the simulator has no use for it."""

    start_timeout_s: float = Field(
        120.0, gt=0.0, description="Longest wait of the world for all agents to join, in seconds."
    )
    lockstep_timeout_s: float = Field(
        10.0,
        gt=0.0,
        description="Longest wait of a lockstep world for an action; then the default action is played.",
    )
    lost_after_s: float = Field(
        10.0, gt=0.0, description="An agent of which nothing has come for so long counts as absent."
    )


class Scenario(Section):
    """A whole run: world, learners, devices, network and duration."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name of the scenario, used for the run's folder.",
    )
    seed: int = Field(
        1, ge=0, lt=2**63, description="Seed of all randomness: same scenario and seed, same results."
    )
    duration: DurationConfig = Field(description="When the run ends.")
    world: WorldConfig = Field(description="The environment.")
    learner: LearnerConfig = Field(
        default_factory=LearnerConfig, description="The learning algorithm of every agent."
    )
    consensus: ConsensusConfig = Field(
        default_factory=ConsensusConfig, description="How agents agree on shared parameters."
    )
    devices: DevicesConfig = Field(
        default_factory=DevicesConfig, description="The machines that the agents live on."
    )
    network: NetworkConfig = Field(
        default_factory=NetworkConfig, description="The graph and the links between the agents."
    )
    record: RecordConfig = Field(default_factory=RecordConfig, description="What the run writes down.")
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="When the run is saved."
    )
    deployment: DeploymentConfig = Field(
        default_factory=DeploymentConfig, description="Time limits of real processes."
    )

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        topology = self.network.topology
        if (
            self.consensus.scheme == "push_sum"
            and isinstance(topology, RingPlusRandomTopology)
            and topology.redraw != "never"
        ):
            raise conflict(
                "consensus.scheme",
                "push_sum needs a fixed graph, because mass in flight on an edge that vanishes is lost, but "
                f"network.topology.redraw is {topology.redraw}; set redraw: never, or use gossip or paper",
            )
        learner, agents = self.learner, self.world.agents
        if ":" in learner.name:  # what a learner of one's own can do is seen where it is made
            return self
        joint = learner.name in DEFAULTS
        if self.world.rollouts > 1 and not joint:
            raise conflict(
                "world.rollouts",
                f"rollouts: {self.world.rollouts} is for learners with joint critics, but learner.name is "
                f"{learner.name}; set rollouts: 1, or learner.name: f2a2_sac",
            )
        if learner.moa is not None and not joint:
            raise conflict(
                "learner.moa",
                f"moa: on is for learners with joint critics, but {learner.name} asks for nobody else's "
                "policy; set moa: off",
            )
        if learner.information == "network" and not joint:
            raise conflict(
                "learner.information",
                f"information: network is for learners with joint critics, but {learner.name} sees its own "
                "observations only; set information: accessible",
            )
        if agents is None or joint:
            return self
        capacity = learner.replay_transitions // agents
        for key in ("batch_size", "warmup_transitions"):
            wanted = getattr(learner, key)
            if 2 * wanted > capacity:
                raise conflict(
                    f"learner.{key}",
                    f"{key}: {wanted} needs a replay of twice that, but an agent's keeps {capacity} "
                    f"(replay_transitions {learner.replay_transitions} / world.agents {agents}); "
                    f"use at most {capacity // 2}, or at least {2 * wanted * agents} replay_transitions",
                )
        return self


def conflict(key: str, message: str) -> PydanticCustomError:
    """An error of values that do not fit together, to be reported at ``key`` (dotted, from the top)."""
    return PydanticCustomError("scenario_conflict", "{message}", {"key": key, "message": message})


def scenario_json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of scenario files, for editors."""
    schema = Scenario.model_json_schema()
    for definition in schema["$defs"].values():
        kind = definition.get("properties", {}).get("kind")
        if kind is not None and "const" in kind:
            kind.setdefault("description", definition["description"].partition("\n")[0])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
