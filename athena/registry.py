"""The registry of a model's releases: a journal of signed entries, and the states and aliases that follow from it.

Every entry names the digest of the one before it, so the digest of the last one, which the trainer commits to on chain,
stands for all of them: neither a release nor what was said of it can be changed or left out afterwards. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from athena.errors import BadInput, Conflict, NotFound
from athena.protocol import MAX_COMMITMENT_BYTES, Hex40, Hex64, Hotkey, Location, Noun

Action = Literal["cut", "propose", "approve", "publish", "alias", "yank"]
State = Literal["draft", "candidate", "approved", "released", "yanked"]
Gate = Literal["first", "better", "equal", "worse", "incomparable"]
"""What the regression gate says of a release next to the one before it; `first` where there is none."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d{0,5})(\.(0|[1-9]\d{0,5})){2}$")]
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Remark = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=500)]

GENESIS = "0" * 64
"""What the first entry names as the one before it."""
LATEST = "latest"
"""Always the greatest version that is released: no entry sets it."""
SHIPS = ("first", "better")
"""Verdicts of the gate that need no reason to approve."""
MAX_ENTRIES = 4096  # of one journal: a century of one release a week
_BEFORE: Mapping[Action, tuple[State | None, ...]] = {
    "cut": (None, "draft", "candidate"),  # what nobody approved may be cut anew under its version
    "propose": ("draft",),
    "approve": ("candidate",),
    "publish": ("approved",),
    "alias": ("released",),
    "yank": ("released",),
}
_AFTER: Mapping[Action, State] = {
    "cut": "draft",
    "propose": "candidate",
    "approve": "approved",
    "publish": "released",
    "alias": "released",
    "yank": "yanked",
}


class Entry(Noun):
    """One line of the journal: who (`by`) did what, when and why, to the release with this digest.

    `gate` and `against` (the version it was compared with) belong to propose, `location` and `revision` (where the
    files lie) to publish, `alias` to alias.
    """

    format: Literal["athena-journal/1"] = "athena-journal/1"
    model: ModelName
    number: Annotated[int, Field(ge=0, lt=MAX_ENTRIES)]
    previous: Hex64
    at: AwareDatetime
    by: Hotkey
    action: Action
    version: Version
    release: Hex64
    reason: Remark = ""
    gate: Gate | None = None
    against: Version | None = None
    location: Location | None = None
    revision: Hex40 | None = None
    alias: Alias | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        has = {
            "propose": self.gate is not None and (self.against is None) == (self.gate == "first"),
            "publish": self.location is not None and self.revision is not None,
            "alias": self.alias not in (None, LATEST),
            "yank": bool(self.reason.strip()),
        }
        if not has.get(self.action, True):
            raise ValueError(f"{self.action} lacks what belongs to it")
        foreign = {
            "propose": self.gate or self.against,
            "publish": self.location or self.revision,
            "alias": self.alias,
        }
        if any(value for action, value in foreign.items() if action != self.action):
            raise ValueError(f"{self.action} says more than belongs to it")
        return self


class SignedEntry(Noun):
    """An entry and the sr25519 signature (hex) of its author over its canonical bytes."""

    entry: Entry
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class Standing(Noun):
    """Where one version stands. `release` is the digest of its release.json."""

    version: Version
    release: Hex64
    state: State
    changed_at: AwareDatetime
    gate: Gate | None = None
    location: Location | None = None
    revision: Hex40 | None = None

    @property
    def key(self) -> tuple[int, ...]:
        return version_key(self.version)


@dataclass(frozen=True)
class Registry:
    """What a journal comes to. The author of its first entry owns it, and writes all others.

    `named` holds for each alias the versions that it named, the present one last: going back drops the later ones, so
    that a yank falls back to what was good before.
    """

    model: str
    owner: str | None = None
    head: str = GENESIS
    length: int = 0
    standings: Mapping[str, Standing] = field(default_factory=dict)
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def after(self, entry: Entry) -> Registry:
        """The registry once `entry` is in its journal.

        Raises BadInput for an entry of another journal or by another than the owner, Conflict for one that does not
        follow the last one or whose version is in the wrong state.
        """
        if entry.model != self.model:
            raise BadInput(f"the entry is about {entry.model}, not {self.model}")
        if self.owner not in (None, entry.by):
            raise BadInput(f"the journal of {self.model} is {self.owner}'s, not {entry.by}'s")
        if (entry.number, entry.previous) != (self.length, self.head):
            raise Conflict("the entry does not follow the journal's last one", remedy="read the journal again")
        standing = self.standings.get(entry.version)
        state = standing.state if standing else None
        if state not in _BEFORE[entry.action]:
            raise Conflict(f"cannot {entry.action} {self.model} {entry.version}: it is {state or 'not cut yet'}")
        if standing is not None and entry.action != "cut":
            _check(standing, entry)
        moved = _moved(standing, entry)
        named = {**self.named, entry.alias: _pointed(self.named.get(entry.alias, ()), entry)} if entry.alias else None
        return replace(
            self,
            owner=entry.by,
            head=entry.digest(),
            length=self.length + 1,
            standings={**self.standings, entry.version: moved},
            named=named or self.named,
        )

    def resolve(self, reference: str) -> Standing:
        """The version that an alias or `0.1.0` or `v0.1.0` names. Raises NotFound, and Conflict for a yanked one."""
        version = self.aliases.get(reference, reference.removeprefix("v"))
        standing = self.standings.get(version)
        if standing is None or standing.state not in ("released", "yanked"):
            known = ", ".join([*self.aliases, *(s.version for s in self.released)]) or "nothing is released yet"
            raise NotFound(f"{self.model} has no release {reference[:64]!r}", remedy=f"there are: {known}")
        if standing.state == "yanked":
            raise Conflict(f"{self.model} {version} was yanked", remedy="choose another, or name its revision")
        return standing

    @property
    def released(self) -> list[Standing]:
        """All that may be downloaded, the greatest version first."""
        found = (standing for standing in self.standings.values() if standing.state == "released")
        return sorted(found, key=lambda standing: standing.key, reverse=True)

    @property
    def aliases(self) -> dict[str, str]:
        """The version that each alias names now; yanked ones are passed over."""
        released = self.released
        found = {LATEST: released[0].version} if released else {}
        for alias, versions in sorted(self.named.items()):
            good = [version for version in versions if self.standings[version].state == "released"]
            if good:
                found[alias] = good[-1]
        return found

    def before(self, alias: str) -> str:
        """The version that `alias` named before its present one. Raises NotFound."""
        good = [v for v in self.named.get(alias, ()) if self.standings[v].state == "released"]
        if len(good) < 2:
            raise NotFound(f"{alias} of {self.model} named no other release before", remedy="name the version")
        return good[-2]


