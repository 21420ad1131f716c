"""A training run as stages, from accepted datasets to an evaluated model: the machinery of the trainer's loop.

Every stage leaves one file or folder in the run's folder, whole or not at all, and is passed over where that is there:
a run that was killed goes on where it stopped and ends in the same weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from pydantic import Field, ValidationError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from athena.durable import write_file
from athena.errors import BadInput, Conflict, NotFound
from athena.evalpack import EvalPack
from athena.evaluate import evaluate
from athena.evaluation import Evaluation
from athena.events import EventLog
from athena.hub import Hub
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import Noun
from athena.train.checkpoint import save_model
from athena.train.folders import staged
from athena.train.gather import MixtureInfo, gather, read_documents
from athena.train.lineage import summarize_lineage
from athena.train.loop import Plan, train
from athena.train.mixture import AcceptedDataset, MixtureRules, canonical_order
from athena.train.presets import Preset, llama_config, preset_of
from athena.train.tokenizer import END_ID, load_tokenizer, train_tokenizer
from athena.train.tokens import TokenStream, write_tokens
from athena.train.trained import Trained

log = logging.getLogger(__name__)

MAX_EPOCHS = 4  # repeating data up to four times costs almost nothing (Muennighoff et al. 2023)
MICRO_TOKENS = 2048  # through the model at a time: float32 logits over a 32k vocabulary take 256 MiB
CHECKPOINTS_PER_RUN = 8
INPUTS = "inputs.json"
NounType = TypeVar("NounType", bound=Noun)


class RunSettings(Noun):
    """What a run is, besides its data."""

    preset: str
    seed: int = 0
    max_miner_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The most of the mixture that one miner may supply; with fewer miners than fit, an equal share."""


class RunInputs(Noun):
    """inputs.json: written first, so that a restart trains on the data that the run began with."""

    settings: RunSettings
    datasets: tuple[AcceptedDataset, ...]
    left_out: tuple[str, ...] = ()
    """Domains whose pages are not trained on."""


