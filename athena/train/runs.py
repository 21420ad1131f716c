"""What a trunk and a branch do, stage by stage, from accepted datasets to an evaluated model.

Every stage leaves one file or folder, whole or not at all, and is passed over where that is there: a run that was
killed goes on where it stopped and ends in the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from athena.durable import write_file
from athena.errors import NotFound
from athena.evalpack import EvalPack
from athena.evaluation import Evaluation
from athena.evaluations.canaries import drawn_plan
from athena.evaluations.subject import ModelFiles, Subject
from athena.evaluations.suites import measure
from athena.events import EventLog
from athena.hub import Hub
from athena.judge.proxy.arms import ProxyWorkers, devices_here
from athena.judge.rules import rules_of
from athena.optout import LeftOut
from athena.protocol import LineageEntry
from athena.train.calibrate import AblationPlan
from athena.train.checkpoint import save_model
from athena.train.folders import staged
from athena.train.gather import DOCUMENTS, gather, load_mixture, read_documents
from athena.train.lineage import summarize_lineage
from athena.train.mixture import MixtureRules
from athena.train.plan import Plan
from athena.train.presets import Preset, llama_config, preset_of
from athena.train.supervise import supervise, worker_command
from athena.train.tokenizer import END_ID, load_tokenizer, train_tokenizer
from athena.train.tokens import TokenStream, join_documents, write_tokens
from athena.train.trained import CALIBRATION, TRAINED, Trained, read_trained, save_trained
from athena.train.trunk import (
    BRANCH,
    FROM,
    INPUTS,
    NOTHING,
    TRUNK,
    BranchInputs,
    Nothing,
    StageInputs,
    TrunkInputs,
    checkpoint_name,
    read_noun,
    stages_of,
)
from athena.train.worker import CHECKPOINTS, JOB, PLAN, Job, Stage, work

log = logging.getLogger(__name__)

MAX_EPOCHS = 4  # repeating data up to four times costs almost nothing (Muennighoff et al. 2023)
CHECKPOINTS_PER_STAGE = 8


@dataclass(frozen=True)
class Launch:
    """How training is started: in this process, or in several of their own, which write events to a file."""

    processes: int = 1
    events_file: Path | None = None

    def train(self, folder: Path, events: EventLog) -> None:
        """Trains the run in `folder` as its job.json and plan.json say. Raises Diverged, RunFailed, Unavailable."""
        if self.processes == 1:
            work(folder, events)
        else:
            supervise(worker_command(folder, self.processes, self.events_file), folder, events)


IN_THIS_PROCESS = Launch()


class _Run:
    """What both kinds have: a folder, stages that are done once, training, evaluation."""

    def __init__(self, folder: Path, trunk: Path, pack: EvalPack, events: EventLog, launch: Launch) -> None:
        self.folder = folder
        self.trunk = trunk
        self.inputs = read_noun(trunk / TRUNK, TrunkInputs)
        self.preset: Preset = preset_of(self.inputs.settings.preset)
        self.tokenizer = trunk / "tokenizer"
        self.initial = trunk / "initial"
        self._pack = pack
        self._events = events
        self._launch = launch

    def stage(self, name: str, result: Path, do: Callable[[], None]) -> None:
        if result.exists():
            return
        self._events.emit("train.stage", stage=name, state="started", run=self.folder.name)
        started = time.monotonic()
        do()
        seconds = round(time.monotonic() - started, 1)
        log.info("%s: %s done in %.1f s", self.folder.name, name, seconds)
        self._events.emit("train.stage", stage=name, state="done", seconds=seconds, run=self.folder.name)

    def plan(self) -> tuple[list[tuple[int, Path]], Plan]:
        """The trunk's stages that hold documents, with the step that each begins at, and its plan so far."""
        folders = [folder for stage in stages_of(self.trunk) if (folder := stage / "tokens").exists()]
        if not folders:
            raise NotFound(f"{self.trunk} has no tokens yet")
        streams = [TokenStream(folder, self.preset.context_length) for folder in folders]
        firsts, plan = plan_trunk(self.preset, [stream.num_windows for stream in streams], self.inputs.settings.seed)
        return list(zip(firsts, folders, strict=True)), plan

    def train(self, stages: Sequence[tuple[int, Path]], plan: Plan) -> None:
        """Trains on the stages, as job.json and plan.json then say."""
        job = Job(
            model=str(self.initial),
            length=self.preset.context_length,
            stages=tuple(Stage(first_step=first, tokens=str(tokens)) for first, tokens in stages),
            tracker=self.inputs.tracker,
            project=self.trunk.name,
        )
        write_file(self.folder / JOB, job.canonical())
        write_file(self.folder / PLAN, plan.canonical())
        self._launch.train(self.folder, self._events)

    def evaluate(self, model: Path, file: Path) -> None:
        """The ruler and the cheap suites, into `file`."""
        subject = Subject(
            model=load_model(model),
            tokenizer=load_tokenizer(self.tokenizer),
            pack=self._pack,
            per_domain=self.preset.eval_documents,
            window=self.preset.context_length,
            files=ModelFiles(model, self.tokenizer),
        )
        evaluation = measure(subject)
        self._events.emit("train.evaluated", when=file.stem, bits_per_byte=evaluation.bits_per_byte)
        write_file(file, evaluation.canonical())