def _check(standing: Standing, entry: Entry) -> None:
    if entry.release != standing.release:
        raise Conflict(f"{entry.version} is another release: {standing.release}")
    if entry.action == "approve" and standing.gate not in SHIPS and not entry.reason.strip():
        raise Conflict(f"{entry.version} is {standing.gate} than the release before it", remedy="approve with a reason")


def _moved(standing: Standing | None, entry: Entry) -> Standing:
    state = _AFTER[entry.action]
    if standing is None or entry.action == "cut":
        return Standing(version=entry.version, release=entry.release, state=state, changed_at=entry.at)
    return standing.model_copy(
        update={
            "state": state,
            "changed_at": entry.at,
            "gate": entry.gate or standing.gate,
            "location": entry.location or standing.location,
            "revision": entry.revision or standing.revision,
        }
    )


def _pointed(versions: tuple[str, ...], entry: Entry) -> tuple[str, ...]:
    if entry.version in versions:
        return versions[: versions.index(entry.version) + 1]
    return (*versions, entry.version)


def replay(model: str, entries: Iterable[SignedEntry], verify: Callable[[str, bytes, str], None]) -> Registry:
    """The registry after all `entries`, from the first on. `verify(hotkey, message, signature)` raises Unauthorized.

    Raises what `verify` and `Registry.after` raise.
    """
    registry = Registry(model)
    for signed in entries:
        verify(signed.entry.by, signed.entry.canonical(), signed.signature)
        registry = registry.after(signed.entry)
    return registry


def version_key(version: str) -> tuple[int, ...]:
    """Versions in their order: 0.10.0 comes after 0.9.0."""
    return tuple(map(int, version.split(".")))


_HEAD = re.compile(r"athr1\|([a-z0-9][a-z0-9-]{0,63})\|(\d+\.\d+\.\d+)\|([0-9a-f]{64})\|([0-9a-f]{64})")


class HeadCommitment(Noun):
    """What a trainer puts on chain: `athr1|model|version|release|head`: of its journal, the last entry.

    The chain keeps one commitment of a hotkey, and the head stands for every release before.
    """

    model: ModelName
    version: Version
    release: Hex64
    head: Hex64

    def encode(self) -> str:
        return f"athr1|{self.model}|{self.version}|{self.release}|{self.head}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Strict: one regular expression over at most 384 bytes. Raises BadInput."""
        match = _HEAD.fullmatch(text) if len(text) <= MAX_COMMITMENT_BYTES else None
        if match is None:
            raise BadInput("not an athr1 commitment")
        model, version, release, head = match.groups()
        try:
            return cls(model=model, version=version, release=release, head=head)
        except ValueError as error:
            raise BadInput(f"not an athr1 commitment: {error}") from error

    @classmethod
    def of(cls, entries: Iterable[SignedEntry]) -> Self:
        """The commitment that stands for a journal. Raises NotFound for an empty one."""
        written = list(entries)
        if not written:
            raise NotFound("the journal is empty")
        entry = written[-1].entry
        return cls(model=entry.model, version=entry.version, release=entry.release, head=entry.digest())


def covered(entries: Iterable[SignedEntry], commitment: HeadCommitment) -> list[SignedEntry]:
    """The entries that a commitment on chain stands for.

    Raises Conflict where its head is not among them: the journal is an old copy, or another one.
    """
    found = []
    for signed in entries:
        found.append(signed)
        if signed.entry.digest() == commitment.head:
            return found
    raise Conflict(
        "the journal lacks what its owner committed to on chain: it is an old copy, or another",
        remedy="try again later, or ask the trainer",
    )