class TrainerRun:
    """One run in `folder`, over the hub that its datasets lie on."""

    def __init__(self, settings: RunSettings, folder: Path, hub: Hub, pack: EvalPack, events: EventLog) -> None:
        self.settings = settings
        self.folder = folder
        self.preset: Preset = preset_of(settings.preset)
        self._hub = hub
        self._pack = pack
        self._events = events

    @property
    def begun(self) -> bool:
        """Whether the run's data is decided: `run` then takes no more."""
        return (self.folder / INPUTS).exists()

    def run(self, accepted: Iterable[AcceptedDataset], left_out: LeftOut = NOTHING_LEFT_OUT) -> Trained:
        """All stages that are not done yet.

        `accepted` and `left_out` count at the first call only. Raises NotFound when there is nothing to train on,
        Conflict when the folder holds a run of other settings, Unavailable when a service failed (call again),
        Diverged.
        """
        torch.set_num_threads(1)  # bit-equal reruns, and threads that wait for each other cost 5x on a shared machine
        inputs = self._begin(accepted, left_out)
        mixture, tokenizer, tokens = (self.folder / name for name in ("mixture", "tokenizer", "tokens"))
        initial, checkpoints = self.folder / "initial", self.folder / "checkpoints"
        self._stage("mixture", mixture, lambda: self._mix(inputs, mixture))
        self._stage("tokenizer", tokenizer, lambda: self._train_tokenizer(mixture, tokenizer))
        self._stage("tokens", tokens, lambda: self._write_tokens(mixture, tokenizer, tokens))
        self._stage("initial", initial, lambda: self._initialise(tokenizer, initial))
        self._stage("before", self.folder / "before.json", lambda: self._evaluate(initial, "before.json"))
        stream = TokenStream(tokens, self.preset.context_length)
        plan = plan_run(self.preset, stream, self.settings.seed)
        final = checkpoints / f"step-{plan.steps:08d}"
        self._stage("train", final, lambda: self._train(initial, stream, plan, checkpoints))
        self._stage("after", self.folder / "after.json", lambda: self._evaluate(final, "after.json"))
        return Trained(
            model=final,
            tokenizer=tokenizer,
            documents=tokens / "documents.parquet",
            lineage=summarize_lineage(tokens / "documents.parquet"),
            parameters=self.preset.parameters(len(load_tokenizer(tokenizer))),
            training_tokens=plan.steps * plan.batch_windows * stream.length,
            before=_read(self.folder / "before.json", Evaluation),
            after=_read(self.folder / "after.json", Evaluation),
        )

    def _stage(self, name: str, result: Path, work: Callable[[], None]) -> None:
        if result.exists():
            return
        self._events.emit("train.stage", stage=name, state="started")
        started = time.monotonic()
        work()
        seconds = round(time.monotonic() - started, 1)
        log.info("%s: %s done in %.1f s", self.folder.name, name, seconds)
        self._events.emit("train.stage", stage=name, state="done", seconds=seconds)

    def _begin(self, accepted: Iterable[AcceptedDataset], left_out: LeftOut) -> RunInputs:
        file = self.folder / INPUTS
        if self.begun:
            inputs = _read(file, RunInputs)
            if inputs.settings != self.settings:
                raise Conflict(f"{self.folder} holds a run of other settings", remedy="choose another folder")
            return inputs
        datasets = tuple(d for d in canonical_order(accepted) if d.incentive > 0)
        if not datasets:
            raise NotFound("no dataset is accepted yet", remedy="wait until validators have set weights for a miner")
        inputs = RunInputs(settings=self.settings, datasets=datasets, left_out=tuple(sorted(left_out.domains)))
        write_file(file, inputs.canonical())
        return inputs

    def _mix(self, inputs: RunInputs, mixture: Path) -> None:
        rules = MixtureRules(
            seed=self.settings.seed,
            max_tokens=self.preset.training_tokens,
            max_miner_share=self.settings.max_miner_share,
        )
        info = gather(
            inputs.datasets, rules, self._pack, self._hub, self.folder / "datasets", mixture, self._events,
            LeftOut(frozenset(inputs.left_out)),
        )  # fmt: skip
        self._events.emit("train.mixture", documents=info.documents, tokens=info.tokens_by_hotkey, dropped=info.dropped)

    def _train_tokenizer(self, mixture: Path, tokenizer: Path) -> None:
        texts = (document["text"] for document in read_documents(mixture, seed=self.settings.seed))
        train_tokenizer(texts, self.preset.vocab_size, self.preset.context_length, tokenizer)

    def _write_tokens(self, mixture: Path, tokenizer: Path, tokens: Path) -> None:
        write_tokens(read_documents(mixture), load_tokenizer(tokenizer), tokens)

    def _initialise(self, tokenizer: Path, initial: Path) -> None:
        config = llama_config(self.preset, vocab_size=len(load_tokenizer(tokenizer)), end=END_ID)
        torch.manual_seed(self.settings.seed)
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config.pad_token_id = END_ID
        with staged(initial) as out:
            save_model(model, out)

    def _train(self, initial: Path, stream: TokenStream, plan: Plan, checkpoints: Path) -> None:
        train(load_model(initial), stream, plan, checkpoints, self._events)

    def _evaluate(self, model: Path, file: str) -> None:
        evaluation = evaluate(
            load_model(model),
            load_tokenizer(self.folder / "tokenizer"),
            self._pack,
            per_domain=self.preset.eval_documents,
            window=self.preset.context_length,
        )
        self._events.emit("train.evaluated", when=Path(file).stem, bits_per_byte=evaluation.bits_per_byte)
        write_file(self.folder / file, evaluation.canonical())

    def mixture(self) -> MixtureInfo:
        """What the run trains on. Raises NotFound before that is decided."""
        return _read(self.folder / "mixture" / "mixture.json", MixtureInfo)


def plan_run(preset: Preset, stream: TokenStream, seed: int) -> Plan:
    """The preset's training tokens, but every window at least once and at most four times."""
    length = preset.context_length
    epoch = stream.num_windows
    windows = min(max(preset.training_tokens // length, epoch), epoch * MAX_EPOCHS)
    batch_windows = min(max(1, preset.batch_tokens // length), windows)
    steps = -(-windows // batch_windows)
    return Plan(
        seed=seed,
        steps=steps,
        batch_windows=batch_windows,
        micro_windows=max(1, MICRO_TOKENS // length),
        lr=preset.learning_rate,
        warmup_steps=steps // 20,
        decay_steps=2 * steps // 5,
        checkpoint_every=max(1, steps // CHECKPOINTS_PER_RUN),
    )


def load_model(folder: Path) -> PreTrainedModel:
    """The model in `folder`, float32, on this machine's accelerator where there is one."""
    disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _read(file: Path, kind: type[NounType]) -> NounType:
    if not file.exists():
        raise NotFound(f"{file} is not there yet")
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is damaged: {error}", remedy="remove the run's folder and start again") from error