class TrunkRun(_Run):
    """The trunk in `folder`, over the hub that its datasets lie on: all stages of data that it was given so far."""

    def __init__(
        self, folder: Path, hub: Hub, pack: EvalPack, events: EventLog, launch: Launch = IN_THIS_PROCESS
    ) -> None:
        super().__init__(folder, folder, pack, events, launch)
        self._hub = hub

    def run(self) -> Path | None:
        """All that is not done yet; the last checkpoint, None while no stage holds a document.

        Raises Unavailable when a service failed (call again), Diverged.
        """
        if not self.prepare():
            return None
        before = self.folder / "before.json"
        self.stage("initial", self.initial, self._initialise)
        self.stage("before", before, lambda: self.evaluate(self.initial, before))
        stages, plan = self.plan()
        final = self.folder / CHECKPOINTS / checkpoint_name(plan.steps)
        self.stage("trunk", final, lambda: self.train(stages, plan))
        return final

    def prepare(self) -> bool:
        """The mixture and tokens of every stage; whether any holds a document. Raises Unavailable."""
        given = stages_of(self.folder)
        for number, stage in enumerate(given):
            self._prepare(stage, [mixture for earlier in given[:number] if (mixture := earlier / "mixture").exists()])
        return not all((stage / NOTHING).exists() for stage in given)

    def _prepare(self, stage: Path, earlier: Sequence[Path]) -> None:
        """Its mixture and tokens, or nothing.json; and the tokenizer, if it is the first with a document."""
        if (stage / NOTHING).exists():
            return
        inputs = read_noun(stage / INPUTS, StageInputs)
        mixture, tokens = stage / "mixture", stage / "tokens"
        try:
            self.stage("mixture", mixture, lambda: self._mix(inputs, earlier, mixture))
        except NotFound as nothing:
            write_file(stage / NOTHING, Nothing(reason=nothing.message).canonical())
            return
        self.stage("tokenizer", self.tokenizer, lambda: self._train_tokenizer(mixture))
        self.stage("tokens", tokens, lambda: self._write_tokens(mixture, tokens))

    def _mix(self, inputs: StageInputs, earlier: Sequence[Path], mixture: Path) -> None:
        """Texts that no earlier stage had; the first stage has canaries."""
        settings = self.inputs.settings
        rules = MixtureRules(
            seed=settings.seed,
            max_tokens=self.preset.training_tokens,
            max_miner_share=settings.max_miner_share,
            canaries=None if earlier else drawn_plan(settings.seed),
        )
        info = gather(
            inputs.datasets, rules, self._pack, self._hub, self.folder / "datasets", mixture, self._events,
            LeftOut(frozenset(inputs.left_out)), earlier,
        )  # fmt: skip
        self._events.emit("train.mixture", documents=info.documents, tokens=info.tokens_by_hotkey, dropped=info.dropped)

    def _train_tokenizer(self, mixture: Path) -> None:
        texts = (document["text"] for document in read_documents(mixture, seed=self.inputs.settings.seed))
        train_tokenizer(texts, self.preset.vocab_size, self.preset.context_length, self.tokenizer)

    def _write_tokens(self, mixture: Path, tokens: Path) -> None:
        write_tokens(mixture / DOCUMENTS, self.tokenizer, tokens)

    def _initialise(self) -> None:
        config = llama_config(self.preset, vocab_size=len(load_tokenizer(self.tokenizer)), end=END_ID)
        torch.manual_seed(self.inputs.settings.seed)
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config.pad_token_id = END_ID
        with staged(self.initial) as out:
            save_model(model, out)


class BranchRun(_Run):
    """The branch in `folder`: anneals the trunk's checkpoint, evaluates it, and says whose data it learned from."""

    def __init__(self, folder: Path, pack: EvalPack, events: EventLog, launch: Launch = IN_THIS_PROCESS) -> None:
        self.branch = read_noun(folder / BRANCH, BranchInputs)
        super().__init__(folder, Path(self.branch.trunk), pack, events, launch)

    def run(self) -> Trained:
        """All that is not done yet. Raises Diverged, NotFound where the trunk's folder is gone."""
        stages, of_trunk = self.plan()
        # What the trunk was given after the branch was cut is not read: a branch goes on in the data that it came from.
        stages = [(first, tokens) for first, tokens in stages if first < self.branch.step]
        plan = branch_plan(of_trunk, self.branch, self.folder / FROM / checkpoint_name(self.branch.step))
        final = self.folder / CHECKPOINTS / checkpoint_name(plan.steps)
        documents, after = self.folder / "documents.parquet", self.folder / "after.json"
        self.stage("branch", final, lambda: self.train(stages, plan))
        self.stage("after", after, lambda: self.evaluate(final, after))
        self.stage("lineage", documents, lambda: self._join([tokens for _, tokens in stages], documents))
        calibration = self._calibrated(
            [tokens.parent / "mixture" for _, tokens in stages], summarize_lineage(documents)
        )
        trained = self.folder / TRAINED
        self.stage("trained", trained, lambda: self._conclude(plan, final, documents, after, calibration))
        return read_trained(self.folder)

    def _calibrated(self, mixtures: Sequence[Path], lineage: Sequence[LineageEntry]) -> Path | None:
        """What each miner's documents gave, beside what the judge foresaw; None without two miners and a forecast."""
        versions = [d.rule_version for m in mixtures for d in load_mixture(m).datasets if d.forecast is not None]
        if not versions or versions[-1] is None or len({entry.hotkey for entry in lineage}) < 2:
            return None
        try:
            rules = rules_of(versions[-1])
        except NotFound as newer:
            log.warning("%s: forecasts are not held against anything: %s", self.folder.name, newer)
            return None
        result = self.folder / CALIBRATION
        plan = AblationPlan(tuple(mixtures), self._pack, rules, self.folder / "ablation")

        def measure() -> None:
            with ProxyWorkers(devices=devices_here()) as workers:
                write_file(result, plan.measure(workers).canonical())

        self.stage("calibration", result, measure)
        return result

    def _join(self, stages: Sequence[Path], documents: Path) -> None:
        """The miners' documents of all stages in one file."""
        part = documents.with_name(f".{documents.name}.part")
        join_documents([tokens / DOCUMENTS for tokens in stages], part, of_miners=True)
        part.replace(documents)

    def _conclude(self, plan: Plan, final: Path, documents: Path, after: Path, calibration: Path | None) -> None:
        trained = Trained(
            model=final,
            tokenizer=self.tokenizer,
            documents=documents,
            lineage=summarize_lineage(documents),
            parameters=self.preset.parameters(len(load_tokenizer(self.tokenizer))),
            training_tokens=plan.windows_before(plan.steps) * self.preset.context_length,
            before=read_noun(self.trunk / "before.json", Evaluation),
            after=read_noun(after, Evaluation),
            calibration=calibration,
        )
        save_trained(trained, self.folder)


def plan_trunk(preset: Preset, windows: Sequence[int], seed: int) -> tuple[list[int], Plan]:
    """The steps that a trunk's stages begin at, and its plan; `windows` are those of each stage's tokens.

    Every window is read at least once; while the trunk has not had the preset's training tokens, up to four times.
    What was planned for earlier stages does not change with later ones.
    """
    wanted = preset.training_tokens // preset.context_length
    batch_windows = batch_of_first_stage(preset, windows[0])
    bounds = [0]
    for epoch in windows:
        left = wanted - bounds[-1] * batch_windows
        bounds.append(bounds[-1] + math.ceil(min(max(left, epoch), epoch * MAX_EPOCHS) / batch_windows))
    firsts, ends = bounds[:-1], bounds[1:]
    plan = Plan(
        seed=seed,
        steps=ends[-1],
        batch_windows=batch_windows,
        micro_windows=preset.micro_windows,
        compile=preset.compiles,
        lr=preset.learning_rate,
        warmup_steps=ends[0] // 20,
        decay_steps=0,
        checkpoint_every=max(1, ends[0] // CHECKPOINTS_PER_STAGE),
        milestones=tuple(ends),
    )
    return firsts, plan


def batch_of_first_stage(preset: Preset, windows: int) -> int:
    """Windows of a step, which the first stage decides for ever: the preset's, but no more than there are."""
    most = min(max(preset.training_tokens // preset.context_length, windows), windows * MAX_EPOCHS)
    return min(max(1, preset.batch_tokens // preset.context_length), most)


def branch_plan(trunk: Plan, branch: BranchInputs, source: Path) -> Plan:
    """The trunk's plan up to the branch's step, then the way to zero."""
    steps = branch.step + branch.decay_steps
    every = max(1, branch.decay_steps // CHECKPOINTS_PER_STAGE)
    return Plan.model_validate(
        {
            **trunk.model_dump(),
            "steps": steps,
            "decay_steps": branch.decay_steps,
            "branch_from": str(source),
            "checkpoint_every": every,
            "milestones": (),
        }
    )


def load_model(folder: Path) -> PreTrainedModel:
    """The model in `folder`, float32, on this machine's accelerator where there is one."""
    disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
